"""Submitting and verifying on a small model: what is accepted, what wins nothing, what is rejected."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import BENCHMARK, MODEL, Bench, Log, Outcome, suite_file, write_protocol
from submissions import FILE, SHAPE, UNITS, code, folder, selection, submitted, verified, zipped

from affectbench.copies import common_share
from affectbench.overlap import listed_units
from affectbench.placement import Options
from affectbench.record import Record, cell_id
from affectbench.selector import Selection
from affectbench.store import Store
from affectbench.submission_archive import staged
from affectbench.submitted import parts_of
from affectbench.verification import Verification
from affectbench.verify import UntrustedCodeError, publish, submit, verify

SELECTOR = '''"""A selector of a stranger."""

import numpy as np

from affectbench.selector import Selection, Selector

{top}

class Mine(Selector):
    name = "mine"
{body}
    def select(self, study, budget):
        units = tuple(np.arange(e * budget, (e + 1) * budget) for e in range(len(study.labels)))
        return Selection(study.site, study.shape, study.labels, units)
'''


@pytest.fixture(scope="module")
def published(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The suite's own results, with their selections."""
    output = tmp_path_factory.mktemp("published")
    bench.run(bench.suite(), output)
    return Store(output)


# The honest way.


def test_a_submission_is_judged_like_any_selector(bench: Bench, packed: Path, tmp_path: Path) -> None:
    """The same units through a selector file and as data give the same answers and scores."""
    (record,), damaged = Store(packed.parent).read_all()
    assert not damaged
    assert (record.cell.selector, record.status, record.control) == ("mine", "ok", False)
    assert record.hashes.selection == selection().digest
    body = f"        units = tuple(map(np.array, {UNITS}))\n"
    source = SELECTOR.format(top="", body="").replace("        return", f"{body}        return")
    submitted(bench, code(tmp_path / "code", source), tmp_path / "out", trust=True)
    (other,), _ = Store(tmp_path / "out").read_all()
    assert other.hashes.predictions == record.hashes.predictions
    assert other.headline == record.headline


def test_what_was_submitted_is_accepted(bench: Bench, packed: Path, published: Store, tmp_path: Path) -> None:
    found = verified(bench, packed, tmp_path, published=published.read_all()[0])
    (cell,) = found.cells
    assert (cell.result, cell.changed_answers, cell.differences) == ("same", 0.0, [])
    assert (found.decision, found.reasons, found.notes) == ("accept", [], [])
    assert found.submission == "mine"
    assert Verification.model_validate_json(found.as_json()) == found


def test_a_smaller_budget_takes_the_best_units(bench: Bench, tmp_path: Path) -> None:
    write_protocol(tmp_path, name="two-sizes", fractions=[0.025, 0.05])
    suite_file(tmp_path, "sizes", "two-sizes")
    submitted(bench, folder(tmp_path / "mine", suite="sizes"), tmp_path / "out", tmp_path)
    records, _ = Store(tmp_path / "out").read_all()
    sizes = {
        record.cell.fraction: record.selection.units_per_emotion for record in records if record.selection
    }
    assert sizes == {0.025: [2, 2, 2], 0.05: [4, 4, 4]}


def test_each_protocol_may_have_its_own_units(bench: Bench, tmp_path: Path) -> None:
    write_protocol(tmp_path, name="at-neuron", site="neuron")
    suite_file(tmp_path, "sites", "toy-gain", "at-neuron")
    entries = [
        {"model": MODEL, "task": BENCHMARK, "file": FILE},
        {"model": MODEL, "task": BENCHMARK, "file": "selections/n.safetensors", "intervention": "at-neuron"},
    ]
    root = folder(tmp_path / "mine", suite="sites", selections=entries)
    selection([1], [2], [3], site="neuron").save(root / "selections" / "n.safetensors")
    submitted(bench, root, tmp_path / "out", tmp_path)
    records, _ = Store(tmp_path / "out").read_all()
    assert {r.cell.intervention: r.selection.units_per_emotion for r in records if r.selection} == {
        "toy-gain": [4, 4, 4], "at-neuron": [1, 1, 1]
    }  # fmt: skip


def test_what_is_not_covered_is_said(bench: Bench, tmp_path: Path) -> None:
    write_protocol(tmp_path, name="at-neuron", site="neuron")
    suite_file(tmp_path, "sites", "toy-gain", "at-neuron")
    found = verified(bench, folder(tmp_path / "mine", suite="sites"), tmp_path / "out", tmp_path)
    assert {each.cell.intervention: each.result for each in found.cells} == {
        "toy-gain": "unclaimed", "at-neuron": "not_covered"
    }  # fmt: skip
    assert found.decision == "accept_with_note"
    assert any("not covered" in note for note in found.notes)
    assert any("nothing to compare" in note for note in found.notes)


# What wins nothing.


