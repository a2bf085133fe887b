"""The gates on a pull request of records: what passes, what each stops, and the workflows that run them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_content import Bench, Log, Outcome, write_protocol
from submissions import card, folder, selection

from affectbench.delta import MAX_CHARACTERS, report
from affectbench.gates import Change, run_gates
from affectbench.leaderboard import build_site
from affectbench.placement import Options
from affectbench.record import Record, cell_id
from affectbench.store import Store
from affectbench.verify import publish, verify

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "<script>alert(1)</script>"
Content = dict[str, Any]


@dataclass
class Case:
    """Published results before (`base`) and after (`head`) a change, which tests then make."""

    bench: Bench
    base: Path
    head: Path

    def gates(self) -> dict[str, tuple[str, ...]]:
        """Problems by a word of the gate's name; only of gates that fail."""
        change = Change(self.base, self.head, self.bench.registry(), self.bench.root / "data")
        return {gate.name: gate.problems for gate in run_gates(change) if not gate.passed}

    def stopped(self) -> str:
        """The one gate that fails, and its problems."""
        failed = self.gates()
        assert len(failed) == 1, failed
        ((name, problems),) = failed.items()
        return f"{name}: {'; '.join(problems)}"

    def report(self) -> str:
        change = Change(self.base, self.head, self.bench.registry(), self.bench.root / "data")
        return report(change, run_gates(change))

    def path(self, selector: str) -> Path:
        return next(self.head.glob(f"records/*__{selector}__*"))

    def edit(self, selector: str, change: Callable[[Content], None], *, seal: bool = True) -> None:
        """Change a record of the head; sealed anew, as somebody would who wants it to pass."""
        path = self.path(selector)
        content = json.loads(path.read_text())
        change(content)
        if not seal:
            path.write_text(json.dumps(content))
            return
        path.unlink()
        record = Record.model_validate(content).sealed()
        Store(self.head).write(record)


@pytest.fixture(scope="module")
def grown(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The suite's results as they are published, and the same with an accepted submission."""
    root = tmp_path_factory.mktemp("published")
    bench.run(bench.suite(), root / "base")
    shutil.rmtree(root / "base" / "predictions")
    shutil.copytree(root / "base", root / "head")
    options = Options(root / "out", data=bench.root / "data")
    mine = folder(root / "mine")
    found, records = verify(mine, bench.registry(), options, Log(), published=(), trust_code=False)
    publish(found, mine, records, Store(root / "out"), root / "head")
    return root / "base", root / "head"


@pytest.fixture
def case(bench: Bench, grown: tuple[Path, Path], tmp_path: Path) -> Case:
    for source, name in zip(grown, ("base", "head"), strict=True):
        shutil.copytree(source, tmp_path / name)
    return Case(bench, tmp_path / "base", tmp_path / "head")


def put(*keys: str | int, value: Any) -> Callable[[Content], None]:
    """A change of one value of a record."""

    def change(content: Content) -> None:
        place: Any = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def lowered(name: str, amount: float) -> Callable[[Content], None]:
    """A headline number, less by an amount; its interval stays."""

    def change(content: Content) -> None:
        content["headline"][name]["value"] -= amount

    return change


# What passes.


def test_an_accepted_submission_passes(case: Case) -> None:
    assert case.gates() == {}


def test_the_first_results_pass(case: Case) -> None:
    shutil.rmtree(case.base)
    assert case.gates() == {}


def test_a_change_below_the_precision_passes(case: Case) -> None:
    case.edit("magnitude", lowered("pres", 0.0009))
    assert case.gates() == {}


def test_a_new_version_may_move_scores_and_replace_units(case: Case) -> None:
    shutil.copytree(case.head, case.base, dirs_exist_ok=True)
    (case.head / "submissions/mine/submission.yaml").write_text(yaml.safe_dump(card(version=2)))
    case.edit("mine", put("headline", "pres", "value", value=0.5))
    case.edit("mine", put("hashes", "selector", value="0" * 16))
    assert case.gates() == {}


# What each gate stops.


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("records/big.json", b"x" * 300_000, "300000 bytes, at most 262144"),
        ("page.html", b"x", "nothing of that name"),
        ("records/deep/x.json", b"{}", "nothing of that name"),
        ("selections/x.pkl", b"x", "nothing of that name"),
        ("submissions/mine/run.sh", b"x", "nothing of that name"),
        ("predictions/x.parquet", b"x", "nothing of that name"),
    ],
)
def test_files_that_are_large_or_out_of_place(case: Case, name: str, content: bytes, told: str) -> None:
    path = case.head / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert told in "; ".join(case.gates()["files are small and where they belong"])


