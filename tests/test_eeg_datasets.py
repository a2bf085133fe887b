"""The tasks of data sets, whole: the command on folders of simulated listeners, laid out as these are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mne_bids", reason="the extra `eeg` is not installed")

from eeg_folder import ALICE, OLD_MAN, heard_by_reference, write_folder, write_runs

from affectbench.alignment.features import States
from affectbench.alignment.head import head_model
from affectbench.alignment.simulation import Plant
from affectbench.alignment.story import Story, reference_story
from affectbench.analysis import Analysis, AnalysisStore

pytestmark = pytest.mark.slow

SUBJECTS, PLANT = 3, Plant(point=3, lag=0.3, snr=3.0)
MEASURES = 7


@pytest.fixture(scope="module")
def story() -> Story:
    return reference_story(20, segments=3, seed=1)


@pytest.fixture(scope="module")
def states(story: Story) -> list[States]:
    return heard_by_reference(story)


def aligned(run_cli: Any, task: str, root: Path) -> tuple[str, Analysis]:
    """What the command says, and its record; the site of it is beside it."""
    out, site = root / "out", root / "site"
    code, said, complaint = run_cli(
        "align", task, "--data", root, "--model", "reference-audio", "--output", out
    )
    assert code == 0, complaint
    (record,), damaged = AnalysisStore(out).read_all()
    assert not damaged
    code, _, complaint = run_cli("leaderboard", "--results", out, "--output", site)
    assert code == 0, complaint
    return said, record


def check_plant(record: Analysis) -> None:
    """Every measure finds the planted lag, and one layer beside the planted one at most."""
    (table,) = [each for each in record.tables if each.name == "models"]
    assert len(table.rows) == MEASURES
    for name, _, effect, p, lag, _ in table.rows:
        assert effect.low > 0.01, name
        assert lag == pytest.approx(PLANT.lag, abs=0.051), name
        assert p is not None
    (matrix,) = [each for each in record.matrices if each.name.startswith("lag-layer")]
    best = np.array(matrix.values, dtype=np.float64).max(axis=0).argmax()
    assert abs(int(best) - PLANT.point) <= 1


def check_site(record: Analysis, site: Path) -> None:
    """A page of its own with every figure, named on the page of analyses."""
    pages = {path.name: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    (page,) = [text for text in pages.values() if "Electrodes by window" in text]
    for part in (*record.matrices, *record.tables, *record.maps, *record.curves):
        assert part.title in page, part.name


def test_alice(run_cli: Any, story: Story, states: list[States], tmp_path: Path) -> None:
    write_folder(tmp_path / "alice", story, states, PLANT, SUBJECTS, ALICE)
    said, record = aligned(run_cli, "alice", tmp_path)
    assert "090 is left out: it has no sub-090_task-alicelistening_events.tsv" in said
    assert "091 is left out: analyzed is 'no'" in said
    assert "2 words are in the events of 001 alone" in said
    heard = [piece for piece in story.pieces if 2.0 <= piece.seconds <= 15.0]
    assert record.n == {"models": 1, "subjects": SUBJECTS, "pieces": len(heard)}
    check_plant(record)
    (map_,) = record.maps
    assert map_.points == list(head_model("easycap-M10").names)  # The sound on Aux5 is not among them.
    assert len(map_.points) == 60
    check_site(record, tmp_path / "site")


def test_the_old_man_and_the_sea(run_cli: Any, story: Story, states: list[States], tmp_path: Path) -> None:
    write_runs(tmp_path / "ds004408", story, states, PLANT, SUBJECTS, OLD_MAN)
    for path in (tmp_path / "ds004408" / "sub-002").rglob("*run-2*"):
        path.unlink()
    said, record = aligned(run_cli, "ds004408", tmp_path)
    assert "002 is left out: it has not heard segment 2" in said
    assert record.n["subjects"] == SUBJECTS - 1
    check_plant(record)
    (map_,) = record.maps
    assert map_.points == list(head_model("biosemi128").names)
    check_site(record, tmp_path / "site")