def test_a_constant_answer_scores_nothing(bench: Bench, tmp_path: Path) -> None:
    """The same units for every emotion push every answer alike, whatever was to be moved."""
    write_protocol(tmp_path, name="half", fractions=[0.5])
    suite_file(tmp_path, "halves", "half")
    found = verified(
        bench, folder(tmp_path / "mine", *[range(40)] * 3, suite="halves"), tmp_path / "o", tmp_path
    )
    (cell,) = found.cells
    assert cell.spec == 0.0
    assert "the answers do not depend on the target" in cell.worthless
    assert found.decision == "accept_with_note"
    (record,), _ = Store(tmp_path / "o").read_all()
    assert record.headline is not None
    assert not record.headline.significant
    assert record.headline.agg is None or record.headline.agg.value == 0


def test_an_always_target_answer_scores_nothing(bench: Bench, tmp_path: Path) -> None:
    """Units that make the model answer the target whatever it reads: a perfect shift, and a collapse."""
    arms = {
        "suppress": {"operation": "scale", "doses": [0]},
        "amplify": {"operation": "scale", "doses": [20, 100]},
    }
    write_protocol(tmp_path, name="strong", fractions=[0.1], arms=arms)
    suite_file(tmp_path, "strongs", "strong")
    (shown,), _ = bench.run(
        bench.job("attribution", protocol="strong", more=[tmp_path]), tmp_path / "a", more=[tmp_path]
    )
    pushing = Selection.load(tmp_path / "a" / "selections" / f"{cell_id(shown.cell)}.safetensors")
    root = folder(tmp_path / "mine", *(units.tolist() for units in pushing.units), suite="strongs")
    found = verified(bench, root, tmp_path / "out", tmp_path)
    assert "every dose collapses the answers" in found.cells[0].worthless
    (record,), _ = Store(tmp_path / "out").read_all()
    assert record.scores is not None
    amplified = [dose for dose in record.scores.doses if dose.arm == "amplify"]
    assert all(dose.collapsed and dose.trs.value > 0.4 for dose in amplified)
    assert record.headline is not None
    assert record.headline.agg is None


# What is rejected.


def test_a_copy_is_found_in_any_order(bench: Bench, published: Store, tmp_path: Path) -> None:
    (original,) = [r for r in published.read_all()[0] if r.cell.selector == "magnitude"]
    theirs = Selection.load(published.root / "selections" / f"{cell_id(original.cell)}.safetensors")
    for name, step in (("same", 1), ("turned", -1)):
        root = folder(tmp_path / name, *(units[::step].tolist() for units in theirs.units))
        found = verified(bench, root, tmp_path / f"out-{name}", published=published.read_all()[0])
        assert found.decision == "reject"
        assert found.reasons == ["a copy of magnitude: at least 95 % of its units, in 1 of 1 cells"]
        assert found.overlaps[0].original == cell_id(original.cell)


def test_overlap_is_a_mean_over_emotions(packed: Path) -> None:
    (record,), _ = Store(packed.parent).read_all()

    def having(*units: Sequence[int], **cell: str) -> Record:
        found = selection(*units)
        info = record.selection.model_copy(  # type: ignore[union-attr]
            update={
                "units": [listed_units(each) for each in found.units],
                "units_per_emotion": [each.size for each in found.units],
            }
        )
        hashes = record.hashes.model_copy(update={"selection": found.digest})
        named = record.cell.model_copy(update=cell)
        return record.model_copy(update={"selection": info, "hashes": hashes, "cell": named})

    one, other = having([0, 1, 2, 3], [8], [5]), having([3, 2, 1, 9], [8], [6])
    assert common_share(one, other) == pytest.approx((0.75 + 1 + 0) / 3)
    assert common_share(one, having([0, 1, 2], [8], [5])) == pytest.approx((0.75 + 1 + 1) / 3)
    assert common_share(one, having([3, 2, 1, 0], [8], [5])) == 1.0
    assert common_share(having([1], [], []), having([1], [], [], selector="other")) == 1.0
    assert common_share(one, having([3, 2, 1, 0], [8], [5], site="neuron")) == 0.0


def test_items_that_judge_may_not_find_the_units(bench: Bench, tmp_path: Path) -> None:
    root = folder(tmp_path / "mine")
    selection(items=("mara-stole", "pia-won")).save(root / FILE)  # pia is in the test split.
    found = verified(bench, root, tmp_path / "out")
    assert found.decision == "reject"
    assert "found on 1 validation or test items of toy-stories, such as 'pia-won'" in found.reasons[0]
    selection(items=("mara-stole", "somewhere-else")).save(root / FILE)
    assert verified(bench, root, tmp_path / "out").decision == "accept_with_note"


@pytest.mark.parametrize(
    ("units", "changes", "told"),
    [
        (([*range(5)], [1], [2]), {}, "5 units for 'anger' exceed the budget of 4"),
        ((), {"selections": [{"model": "other", "task": BENCHMARK, "file": FILE}]}, "has no cell other"),
        ((), {"name": "magnitude"}, "there is a selector 'magnitude' already"),
        ((), {"suite": "nowhere"}, "there is no suite 'nowhere'"),
        ((), {"title": "<b>x</b>"}, "expected plain text"),
    ],
)
def test_a_broken_rule_is_a_rejection_with_the_reason(
    bench: Bench, tmp_path: Path, units: tuple[list[int], ...], changes: dict[str, Any], told: str
) -> None:
    found = verified(bench, folder(tmp_path / "mine", *units, **changes), tmp_path / "out")
    assert found.decision == "reject"
    assert told in found.reasons[0]
    assert not (tmp_path / "out" / "records").exists(), "nothing was run"