def test_links(case: Case) -> None:
    (case.head / "README.md").symlink_to("/etc/passwd")
    assert "README.md: a link" in case.stopped()


def test_a_record_that_was_edited_or_fits_no_schema(case: Case) -> None:
    case.edit("magnitude", put("headline", "pres", "value", value=0.9), seal=False)
    assert "does not match its hash" in "; ".join(
        case.gates()["records fit the schema, sealed and in plain text"]
    )
    case.edit("magnitude", put("headline", "extra", value=1), seal=False)
    assert "headline.extra" in "; ".join(case.gates()["records fit the schema, sealed and in plain text"])


@pytest.mark.parametrize("keys", [("reason",), ("model", "instrument_note"), ("task", "title"), ("flags",)])
def test_markup_in_a_record(case: Case, keys: tuple[str, ...]) -> None:
    case.edit("magnitude", put(*keys, value=[SCRIPT] if keys == ("flags",) else SCRIPT))
    assert "markup in '<script>" in case.stopped()


def test_names_that_are_no_names(case: Case) -> None:
    case.edit("mine", put("cell", "selector", value="../../evil"))
    problems = case.gates()
    assert "'../../evil' is no name" in "; ".join(
        problems["records fit the schema, sealed and in plain text"]
    )
    assert "there is no submissions/" in "; ".join(problems["methods are declared"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite(case: Case, value: float) -> None:
    case.edit("mine", put("headline", "spec", "value", value=value), seal=False)
    assert "1 numbers are not finite" in case.gates()["numbers are finite"][0]


def test_a_number_too_large_for_a_float(case: Case) -> None:
    path = case.path("mine")
    path.write_text(path.read_text().replace('"dose": 4.0', '"dose": 1e999', 1))
    assert "the first is 1e999" in case.gates()["numbers are finite"][0]


def test_a_lost_cell(case: Case) -> None:
    name = case.path("magnitude")
    name.unlink()
    assert f"no cell is lost: {name.stem}" in case.stopped()


def test_a_score_that_moved(case: Case) -> None:
    case.edit("magnitude", lowered("pres", 0.0011))
    assert "headline.pres" in case.stopped()
    assert "no version was raised" in case.stopped()


def test_a_status_that_changed(case: Case) -> None:
    def fail(content: Content) -> None:
        content |= {"status": "collapsed", "reason": "no"}
        content["headline"]["agg"] = None

    case.edit("magnitude", fail)
    assert "status ok → collapsed" in case.stopped()


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("task", ("task", "version")), ("protocol", ("protocol_version",)), ("model", ("model", "version"))],
)
def test_a_hash_that_changed_without_a_version_or_is_unknown(
    case: Case, kind: str, keys: tuple[str, ...]
) -> None:
    case.edit("magnitude", put("hashes", kind, value="0" * 16))
    assert "raise the version" in case.stopped()
    case.edit("magnitude", put(*keys, value=2))
    assert "version 2 in the record, 1 in this checkout" in case.stopped()


def test_a_first_hash_is_that_of_the_content(case: Case) -> None:
    shutil.rmtree(case.base)
    for selector in ("magnitude", "random", "mine"):
        case.edit(selector, put("hashes", "protocol", value="0" * 16))
    assert "this checkout's content gives" in case.stopped()


def test_content_that_is_not_here_is_noted(case: Case, tmp_path: Path) -> None:
    write_protocol(tmp_path, name="elsewhere")
    case.edit("mine", put("cell", "intervention", value="elsewhere"))
    change = Change(case.base, case.head, case.bench.registry(), case.bench.root / "data")
    notes = "; ".join(note for gate in run_gates(change) for note in gate.notes)
    assert "protocol elsewhere is new and cannot be checked here" in notes


def test_too_many_units(case: Case) -> None:
    case.edit("mine", put("selection", "units_per_emotion", value=[5, 4, 4]))
    assert "5 units for an emotion, the budget is 4" in case.stopped()


def test_a_selection_file_of_other_units(case: Case) -> None:
    record = Record.model_validate_json(case.path("mine").read_text())
    path = case.head / "selections" / f"{cell_id(record.cell)}.safetensors"
    selection([1], [2], [3]).save(path)
    assert f"not {record.hashes.selection}" in case.stopped()
    path.write_bytes(b"pickle?")
    assert "not a selection" in case.stopped()


def test_a_method_without_a_card(case: Case) -> None:
    shutil.rmtree(case.head / "submissions")
    assert (
        "mine: no selector of affectbench, and there is no submissions/mine/submission.yaml" in case.stopped()
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "other"}, "its name is other"),
        ({"title": SCRIPT}, "expected plain text"),
        ({"identification": {"data": ["x"], "evaluation_items": True}}, "cannot be judged"),
    ],
)
def test_a_card_that_breaks_a_rule(case: Case, changes: Content, told: str) -> None:
    (case.head / "submissions/mine/submission.yaml").write_text(yaml.safe_dump(card(**changes)))
    assert told in case.stopped()


