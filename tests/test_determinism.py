"""What docs/regression.md promises: the same run twice, other threads, other batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import SUITE, Bench

from affectbench.baseline import of_folder
from affectbench.differences import headline_values
from affectbench.regression import compare
from affectbench.store import Store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
MARGIN, SCORE = 1e-4, 1e-3
"""The tolerances of docs/regression.md."""


def run(bench: Bench, output: Path, *arguments: str, **variables: str) -> Path:
    """The toy suite in a process of its own."""
    command = [sys.executable, str(ROOT / "harness.py"), "run", SUITE, "--include", str(bench.root)]
    command += ["--data", str(bench.root / "data"), "--output", str(output), *arguments]
    done = subprocess.run(
        command, cwd=output.parent, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def first(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(bench, tmp_path_factory.mktemp("first") / "out", "--threads", "1", PYTHONHASHSEED="1")


def without_times(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text())
    assert record["cost"].pop("wall_s") > 0
    assert record["cost"].pop("cpu_s") > 0
    for name in ("started", "finished", "command"):
        assert record["provenance"].pop(name)
    record["cost"].pop("peak_memory_mib")
    return record


def test_the_same_suite_in_another_process_gives_the_same_records(
    bench: Bench, first: Path, tmp_path: Path
) -> None:
    second = run(bench, tmp_path / "out", "--threads", "1", PYTHONHASHSEED="2")
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(second)) for path in second.rglob("*") if path.is_file())
    assert len(names) == 6
    for name in names:
        if name.startswith("records"):
            assert without_times(first / name) == without_times(second / name)
        else:
            assert (first / name).read_bytes() == (second / name).read_bytes()
    assert {cell.verdict for cell in compare(of_folder(first), of_folder(second)).cells} == {"same"}


@pytest.mark.parametrize("arguments", [["--threads", "2"], ["--threads", "1", "--tokens", "1"]], ids=" ".join)
def test_threads_and_batches_stay_within_the_stated_tolerance(
    bench: Bench, first: Path, tmp_path: Path, arguments: list[str]
) -> None:
    other = run(bench, tmp_path / "out", *arguments)
    found = {record.cell: record for record in Store(other).read_all()[0]}
    for record in Store(first).read_all()[0]:
        again = found[record.cell]
        assert (again.provenance.threads, again.provenance.batch_size) != (
            record.provenance.threads,
            record.provenance.batch_size,
        )
        assert headline_values(again) == pytest.approx(headline_values(record), abs=SCORE)
        mine, theirs = (Store(root).read_predictions(record.cell) for root in (first, other))
        for split, answers in mine.items():
            np.testing.assert_allclose(theirs[split].base_margin, answers.base_margin, atol=MARGIN)
            for one, two in zip(answers.conditions, theirs[split].conditions, strict=True):
                np.testing.assert_allclose(two.margin, one.margin, atol=MARGIN)
                # The margin of a target is not that of the answer, so no answer may differ here at all.
                np.testing.assert_array_equal(two.predictions, one.predictions)
    check = compare(of_folder(first), of_folder(other), tolerance=SCORE)
    assert check.passed
    assert check.environment
