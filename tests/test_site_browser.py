"""Boards of the site in a real browser: sorting, filters, deep links, keyboard, export, pages of rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from example_records import (
    example_record,
    example_store,
    renamed,
)
from site_browser import CELLS, NEEDS_BROWSER, OVERALL, Open, column, example_site, head, numbers

from affectbench.leaderboard import build_site
from affectbench.record import Record, cell_id

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return example_store(tmp_path_factory.mktemp("store")).read_all()[0]


@pytest.fixture(scope="module")
def site(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_site(records, tmp_path_factory.mktemp("www"))


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