def test_a_submission_that_calls_itself_a_control(case: Case) -> None:
    case.edit("mine", put("control", value=True))
    assert "a submission is no control" in case.stopped()


def test_other_units_under_the_same_version(case: Case) -> None:
    shutil.copytree(case.head, case.base, dirs_exist_ok=True)
    case.edit("mine", put("hashes", "selector", value="0" * 16))
    assert "another selector under the same version" in case.stopped()


def test_a_built_in_method_with_other_code(case: Case) -> None:
    shutil.rmtree(case.base)
    case.edit("magnitude", put("hashes", "selector", value="0" * 16))
    assert "made with another magnitude than this checkout's" in case.stopped()


def test_units_found_on_evaluation_items(case: Case) -> None:
    record = Record.model_validate_json(case.path("mine").read_text())
    path = case.head / "selections" / f"{cell_id(record.cell)}.safetensors"
    selection(items=("mara-stole", "pia-won")).save(path)
    assert "found on 1 evaluation items, such as 'pia-won'" in case.stopped()


def test_a_copy(case: Case) -> None:
    theirs = json.loads(case.path("magnitude").read_text())
    case.edit("mine", put("selection", "units", value=theirs["selection"]["units"]))
    assert "100% of its units are those of magnitude" in case.stopped()


# The report.


def test_the_report_sets_new_rows_beside_references_and_controls(case: Case) -> None:
    text = case.report()
    records = {record.cell.selector: record for record in Store(case.head).read_all()[0]}
    spec = {name: record.headline.spec.value for name, record in records.items() if record.headline}
    (row,) = [line for line in text.splitlines() if line.startswith("| **mine**")]
    assert f"{spec['mine'] - spec['magnitude']:+.3f} (magnitude)" in row
    assert f"| {spec['mine'] - spec['random']:+.3f} |" in row
    assert "| magnitude (reference) |" in text
    assert "| random (control) |" in text
    assert "all 11 gates pass" in text
    assert "3 cells, 1 new or changed" in text


def test_the_report_says_what_is_missing_beside_a_row(case: Case) -> None:
    for selector in ("magnitude", "random"):
        case.path(selector).unlink()
    assert "No built-in method and no control is published beside it." in case.report()


def test_the_report_says_what_a_changed_row_was(case: Case) -> None:
    old = json.loads(case.path("magnitude").read_text())["headline"]["spec"]["value"]
    case.edit("magnitude", put("headline", "spec", "value", value=0.5))
    (row,) = [line for line in case.report().splitlines() if line.startswith("| **magnitude**")]
    assert f"(was {old:+.3f})" in row


def test_the_report_shows_problems_as_text(case: Case) -> None:
    case.edit("mine", put("reason", value=f"{SCRIPT} @team [x](https://example.org)"))
    text = case.report()
    assert "❌ records fit the schema" in text
    assert "<script" not in text
    assert "@team" not in text.replace(r"\@team", "")


def test_a_report_fits_into_a_comment(case: Case) -> None:
    for count in range(1500):
        (case.head / f"{'x' * 100}-{count}.html").write_text("")
    assert len(case.report()) <= MAX_CHARACTERS + 20


def test_the_site_shows_what_strangers_wrote_as_text(case: Case, tmp_path: Path) -> None:
    """The gates stop markup; were it published all the same, the site escapes it."""

    def payload(content: Content) -> None:
        content["task"]["title"] = content["model"]["instrument_note"] = SCRIPT
        content["cell"]["selector"] = 'x"><img src=x onerror=alert(1)>'
        content["provenance"]["command"] = SCRIPT
        content |= {"status": "insufficient", "reason": SCRIPT}
        content["headline"]["agg"] = None

    case.edit("mine", payload)
    build_site(Store(case.head).read_all()[0], tmp_path / "site")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 3
    for page in pages:
        text = page.read_text()
        assert "<script>alert" not in text
        assert "<img src=x" not in text


def test_the_command(case: Case, run_cli: Callable[..., Outcome], tmp_path: Path) -> None:
    own = ("--include", case.bench.root, "--data", case.bench.root / "data")
    status, out, _ = run_cli("gates", case.base, case.head, "--markdown", tmp_path / "r.md", *own)
    assert status == 0, out
    assert out.count("pass  ") == 11
    assert "all 11 gates pass" in (tmp_path / "r.md").read_text()
    case.path("random").unlink()
    status, out, _ = run_cli("gates", case.base, case.head, *own)
    assert status == 1
    assert "FAIL  no cell is lost" in out
