"""Pages of the site in a real browser: entries, figures, analyses, a phone, dark mode, print, axe-core."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from example_analyses import units_off
from example_records import (
    example_record,
    example_store,
    readout_records,
    renamed,
    transfer_records,
)
from site_browser import CELLS, NEEDS_BROWSER, Open, clean, example_site

from affectbench.leaderboard import build_site
from affectbench.record import Identification, Record
from affectbench.store import Store

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return example_store(tmp_path_factory.mktemp("store")).read_all()[0]


@pytest.fixture(scope="module")
def site(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_site(records, tmp_path_factory.mktemp("www"))


def test_an_entry_is_marked_in_the_figure_of_its_comparison(open_page: Open, site: Path) -> None:
    name = next((site / "entries").glob("small-text*mad*")).stem
    page = open_page(f"entries/{name}.html")
    address = page.locator("img.drawing").first.get_attribute("src")
    figure = open_page(f"entries/{address}")
    mark = figure.locator(":target")
    assert mark.locator("title").text_content().startswith("mad: specificity")
    others = figure.locator("g.entry:not(:target) .dot").first
    radius = "mark => getComputedStyle(mark).r"
    assert mark.locator(".dot").evaluate(radius) != others.evaluate(radius)


def test_under_another_path_on_a_server_nothing_is_missing(open_page: Open, site: Path) -> None:
    page = open_page()
    missing = []

    def serve(route: Any) -> None:
        path = site / unquote(urlsplit(route.request.url).path).removeprefix("/some/where/")
        if not path.is_file():
            missing.append(route.request.url)
            return route.fulfill(status=404)
        return route.fulfill(body=path.read_bytes(), content_type=mimetypes.guess_type(path)[0])

    context = page.context.browser.new_context()
    context.route("**/*", serve)
    served = context.new_page()
    served.goto("https://leaderboard.test/some/where/index.html")
    served.locator(f"{CELLS} tr.row th a").first.click()
    served.wait_for_load_state()
    served.locator(".crumbs a").last.click()
    served.wait_for_load_state()
    assert served.locator(f"{CELLS} tr.row").count() == 8
    context.close()
    assert not missing


PAGES = ("index", "guide", "transfer", "readouts", "expression", "identification", "entries/small-text*mad*",
         "entries/small-audio*probe*", "comparisons/small-text*", "models/reference-audio",
         "tasks/reference-text", "methods/mad", "analyses", "analyses/feature-flow*")  # fmt: skip


@pytest.mark.parametrize("pattern", PAGES)
def test_a_phone_shows_the_page_without_scrolling_sideways(open_page: Open, site: Path, pattern: str) -> None:
    name = next(site.glob(f"{pattern}.html")).relative_to(site)
    page = open_page(str(name), width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_tables_of_an_analysis_sort_by_number_and_by_word(open_page: Open, site: Path) -> None:
    name = next(site.glob("analyses/feature-flow*.html")).relative_to(site)
    page = open_page(str(name))
    first = "[...document.querySelectorAll('table.sortable tbody tr')].map((row) => row.cells[0].textContent)"
    start = page.evaluate(first)
    heads = page.locator("table.sortable thead button")
    for place, orders in ((1, (start[::-1], start)), (0, (sorted(start), sorted(start)[::-1]))):
        for order in orders:
            heads.nth(place).click()
            assert page.evaluate(first) == order
    assert page.locator("table.sortable th[aria-sort]").count() == 1
    heads.nth(3).focus()
    page.keyboard.press("Enter")
    assert page.evaluate(first) == sorted(start)[::-1], "what is missing everywhere keeps its order"


def test_the_numbers_of_a_figure_open_by_keyboard(open_page: Open, site: Path) -> None:
    name = next(site.glob("analyses/feature-flow*.html")).relative_to(site)
    page = open_page(str(name))
    summary = page.locator("details.more summary").first
    assert not page.locator("details.more table").first.is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    assert "no interval" not in page.locator("details.more table").first.inner_text()
    clean(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("pattern", PAGES)
def test_axe_finds_no_violation(open_page: Open, site: Path, pattern: str, scheme: str) -> None:
    name = next(site.glob(f"{pattern}.html")).relative_to(site)
    clean(open_page(str(name), color_scheme=scheme))


def test_a_grid_of_transfer_fits_a_phone_and_axe_finds_no_violation(open_page: Open, tmp_path: Path) -> None:
    build_site(transfer_records(), tmp_path / "site")
    page = open_page("transfer.html", root=tmp_path / "site", width=390)
    assert page.locator("svg.figure").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    clean(page)
    page.locator("tbody a").nth(1).click()
    assert "units from" in page.locator(".lead").inner_text()


def test_readouts_side_by_side_fit_a_phone_and_axe_finds_no_violation(
    open_page: Open, tmp_path: Path
) -> None:
    records = [record for name in ("mad", "lap", "random") for record in readout_records(name)]
    build_site(records, tmp_path / "site")
    page = open_page("readouts.html", root=tmp_path / "site", width=390)
    assert page.locator("tbody tr").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    clean(page)
    page.locator("tbody td a").nth(1).click()
    assert "__letters__" in page.url


def test_ways_of_expressing_fit_a_phone_and_axe_finds_no_violation(
    open_page: Open, written: Path, tmp_path: Path
) -> None:
    records = Store(written).read_all()[0]
    build_site(records, tmp_path / "site")
    page = open_page("expression.html", root=tmp_path / "site", width=390)
    assert page.locator("tbody tr").count() == 2 + len(records)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    clean(page)


def test_curves_of_items_fit_a_phone_and_axe_finds_no_violation(open_page: Open, tmp_path: Path) -> None:
    whole = [example_record(selector=name) for name in ("mad", "cas", "random")]
    budgets = [Identification(items=items) for items in (5, 10, 25, 50, 100)]
    few = [renamed(record, identification=budget) for record in whole for budget in budgets]
    build_site([*whole, *few, example_record(seed=1)], tmp_path / "site")
    page = open_page("identification.html", root=tmp_path / "site", width=390)
    assert page.locator("svg.figure").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    clean(page)


def test_the_board_of_alignment_fits_a_phone_sorts_and_unfolds(open_page: Open, tmp_path: Path) -> None:
    low = (0.01, 0.01, 0.01)
    rows = [units_off("some", (0.05, 0.02, 0.08), low), units_off("more", (0.25, 0.2, 0.3), low)]
    rows.append(units_off("random", (0.1, -0.1, 0.3), low, control="selector"))
    build_site([], tmp_path / "site", analyses=rows)
    page = open_page("alignment.html", root=tmp_path / "site", width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    clean(page)
    methods = "[...document.querySelectorAll('tbody tr th a')].map((link) => link.textContent)"
    assert page.evaluate(methods) == ["more", "some", "random"]
    assert page.locator("tbody tr").first.locator("td.measure").nth(1).inner_text().startswith("50.00 %")
    page.locator("thead button", has_text="Beyond random").first.click()
    first = page.evaluate(methods)
    page.locator("thead button", has_text="Beyond random").first.click()
    assert [first, page.evaluate(methods)] in (
        [["some", "random", "more"], ["more", "random", "some"]],
        [["more", "random", "some"], ["some", "random", "more"]],
    )
    assert not page.get_by_text("Benjamini").is_visible()
    page.locator("summary", has_text="Columns, ranks and controls").click()
    assert page.get_by_text("Benjamini").is_visible()
    clean(page)


def test_dark_mode_is_dark_in_pages_and_figures(open_page: Open, site: Path) -> None:
    figure = str(next((site / "comparisons").glob("small-text*.svg")).relative_to(site))
    ink = "getComputedStyle(document.querySelector('text')).fill"
    light, dark = (open_page(figure, color_scheme=scheme).evaluate(ink) for scheme in ("light", "dark"))
    assert light != dark
    page = open_page(color_scheme="dark")
    red, green, blue = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert max(red, green, blue) < 60


def test_print_leaves_the_controls_out_and_shows_every_dose(open_page: Open, site: Path) -> None:
    entry = next((site / "entries").glob("small-text*mad*")).relative_to(site)
    page = open_page(str(entry))
    page.emulate_media(media="print")
    assert all(
        page.evaluate("[...document.querySelectorAll('.panel')].map((panel) => panel.checkVisibility())")
    )
    page = open_page()
    page.emulate_media(media="print")
    assert not page.locator("#cells form").is_visible()


def test_without_javascript_the_first_rows_are_a_table(open_page: Open, records: list[Record]) -> None:
    page = open_page(java_script_enabled=False)
    rows = page.locator(f"{CELLS} tbody tr.row")
    assert rows.count() == len(records)
    assert "need JavaScript" in page.locator("#cells").inner_text()
