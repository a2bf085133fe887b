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
from e2e_content import write_yaml
from example_records import example_record, example_store, renamed
from submissions import card

from affectbench import site_static, site_summary
from affectbench.leaderboard import SiteError, build_site, build_site_of
from affectbench.record import Identification, Record, cell_id
from affectbench.site_entry import entry, sentence
from affectbench.site_format import number
from affectbench.store import Damaged, Store

VOID = {"meta", "link", "input", "br", "img"}


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
    index = read(site / "index.html")
    overall = {(record.cell.selector, record.model.instrument) for record in records}
    assert len(index.with_class("tr", "row")) == len(records) + len(overall)
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
            if not target.startswith("data:"):
                destination = (path.parent / target).resolve() if target else path
                assert destination.is_file(), f"{path.name}: {link}"
                if anchor and destination.suffix == ".svg":
                    assert f'id="{anchor}"' in destination.read_text(encoding="utf-8")
                else:
                    assert not anchor or anchor in ids_of(destination), f"{path.name}: {link}"
        for svg in re.findall(r"<svg.*?</svg>", path.read_text(encoding="utf-8"), re.DOTALL):
            titles = [child.tag for child in ElementTree.fromstring(svg)][:2]
            assert titles == ["title", "desc"]


def test_the_site_names_no_address_outside_itself(site: Path) -> None:
    for name, content in tree(site).items():
        outside = content.replace(b'xmlns="http://www.w3.org/2000/svg"', b"")
        assert not re.search(rb"(https?:)?//[a-z0-9-]+\.[a-z]", outside), name
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
    assert headline.pres is not None
    assert headline.agg is not None
    kept = record.preservation[0]
    parts = [headline.spec, headline.strength, headline.pres, headline.agg, kept.capability_change, kept.pres]
    for estimate in [each for each in parts if each is not None]:
        assert number(estimate.value) in text
        assert f"[{number(estimate.low)}, {number(estimate.high)}]" in text
    assert f"{number(kept.kl.value, 4)} [{number(kept.kl.low, 4)}, {number(kept.kl.high, 4)}]" in text
    for value in record.hashes.model_dump().values():
        assert value in text
    assert record.provenance.command in text


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


def test_names_that_hold_markup_are_shown_as_text(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>&\'<img src=x onerror=y>'
    record = example_record(bootstrap_draws=100).model_dump()
    record["cell"] |= {"model": evil, "selector": evil, "task": evil, "intervention": evil}
    record["model"] |= {"id": evil, "instrument_note": evil, "revision": evil}
    record["task"] |= {"id": evil, "title": evil, "labels": [evil, *record["task"]["labels"][1:]]}
    record["scores"]["labels"] = record["task"]["labels"]
    record |= {"flags": [evil], "reason": evil}
    record["provenance"]["command"] = evil
    origins = (None, Identification(task=f"{evil}!"), Identification(items=5))
    many = [renamed(Record.model_validate(record), identification=origin) for origin in origins]
    build_site(many, tmp_path / "site", damaged=[Damaged(Path("a") / f"{evil}.json", evil)])
    pages = list((tmp_path / "site").rglob("*.html"))
    # Index, guide, transfer, readouts, recognition, expression, identification, alignment, analyses; method,
    # model, task.
    boards = 9
    assert len(pages) == boards + len(many) + len(many) + 3
    for path in pages:
        page = read(path)
        assert evil in page.text or path.name in (
            "guide.html",
            "alignment.html",
            "analyses.html",
            "readouts.html",
            "expression.html",
            "recognition.html",
        )
        sources = [str(attrs["src"]) for _, attrs in page.tags if "src" in attrs]
        assert all(re.match(r"(\.\./)?(assets|comparisons|overlap)/", source) for source in sources), path
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    for path in (tmp_path / "site").rglob("*.svg"):
        tags = {element.tag.split("}")[1] for element in ElementTree.parse(path).iter()}
        assert not tags & {"script", "img"}
    script = (tmp_path / "site/assets/boards.js").read_text()
    assert "</script" not in script
    payload = json.loads(script.removeprefix("window.affectbenchBoards=").removesuffix(";\n"))
    assert {c["key"]: c["data"] for c in payload["cells"]["columns"]}["selector"]["d"] == [evil]


def test_a_page_holds_the_first_rows_and_says_how_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_static, "STATIC_ROWS", 5)
    record = example_record(bootstrap_draws=100)
    many = [renamed(record, selector=f"own_{n}") for n in range(12)]
    build_site(many, tmp_path / "site")
    page = read(tmp_path / "site/index.html")
    assert len(page.with_class("tr", "row")) == 5 + 5
    assert page.text.count("The first 5 of 12 rows") == 2


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