def test_units_of_another_model_fail_in_the_run(bench: Bench, tmp_path: Path) -> None:
    root = folder(tmp_path / "mine")
    selection(shape=type(SHAPE)(4, 40)).save(root / FILE)
    found = verified(bench, root, tmp_path / "out")
    assert found.decision == "reject"
    assert "another site, shape or label list" in found.reasons[0]


def test_scores_that_contradict_the_ranking_are_rejected(bench: Bench, tmp_path: Path) -> None:
    root = folder(tmp_path / "mine", scores=np.random.default_rng(0).normal(size=(3, SHAPE.units)))
    found = verified(bench, root, tmp_path / "out")
    assert "not the best by the file's own scores" in found.reasons[0]


# Code.


def test_code_runs_only_when_it_is_trusted(bench: Bench, tmp_path: Path) -> None:
    source = SELECTOR.format(top=f"open({str(tmp_path / 'pwned')!r}, 'w').close()", body="")
    root = code(tmp_path / "mine", source)
    with staged(root) as checked:
        parts_of(checked, bench.registry())
    for act in (submitted, verified):
        with pytest.raises(UntrustedCodeError, match="which can do all that you can"):
            act(bench, root, tmp_path / "out")
    assert not (tmp_path / "pwned").exists()
    assert verified(bench, root, tmp_path / "out", trust=True).cells[0].result == "unclaimed"
    assert (tmp_path / "pwned").exists()


def test_code_that_fails_is_a_rejection(bench: Bench, tmp_path: Path) -> None:
    source = SELECTOR.format(top="", body="").replace(
        "        return", "        raise OSError('no')\n        return"
    )
    found = verified(bench, code(tmp_path / "mine", source), tmp_path / "out", trust=True)
    assert found.decision == "reject"
    assert "OSError: no" in found.reasons[0]


def test_code_may_not_call_itself_a_control(bench: Bench, tmp_path: Path) -> None:
    source = SELECTOR.format(top="", body="    control = True\n")
    found = verified(bench, code(tmp_path / "mine", source), tmp_path / "out", trust=True)
    assert "the selector calls itself a control, which is never ranked" in found.reasons


# Publishing and reports.


def test_what_is_accepted_is_published_as_computed_here(bench: Bench, packed: Path, tmp_path: Path) -> None:
    options = Options(tmp_path / "out", data=bench.root / "data")
    found, records = verify(packed, bench.registry(), options, Log(), published=(), trust_code=False)
    publish(found, packed, records, Store(tmp_path / "out"), tmp_path / "site")
    (record,), damaged = Store(tmp_path / "site").read_all()
    assert not damaged
    assert record == records[0].sealed()
    assert sorted(
        path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.*")
    ) == [
        f"records/{cell_id(record.cell)}.json",
        f"selections/{cell_id(record.cell)}.safetensors",
        "submissions/mine/submission.yaml",
    ]


def test_a_report_shows_what_strangers_wrote_as_text(bench: Bench, tmp_path: Path) -> None:
    root = folder(tmp_path / "<img src=x>", title="[x](https://example.org) @team | **b**<script>")
    text = verified(bench, root, tmp_path / "out").as_markdown()
    assert "<img" not in text
    assert "<script" not in text
    assert r"&lt;img src=x&gt;" in text


def test_the_commands(
    bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ("--include", bench.root, "--data", bench.root / "data")
    root = folder(tmp_path / "mine")
    status, out, _ = run_cli("submit", root, "--dry-run", *data)
    assert status == 0
    assert "1 of 1 cells of suite toy-suite" in out
    assert "declared: found on identification split, with 24 labelled items" in out
    assert not (tmp_path / "results").exists()
    status, out, _ = run_cli("submit", root, *data)
    assert status == 0
    assert "Packed:  results/mine/mine-v1.zip" in out
    status, out, _ = run_cli("verify", "results/mine/mine-v1.zip", "--publish", "site", *data)
    assert status == 0, out
    assert json.loads(Path("results/verified-mine-v1/verification.json").read_text())["reasons"] == []
    assert Path("site/records").is_dir()
    zipped(Path("bad.zip"), {"../x.py": b""})
    status, out, _ = run_cli("verify", "bad.zip", *data)
    assert status == 1
    assert "reject" in out
    assert "may not be in a submission" in out
    _, _, err = run_cli("submit", code(tmp_path / "code", SELECTOR.format(top="", body="")), *data)
    assert "--trust-code" in err


def test_a_limited_run_is_not_packed(bench: Bench, tmp_path: Path) -> None:
    options = Options(tmp_path / "out", data=bench.root / "data", limit=3)
    done, archive = submit(folder(tmp_path / "mine"), bench.registry(), options, Log(), trust_code=False)
    assert archive is None
    assert len(done.records) == 1
