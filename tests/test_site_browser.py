"""The site in a real browser: sorting, filters, deep links, keyboard, dark mode, a phone, axe-core.

Every page is watched: an error on the console or a request that leaves the site fails the test.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import mimetypes
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from example_analyses import example_analysis
from example_records import (
    example_record,
    example_report,
    example_store,
    readout_records,
    renamed,
    transfer_records,
)

from affectbench.leaderboard import build_site
from affectbench.record import Identification, Record, cell_id
from affectbench.store import Store

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLAYWRIGHT = importlib.util.find_spec("playwright") is not None

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: the script cannot be run"),
    pytest.mark.skipif(not PLAYWRIGHT, reason="playwright is not installed: pip install -e .[dev]"),
]

CELLS = 'table[data-board="cells"]'
OVERALL = 'table[data-board="overall"]'
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return example_store(tmp_path_factory.mktemp("store")).read_all()[0]


@pytest.fixture(scope="module")
def site(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("www") / "under" / "a path" / "site"
    reports = {record.cell.model: example_report(record.cell.model) for record in records}
    build_site(records, output, conformance=reports, analyses=[example_analysis()])
    return output


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any, site: Path) -> Iterator[Open]:
    """Opens a page of the site from disk; at the end of the test says what went wrong behind the scenes."""
    contexts, wrong = [], []

    def note(request: Any) -> None:
        if urlsplit(request.url).scheme not in ("file", "data", "blob"):
            wrong.append(f"request to {request.url}")

    def opened(name: str = "index.html", *, root: Path = site, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", note)
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        path, _, fragment = name.partition("#")
        page.goto((root / path).as_uri() + (f"#{fragment}" if fragment else ""))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def column(page: Any, key: str, table: str = CELLS) -> list[str]:
    """The texts of a column's cells, without intervals and the lines below."""
    script = """([table, key]) => {
      const heads = [...document.querySelector(table).tHead.rows[0].cells];
      const at = heads.findIndex((head) => head.dataset.sort === key);
      return [...document.querySelectorAll(`${table} tbody tr.row`)].map((row) => {
        const cell = row.cells[at].cloneNode(true);
        cell.querySelectorAll(".sub, .ci, .mark, .tie, .badge.control").forEach((part) => part.remove());
        return cell.textContent.trim();
      });
    }"""
    found: list[str] = page.evaluate(script, [table, key])
    return found


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-")) for text in texts if text != "–"]


def head(page: Any, key: str, table: str = CELLS) -> Any:
    return page.locator(f'{table} th[data-sort="{key}"]')


def test_every_record_is_a_row_whose_links_lead_to_files(
    open_page: Open, site: Path, records: list[Record]
) -> None:
    page = open_page()
    assert sorted(column(page, "selector")) == sorted(record.cell.selector for record in records)
    links = page.eval_on_selector_all("table a", "links => links.map((link) => link.href)")
    files = {Path(unquote(urlsplit(link).path)) for link in links}
    assert all(path.is_file() for path in files)
    assert {path.stem for path in files if path.parent.name == "entries"} >= {
        cell_id(r.cell) for r in records
    }


def test_odd_and_long_names_lead_to_their_pages(open_page: Open, tmp_path: Path) -> None:
    base = example_record(bootstrap_draws=100)
    odd = [
        renamed(base, selector="Own (v2) é"),
        renamed(base, selector="x" * 140),
        renamed(base, model="Org/Model", task="..t/", fraction=0.123456, targeting="union"),
    ]
    made = build_site(odd, tmp_path / "site")
    page = open_page(root=tmp_path / "site")
    links = page.eval_on_selector_all(f"{CELLS} tr.row th a", "links => links.map((link) => link.href)")
    assert {Path(unquote(urlsplit(link).path)) for link in links} == set(made.entries.values())


def test_clicks_on_a_heading_sort_then_reverse_and_write_the_address(open_page: Open) -> None:
    page = open_page()
    for direction, sign in (("descending", -1), ("ascending", 1)):
        head(page, "agg").locator("button").click()
        found = numbers(column(page, "agg"))
        assert found == sorted(found, key=lambda value: sign * value)
        assert head(page, "agg").get_attribute("aria-sort") == direction
        assert "sort=agg" in page.url
    assert set(column(page, "status")[-2:]) == {"error", "insufficient"}, "rows without a score stay last"
    assert page.locator(f"{CELLS} tr.group").count() == 0


def test_the_keyboard_alone_sorts_and_keeps_its_place(open_page: Open) -> None:
    page = open_page()
    button = head(page, "strength").locator("button")
    button.focus()
    page.keyboard.press("Enter")
    focused = "document.activeElement.closest('th')?.dataset.sort"
    assert page.evaluate(focused) == "strength"
    assert head(page, "strength").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert head(page, "strength").get_attribute("aria-sort") == "ascending"
    assert page.evaluate(focused) == "strength"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "pres"


