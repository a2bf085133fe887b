"""Checkpoints and corpora as people have them, through the same pipeline. Skipped where they are absent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_content import Outcome, write_protocol

from affectbench.store import Store

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
DATA = Path(os.environ.get("AFFECTBENCH_DATA", SHARED / "data"))
STORIES = SHARED / "models" / "stories260K"
AUDIO = ROOT / "models" / "reference" / "reference-audio" / "model.safetensors"
Cli = Callable[..., Outcome]


def needs(*paths: Path) -> pytest.MarkDecorator:
    absent = [str(path) for path in paths if not path.exists()]
    return pytest.mark.skipif(bool(absent), reason=f"not on this machine: {', '.join(absent)}")


@pytest.fixture
def brief(tmp_path: Path) -> list[object]:
    """Options for a run that is as short as a sound one can be."""
    write_protocol(tmp_path, name="brief", controls={"random_draws": 20})
    chosen = ["--intervention", "brief", "--include", tmp_path]
    return [*chosen, "--selector", "magnitude", "--data", DATA, "-o", tmp_path / "out"]


@pytest.mark.slow
@needs(DATA / "goemotions", STORIES)
def test_a_language_model_that_knows_no_emotions(brief: list[object], tmp_path: Path, run_cli: Cli) -> None:
    code, out, err = run_cli("run", "--model", STORIES, "--task", "goemotions", "--limit", 3, *brief)
    assert (code, err) == (0, "")
    assert "1 cells: 1 " in out
    record = Store(tmp_path / "out").read_all()[0][0]
    assert record.model.id == "stories260k"
    assert not record.model.instrument
    assert record.task.n_items == {"identification": 21, "validation": 21, "test": 21}
    assert record.scores is not None
    assert record.scores.baseline.n_error == 0
    assert record.scores.baseline.uar == pytest.approx(record.task.chance, abs=0.15)
    rows = json.loads(run_cli("table", tmp_path / "out", "-f", "json")[1])
    assert [row["significant"] for row in rows] == [False] * 3
    assert all(0 <= row["pres"] <= 1 for row in rows)
    assert record.calibration is None


@pytest.mark.slow
@needs(DATA / "emodb", AUDIO)
def test_a_corpus_of_sound_files(brief: list[object], tmp_path: Path, run_cli: Cli) -> None:
    code, out, err = run_cli("run", "--model", "reference-audio", "--task", "emodb", "--limit", 4, *brief)
    assert (code, err) == (0, "")
    assert "1 cells: 1 " in out
    record = Store(tmp_path / "out").read_all()[0][0]
    assert record.model.instrument
    assert record.task.n_items == {"identification": 24, "validation": 24, "test": 24}
    assert record.task.n_clusters == {"identification": 4, "validation": 2, "test": 4}
    assert record.scores is not None
    assert record.scores.baseline.n_error == 0
    assert not any(dose.significant for dose in record.scores.doses)
    assert record.calibration is None, "EmoDB has six of the seven emotions that were planted"
