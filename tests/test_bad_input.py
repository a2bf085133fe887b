"""What goes wrong is named, stops nothing else, and is never taken for a result."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_content import Bench, contents, write_selector

BAD_SELECTORS = {
    "raises": ("raise ValueError('no [/good] today')", r"selector 'raises' failed: ValueError: no \[/good\] today"),
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
    "lists": ("units = tuple(list(row) for row in units)", "selector 'lists'.*array"),
    "flat": ("units = tuple(row.reshape(2, -1) for row in units)", "selector 'flat'.*one-dimensional"),
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
        "return Selection.from_scores(scores, budget, site=study.site, shape=study.shape, labels=study.labels)",
        "selector 'nan'.*240 scores that are NaN",
    ),
    "transposed": (
        "scores = np.zeros((2, 3, 40))\n"
        "return Selection.from_scores(scores, budget, site=study.site, shape=study.shape, labels=study.labels)",
        r"selector 'transposed'.*\(2, 3, 40\).*expected \(3, 2, 40\)",
    ),
    "unasked": ("study.evidence.rate", "selector 'unasked'.*did not collect 'rate'.*`needs`"),
    "peeks": ("study.dataset.splits['test']", "selector 'peeks' failed: AttributeError.*dataset"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad_run(bench: Bench, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """All bad selectors and a good one before, between and after them, in one run."""
    root = tmp_path_factory.mktemp("bad")
    for name, (body, _) in BAD_SELECTORS.items():
        write_selector(root, name, body)
    names = ["magnitude", *BAD_SELECTORS, "contrast"]
    return bench.run(bench.job(*names, more=[root]), root / "out", more=[root])


@pytest.mark.parametrize("name", BAD_SELECTORS)
def test_a_bad_selector_ends_its_own_cell_with_a_reason(bad_run, name: str) -> None:  # type: ignore[no-untyped-def]
    record = next(record for record in bad_run[0] if record.cell.selector == name)
    assert record.status == "error"
    assert record.scores is None
    import re

    assert re.search(BAD_SELECTORS[name][1], record.reason, re.DOTALL), record.reason
