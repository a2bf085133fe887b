"""A selector that misbehaves ends its own cell with a reason, and changes nothing for the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from e2e_content import (
    Bench,
    Log,
    contents,
    write_selector,
)

from affectbench.record import Record

Run = tuple[list[Record], Log]

BAD_SELECTORS = {
    "raises": ("raise ValueError('no [/good]')", r"selector 'raises' failed: ValueError: no \[/good\]"),
    "leaves": ("raise SystemExit(0)", "selector 'leaves' failed: SystemExit"),
    "outside": ("units[0][0] = study.shape.units", "selector 'outside'.*unit 80 does not exist.*0 to 79"),
    "negative": ("units[1][0] = -1", "selector 'negative'.*unit -1 does not exist"),
    "twice": ("units[2][:] = 7", "selector 'twice'.*unit 7 is listed more than once"),
    "greedy": (
        "units = tuple(np.arange(budget + 1) for _ in study.labels)",
        "selector 'greedy': 5 units for 'anger' exceed the budget of 4",
    ),
    "empty": ("units = tuple(row[:0] for row in units)", "selector 'empty': the selection is empty"),
    "fewer": ("units = units[:2]", "selector 'fewer'.*2 sets of units for 3 emotions.*anger, joy, sadness"),
    "nothing": ("return None", "selector 'nothing' returned a NoneType, not a Selection"),
    "arrays": ("return list(units)", "selector 'arrays' returned a list, not a Selection"),
    "floats": ("units = tuple(row + 0.5 for row in units)", "selector 'floats'.*whole numbers"),
    "lists": ("units = tuple(list(row) for row in units)", "selector 'lists'.*units are list, not"),
    "flat": ("units = tuple(row.reshape(2, -1) for row in units)", "selector 'flat'.*not one row of whole"),
    "elsewhere": (
        "return Selection('neuron', study.shape, study.labels, units)",
        "selector 'elsewhere' returned a selection for another site.*expected site 'gate'",
    ),
    "relabelled": (
        "return Selection(study.site, study.shape, study.labels[::-1], units)",
        "selector 'relabelled' returned a selection for another",
    ),
    "nan": (
        "scores = np.full((3, 2, 40), np.nan)\n"
        "return RANKED",
        "selector 'nan'.*240 scores that are NaN",
    ),
    "transposed": (
        "scores = np.zeros((2, 3, 40))\n"
        "return RANKED",
        r"selector 'transposed'.*\(2, 3, 40\).*expected \(3, 2, 40\)",
    ),
    "unasked": ("study.evidence.rate", "selector 'unasked'.*did not collect 'rate'.*`needs`"),
    "peeks": ("study.dataset.splits['test']", "selector 'peeks' failed: AttributeError.*dataset"),
}  # fmt: skip


FROM_SCORES = "Selection.from_scores(scores, budget, site='gate', shape=study.shape, labels=study.labels)"


@pytest.fixture(scope="module")
def bad_run(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All bad selectors and a good one before, between and after them, in one run."""
    root = tmp_path_factory.mktemp("bad")
    for name, (body, _) in BAD_SELECTORS.items():
        write_selector(root, name, body.replace("RANKED", FROM_SCORES))
    names = ["magnitude", *BAD_SELECTORS, "contrast"]
    return bench.run(bench.job(*names, more=[root]), root / "out", more=[root])


@pytest.mark.parametrize("name", BAD_SELECTORS)
def test_a_bad_selector_ends_its_own_cell_with_a_reason(bad_run: Run, name: str) -> None:
    record = next(record for record in bad_run[0] if record.cell.selector == name)
    assert record.status == "error"
    assert record.scores is None
    assert re.search(BAD_SELECTORS[name][1], record.reason, re.DOTALL), record.reason


def test_good_selectors_beside_bad_ones_get_the_results_they_get_alone(
    bad_run: Run, bench: Bench, tmp_path: Path
) -> None:
    bench.run(bench.job("magnitude", "contrast"), tmp_path)
    alone = contents(tmp_path)
    assert len(alone) == 2
    beside = {record.cell.selector: record for record in bad_run[0]}
    assert {beside[name].sealed().hashes.record for name in ("magnitude", "contrast")} == set(alone.values())


VANDALS = {
    "wipes_means": "study.evidence.mean[:] = 0",
    "wipes_tokens": "study.evidence.tokens[:] = 1",
    "wipes_items": "study.evidence.items[:] = 0",
    "wipes_shuffled": "study.shuffled.tokens[:] = 1",
    "wipes_gold": "study.items.gold[:] = 0",
    "wipes_answers": "answers = study.predict([UNTOUCHED])\nanswers.codes[:] = 0\nanswers.scores[:] = 0",
}


def test_a_selector_that_writes_into_its_study_changes_nothing_for_others(
    bench: Bench, tmp_path: Path
) -> None:
    for name, body in VANDALS.items():
        write_selector(tmp_path, name, body)
    more, after = [tmp_path], ("magnitude", "shuffled_labels", "attribution")
    bench.run(bench.job(*VANDALS, *after, more=more), tmp_path / "out", more=more)
    bench.run(bench.job(*after), tmp_path / "alone")
    assert contents(tmp_path / "alone").items() <= contents(tmp_path / "out").items()


BROKEN_FILES = {
    "unimportable": (
        "import numpy\nnumpy.no_such_thing\n\n"
        'class A:\n    name = "unimportable"\n\n    def select(self):\n        pass\n',
        "unimportable.py: selector 'unimportable' could not be imported: AttributeError",
    ),
    "stranger": (
        'class A:\n    name = "stranger"\n\n    def select(self, study, budget):\n        pass\n',
        "its class A is no Selector.*derive it from",
    ),
    "wishful": (
        "from affectbench.selector import Selector\n\n"
        'class A(Selector):\n    name = "wishful"\n    needs = {"man"}\n',
        "statistic 'man' does not exist.*mean_abs",
    ),
    "unbuilt": (
        'from affectbench.selector import Selector\n\nclass A(Selector):\n    name = "unbuilt"\n\n'
        "    def __init__(self, size):\n        pass\n",
        "'unbuilt' failed: TypeError.*size",
    ),
    "idle": (
        'from affectbench.selector import Selector\n\nclass A(Selector):\n    name = "idle"\n',
        "implements neither `scores` nor `select`",
    ),
}


def test_a_selector_file_that_is_no_use_ends_its_own_cell(bench: Bench, tmp_path: Path) -> None:
    for name, (text, _) in BROKEN_FILES.items():
        (tmp_path / "selectors").mkdir(exist_ok=True)
        (tmp_path / "selectors" / f"{name}.py").write_text(text)
    names = ("magnitude", *BROKEN_FILES)
    records, _ = bench.run(bench.job(*names, more=[tmp_path]), tmp_path / "out", more=[tmp_path])
    assert records[0].status == "ok"
    for record in records[1:]:
        assert record.status == "error"
        assert re.search(BROKEN_FILES[record.cell.selector][1], record.reason), record.reason