def test_only_pages_of_changed_records_are_made_again(records: list[Record], tmp_path: Path) -> None:
    output = tmp_path / "site"
    assert build_site(records[:4], output).n_made == 4
    changed = records[0].model_copy(update={"flags": ["failed_items"]}).sealed()
    now = [changed, *records[1:3], records[5]]
    assert build_site(now, output).n_made == 2
    fresh = build_site(now, tmp_path / "fresh")
    assert fresh.n_made == 4
    assert tree(output) == tree(tmp_path / "fresh")


def test_a_page_that_somebody_changed_is_made_again(records: list[Record], tmp_path: Path) -> None:
    made = build_site(records[:2], tmp_path / "site")
    page = next(iter(made.entries.values()))
    whole = page.read_text()
    page.write_text("graffiti")
    assert build_site(records[:2], tmp_path / "site").n_made == 1
    assert page.read_text() == whole


def test_records_are_read_from_folders_and_known_ones_are_not_parsed_again(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for record in records[:2]:
        one.write(record)
    two.write(records[2])
    folders, output = [one.root, two.root], tmp_path / "site"
    assert set(build_site_of(folders, output).entries) == {cell_id(r.cell) for r in records[:3]}
    first = tree(output)
    parsed: list[Path] = []
    read_one = site_summary.read_record
    monkeypatch.setattr(site_summary, "read_record", lambda path: (parsed.append(path), read_one(path))[1])
    assert build_site_of(folders, output).n_made == 0
    assert not parsed
    assert tree(output) == first
    path = two.record_path(records[2].cell)
    path.write_text(path.read_text().replace('"ok"', '"okay"'))
    site = build_site_of(folders, output)
    assert parsed == [path]
    assert [item.path for item in site.damaged] == [path]
    assert len(site.entries) == 2


def test_a_damaged_memory_of_the_old_site_is_ignored(records: list[Record], tmp_path: Path) -> None:
    output = tmp_path / "site"
    build_site(records[:2], output)
    before = tree(output)
    for content in ("", "{}", '{"builder": 1}', "[]"):
        (output / ".affectbench-site").write_text(content)
        assert build_site(records[:2], output).n_made == 2
        assert tree(output) == before


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


def test_a_submitted_method_says_who_made_it_and_what_it_took(tmp_path: Path) -> None:
    results = example_store(tmp_path / "results").root
    name = example_record().cell.selector
    home = results / "submissions" / name
    write_yaml(
        home / "submission.yaml", card(name=name, paper="https://example.org/paper", authors=["Ana & Bo"])
    )
    write_yaml(results / "submissions" / "other" / "submission.yaml", card(name="another"))
    write_yaml(results / "submissions" / "evil" / "submission.yaml", card(name="evil", title="<b>bold</b>"))
    site = build_site_of([results], tmp_path / "site")
    page = read(tmp_path / "site" / "methods" / f"{name}.html")
    assert "by Ana & Bo" in page.text
    assert "24 labelled items" in page.text
    assert "https://example.org/paper" in page.values("href")
    reasons = {item.path.parent.name: item.reason for item in site.damaged}
    assert "not named another" in reasons["other"]
    assert "markup" in reasons["evil"]
    build_site(Store(results).read_all()[0], tmp_path / "plain")
    assert "Submission" not in read(tmp_path / "plain" / "methods" / f"{name}.html").text