def test_filters_search_and_reset(open_page: Open, records: list[Record]) -> None:
    page = open_page()
    form = page.locator("#cells form")
    form.locator("select[name=model]").select_option("small-audio")
    form.locator("input[name=controls]").uncheck()
    assert set(column(page, "selector")) == {r.cell.selector for r in records if not r.control}
    assert page.url.endswith("#controls=0&model=small-audio")
    form.locator("select[name=model]").select_option("")
    form.locator("input[name=q]").press_sequentially("Out OF memory")
    assert column(page, "selector") == ["probe"]
    assert form.locator("output").inner_text().startswith(f"1 of {len(records)} rows")
    form.locator("input[name=q]").fill("nothing has this")
    assert "No row matches" in page.locator(f"{CELLS} tbody").inner_text()
    form.locator("button[type=reset]").click()
    assert len(column(page, "selector")) == len(records)
    assert "#" not in page.url


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("modality", "audio", lambda record: record.model.modality == "audio"),
        ("family", "mean activation", lambda record: record.evidence == ["mean"]),
        ("status", "error", lambda record: record.status == "error"),
        ("task", "reference-text", lambda record: record.cell.task == "reference-text"),
    ],
)
def test_each_filter_keeps_its_rows(
    open_page: Open, records: list[Record], name: str, value: str, wanted: Callable[[Record], bool]
) -> None:
    page = open_page()
    page.locator(f"#cells select[name={name}]").select_option(value)
    assert sorted(column(page, "selector")) == sorted(r.cell.selector for r in records if wanted(r))


def test_a_deep_link_restores_what_was_seen(open_page: Open) -> None:
    first = open_page()
    first.locator("#cells input[name=q]").fill("small")
    first.locator("#cells summary").click()
    first.locator('#cells input[value="uar"]').check()
    first.locator('#cells input[value="p"]').uncheck()
    head(first, "uar").locator("button").click()
    page = open_page("index.html#" + first.url.partition("#")[2])
    for key in ("selector", "uar", "spec"):
        assert column(page, key) == column(first, key)
    assert head(page, "p").count() == 0
    assert page.locator("#cells input[name=q]").input_value() == "small"


def test_an_address_with_unknown_values_shows_everything(open_page: Open, records: list[Record]) -> None:
    page = open_page("index.html#sort=<b>&model=nobody&page=-4&dir=x&cols=%22")
    assert len(column(page, "selector")) == len(records)


def test_boards_on_one_page_keep_their_states_apart(open_page: Open) -> None:
    page = open_page()
    before = column(page, "selector")
    head(page, "strength", OVERALL).locator("button").click()
    assert column(page, "selector") == before
    assert "overall.sort=strength" in page.url
    found = numbers(column(page, "strength", OVERALL))
    assert found == sorted(found, reverse=True)
    assert page.locator(f"{OVERALL} tbody tr.unscored").count() == 2, "partial coverage has no mean"


def test_what_is_seen_can_be_saved_as_csv_and_json(open_page: Open) -> None:
    page = open_page("index.html#q=mad&sort=spec&dir=descending")
    saved = {}
    for form in ("csv", "json"):
        with page.expect_download() as waiting:
            page.locator(f"#cells button[data-save={form}]").click()
        saved[form] = Path(waiting.value.path()).read_text(encoding="utf-8")
        assert waiting.value.suggested_filename == f"affectbench-cells.{form}"
    rows = json.loads(saved["json"])
    assert [row["selector"] for row in rows] == column(page, "selector")
    assert [row["spec"] for row in rows] == numbers(column(page, "spec"))
    assert all(row["spec_low"] <= row["spec"] <= row["spec_high"] for row in rows)
    table = list(csv.DictReader(io.StringIO(saved["csv"])))
    assert [float(row["spec"]) for row in table] == [row["spec"] for row in rows]
    assert {row["cell"] for row in table} == {row["cell"] for row in rows}


def test_many_rows_come_in_pages(open_page: Open, tmp_path: Path) -> None:
    one = example_record(bootstrap_draws=100)
    build_site([renamed(one, selector=f"own_{n}") for n in range(120)], tmp_path / "site")
    page = open_page(root=tmp_path / "site")
    seen = []
    following = page.locator('#cells [data-step="1"]')
    for _ in range(2):
        seen += page.eval_on_selector_all(f"{CELLS} tr.row th a", "links => links.map((link) => link.href)")
        if following.is_enabled():
            following.click()
    assert len(set(seen)) == len(seen) == 120
    assert page.url.endswith("#page=2")
    assert following.is_disabled()


def test_a_dose_shows_its_panel_alone_and_the_keyboard_moves_between_them(
    open_page: Open, site: Path
) -> None:
    entry = next((site / "entries").glob("small-text*mad*")).relative_to(site)
    page = open_page(str(entry))
    seen = "[...document.querySelectorAll('.panel')].map((panel) => panel.checkVisibility())"
    assert page.evaluate(seen) == [True, False, False, False]
    page.locator('label[for="d2"]').click()
    assert page.evaluate(seen) == [False, False, True, False]
    page.keyboard.press("ArrowRight")
    assert page.evaluate(seen) == [False, False, False, True]


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


def clean(page: Any) -> None:
    """axe-core finds nothing on the page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    listed = [
        f"{item['id']}: {item['help']}: {[node['html'][:160] for node in item['nodes'][:3]]}"
        for item in found.response["violations"]
    ]
    assert not listed


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
