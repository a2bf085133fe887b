"""The leaderboard site: what it says agrees with the records, and it is safe to publish and to rebuild."""

from __future__ import annotations

import errno
import json
import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from example_records import example_record, example_store, failed

from affectbench import leaderboard
from affectbench.leaderboard import SiteError, build_site
from affectbench.record import Record, cell_id
from affectbench.score_models import Estimate
from affectbench.site_data import calibration_board, groups, ranks
from affectbench.site_entry import entry, sentence
from affectbench.site_format import number, spread
from affectbench.store import Damaged

VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """A page's elements, text, links and ids; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [str(attrs[name]) for _, attrs in self.tags for name in names if name in attrs]

    def with_class(self, tag: str, name: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and name in str(a.get("class", "")).split()]


@cache
def ids_of(path: Path) -> set[str]:
    return set(read(path).values("id"))


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def renamed(record: Record, **names: object) -> Record:
    return record.model_copy(update={"cell": record.cell.model_copy(update=names)})


def with_spec(record: Record, low: float, value: float, high: float, **changes: object) -> Record:
    assert record.headline is not None
    estimate = Estimate(value=value, low=low, high=high, se=0.01)
    headline = record.headline.model_copy(update={"spec": estimate, "significant": True, **changes})
    return record.model_copy(update={"headline": headline})


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    found, damaged = example_store(tmp_path_factory.mktemp("store")).read_all()
    assert not damaged
    return found


@pytest.fixture(scope="module")
def site(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("www") / "site"
    build_site(records, output)
    return output


def test_every_record_has_a_page_a_row_and_its_json(site: Path, records: list[Record]) -> None:
    rows = read(site / "index.html").with_class("tr", "row")
    assert len(rows) == len(records)
    for record in records:
        name = cell_id(record.cell)
        assert record.cell.selector in read(site / "entries" / f"{name}.html").text
        assert Record.model_validate_json((site / "records" / f"{name}.json").read_text()) == record


def test_pages_are_well_formed_with_unique_ids_and_links_that_lead_somewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = read(path)
        ids = page.values("id")
        assert len(ids) == len(set(ids)), path
        for link in page.values("href", "src"):
            target, _, anchor = unquote(link).partition("#")
            if target != "data:,":
                destination = (path.parent / target).resolve() if target else path
                assert destination.is_file(), f"{path.name}: {link}"
                assert not anchor or anchor in ids_of(destination), f"{path.name}: {link}"
        for svg in re.findall(r"<svg.*?</svg>", path.read_text(encoding="utf-8"), re.DOTALL):
            titles = [child.tag for child in ElementTree.fromstring(svg)][:2]
            assert titles == ["title", "desc"]


def test_the_site_names_no_address_outside_itself(site: Path) -> None:
    for name, content in tree(site).items():
        assert not re.search(rb"(https?:)?//[a-z0-9-]+\.[a-z]", content), name
        assert b"@import" not in content, name
        assert b"fetch(" not in content, name


def test_same_records_in_any_order_give_the_same_bytes(
    site: Path, records: list[Record], tmp_path: Path
) -> None:
    again = tmp_path / "again"
    build_site(records[::-1], again)
    assert tree(again) == tree(site)
    build_site(records, again)
    assert tree(again) == tree(site)


def test_numbers_of_the_entry_page_are_those_of_the_record(site: Path, records: list[Record]) -> None:
    record = next(r for r in records if r.headline and r.headline.agg is not None)
    text = read(site / "entries" / f"{cell_id(record.cell)}.html").text
    headline = record.headline
    assert headline is not None
    assert headline.strength is not None
    for estimate in (headline.spec, headline.strength):
        assert number(estimate.value) in text
        assert f"[{number(estimate.low)}, {number(estimate.high)}]" in text
    assert number(headline.agg) in text
    for value in record.hashes.model_dump().values():
        assert value in text
    assert record.provenance.command in text


def test_ranks_share_the_place_of_the_first_row_they_overlap() -> None:
    def estimates(*triples: tuple[float, float, float]) -> list[Estimate]:
        return [Estimate(value=v, low=low, high=high) for low, v, high in triples]

    assert ranks([]) == []
    assert ranks(estimates((0.4, 0.5, 0.6), (0.3, 0.45, 0.5), (0.1, 0.2, 0.39))) == [1, 1, 3]
    # the third overlaps the second but not the first, so it starts a rank of its own
    assert ranks(estimates((0.5, 0.6, 0.7), (0.3, 0.5, 0.6), (0.2, 0.35, 0.45))) == [1, 1, 3]
    # touching is overlapping
    assert ranks(estimates((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))) == [1, 1]


def test_rows_are_ranked_only_within_equal_task_model_and_protocol_hashes() -> None:
    base = example_record(bootstrap_draws=100)
    best = with_spec(renamed(base, selector="best"), 0.7, 0.8, 0.9)
    worse = with_spec(renamed(base, selector="worse"), 0.1, 0.2, 0.3)
    hashes = base.hashes.model_copy(update={"task": "another"})
    elsewhere = with_spec(renamed(base, selector="elsewhere"), 0.0, 0.1, 0.2).model_copy(
        update={"hashes": hashes}
    )
    board = groups([worse, elsewhere, best])
    placed = [[(row.record.cell.selector, row.rank) for row in group.rows] for group in board]
    assert sorted(placed) == [[("best", 1), ("worse", 2)], [("elsewhere", 1)]]


def test_controls_oracles_and_insignificant_rows_have_no_rank_and_say_why() -> None:
    base = with_spec(example_record(bootstrap_draws=100), 0.7, 0.8, 0.9)
    control = renamed(base, selector="random").model_copy(update={"control": True})
    weak = with_spec(renamed(base, selector="weak"), -0.1, 0.1, 0.3, significant=False)
    oracle = renamed(base, selector="oracle", targeting="oracle")
    broken = failed(renamed(base, selector="broken"), "error", "the selector ran out of memory")
    rows = {
        row.record.cell.selector: row
        for group in groups([control, weak, oracle, broken, base])
        for row in group.rows
    }
    assert rows[base.cell.selector].rank == 1
    reasons = {name: row.unranked for name, row in rows.items() if row.rank is None}
    assert set(reasons) == {"random", "weak", "oracle", "broken"}
    assert "control" in reasons["random"]
    assert "not significant" in reasons["weak"]
    assert "gold label" in reasons["oracle"]
    assert "ran out of memory" in reasons["broken"]


def test_unscored_rows_come_after_scored_ones_with_their_reason(site: Path, records: list[Record]) -> None:
    page = read(site / "index.html")
    kinds: dict[str, list[str]] = {}
    for row in page.with_class("tr", "row"):
        kinds.setdefault(str(row["data-group"]), []).append(str(row["data-kind"]))
    for order in kinds.values():
        assert sorted(order, key="unscored".__eq__) == order
    assert sum(order.count("unscored") for order in kinds.values()) == 2
    assert "the selector ran out of memory" in page.text
    name = next(cell_id(r.cell) for r in records if r.status == "error")
    assert "No score: error." in read(site / "entries" / f"{name}.html").text


def test_a_collapsed_record_shows_its_doses_but_no_aggregate(tmp_path: Path) -> None:
    record = example_record(bootstrap_draws=100)
    changed = record.model_dump() | {
        "status": "collapsed",
        "reason": "suppress: every dose collapses",
        "headline": None,
        "operating": None,
    }
    page = read(next(iter(build_site([Record.model_validate(changed)], tmp_path / "s").entries.values())))
    assert "suppress: every dose collapses" in page.text
    assert "Aggregate" not in page.text
    assert len(page.with_class("div", "panel")) == 4
    assert sum("checked" in attrs for tag, attrs in page.tags if tag == "input") == 1


def test_names_that_hold_markup_are_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard, "STATIC_ROWS", 1)
    evil = '<script>alert("x")</script>&\'<img src=x onerror=y>'
    record = example_record(bootstrap_draws=100).model_dump()
    record["cell"] |= {"model": evil, "selector": evil, "task": evil, "intervention": evil}
    record["model"] |= {"id": evil, "instrument_note": evil, "revision": evil}
    record["task"] |= {"id": evil, "title": evil, "labels": [evil, *record["task"]["labels"][1:]]}
    record["scores"]["labels"] = record["task"]["labels"]
    record |= {"flags": [evil], "reason": evil}
    record["provenance"]["command"] = evil
    many = [renamed(Record.model_validate(record), seed=seed) for seed in range(2)]
    made = build_site(many, tmp_path / "site", damaged=[Damaged(Path("a") / f"{evil}.json", evil)])
    for path in (made.index, *list(made.entries.values())[:1]):
        page = read(path)
        assert evil in page.text
        assert all(str(attrs.get("src", "assets")).startswith("assets") for _, attrs in page.tags)
        assert not [tag for tag, _ in page.tags if tag == "img"]
    script = (tmp_path / "site/assets/more-rows.js").read_text()
    more = Page(json.loads(script.removeprefix("window.affectbenchMoreRows = ").removesuffix(";\n")))
    assert evil in more.text
    assert not [tag for tag, _ in more.tags if tag in ("img", "script")]


def test_rows_beyond_the_first_are_loaded_by_script_and_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaderboard, "STATIC_ROWS", 5)
    record = example_record(bootstrap_draws=100)
    many = [renamed(record, seed=seed) for seed in range(12)]
    build_site(many, tmp_path / "site")
    page = read(tmp_path / "site/index.html")
    assert len(page.with_class("tr", "row")) == 5
    assert "The first 5 of 12 rows" in page.text
    script = (tmp_path / "site/assets/more-rows.js").read_text()
    assert script.count('class=\\"row ') == 7


def test_an_empty_site_says_what_to_run(tmp_path: Path) -> None:
    page = read(build_site([], tmp_path / "site").index)
    assert "No results yet" in page.text
    assert "python harness.py run quickstart" in page.text
    assert "NaN" not in page.text


def test_damaged_files_are_listed_by_name_without_their_folder(tmp_path: Path) -> None:
    damaged = [Damaged(tmp_path / "records" / "x.json", "not valid JSON: EOF")]
    text = read(build_site([], tmp_path / "site", damaged=damaged).index).text
    assert "x.json" in text
    assert "not valid JSON: EOF" in text
    assert str(tmp_path) not in text


def test_instruments_are_marked_and_the_page_warns_when_there_is_nothing_else(
    site: Path, records: list[Record], tmp_path: Path
) -> None:
    warning = "All models on this page are calibration instruments."
    assert warning not in read(site / "index.html").text
    instruments = [record for record in records if record.model.instrument]
    made = build_site(instruments, tmp_path / "site")
    assert warning in read(made.index).text
    for path in made.entries.values():
        assert "calibration instrument: no evidence about real models" in read(path).text


def test_calibration_cells_give_the_range_where_records_disagree() -> None:
    one = example_record("reference-text", "mad", bootstrap_draws=100)
    assert one.calibration is not None
    other = renamed(one, seed=5).model_copy(
        update={"calibration": one.calibration.model_copy(update={"auroc": 0.25, "decoy_auroc": None})}
    )
    board = calibration_board([one, other, example_record("small-text", "mad", bootstrap_draws=100)])
    assert board is not None
    assert board.columns == [("reference-text", "reference-text")]
    cell = board.rows[0][2][0]
    assert cell is not None
    assert spread(cell.auroc) == f"0.250 to {one.calibration.auroc:.3f}"
    assert len(cell.decoy_auroc) == 1
    assert calibration_board([example_record("small-text", bootstrap_draws=100)]) is None


def test_the_sentence_counts_the_draws_below() -> None:
    record = example_record(bootstrap_draws=100)
    assert record.scores is not None
    dose = next(d for d in record.scores.doses if d.arm == "suppress")
    assert dose.random is not None
    below = sum(draw < dose.spec.value for draw in dose.random.spec)
    assert f"above {below} of {dose.random.n_draws}" in sentence(record)
    assert number(dose.self_effect.value) in sentence(record)


def test_operating_doses_are_opened_first() -> None:
    record = example_record(bootstrap_draws=100)
    marked = {(p.dose.arm, p.dose.dose) for p in entry(record).panels if p.operating}
    assert record.operating is not None
    assert marked == {
        ("suppress", record.operating.suppress_dose),
        ("amplify", record.operating.amplify_dose),
    }


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SiteError, match="not a leaderboard site"):
        build_site([], tmp_path)
    with pytest.raises(SiteError, match="not a folder"):
        build_site([], tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_leaves_the_old_site_and_nothing_partial(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_site(records[:1], tmp_path / "site")
    before = tree(tmp_path)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SiteError, match="No space left"):
        build_site(records, tmp_path / "site")
    assert tree(tmp_path) == before


def test_pages_of_records_that_are_gone_go_too(records: list[Record], tmp_path: Path) -> None:
    build_site(records[:3], tmp_path / "site")
    build_site(records[:1], tmp_path / "site")
    assert len(list((tmp_path / "site/entries").iterdir())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_two_records_of_one_cell_are_refused(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=cell_id(records[0].cell)):
        build_site([records[0], records[0]], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_progress_counts_pages(records: list[Record], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_site(records[:3], tmp_path / "site", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
