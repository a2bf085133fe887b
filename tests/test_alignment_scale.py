"""Alignment of large models: states that do not fit into memory, and what is kept of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from affectbench.alignment import components
from affectbench.alignment.components import Reduced
from affectbench.alignment.features import States
from affectbench.alignment.study_paper import staged, whitened
from affectbench.alignment_task import AlignmentTask
from affectbench.errors import AffectbenchError
from affectbench.registry import Registry

POINTS, WIDTH, STEP = 3, 48, 0.04
LENGTHS = (17, 40, 23, 31, 29, 38)


def heard(lengths: tuple[int, ...] = LENGTHS, points: int = POINTS, width: int = WIDTH) -> Iterator[States]:
    """States of single precision that exist only when they are asked for; some channels are louder."""
    loud = np.geomspace(10, 0.1, width)
    for piece, tokens in enumerate(lengths):
        rng = np.random.default_rng(piece)
        values = (5 + rng.normal(size=(points, tokens, width)) * loud).astype(np.float32)
        starts = np.arange(tokens) * STEP
        spans = np.stack([starts, starts + STEP], axis=1)
        yield States(tuple(f"layer {point}" for point in range(points)), values, spans)


def peak(work: object) -> int:
    """Most bytes that Python and NumPy held while `work` (a function) ran."""
    tracemalloc.start()
    try:
        work()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestReduced:
    @pytest.mark.parametrize("width", [48, 300])
    def test_components_are_those_of_all_states_together(
        self, width: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Against the singular value decomposition of everything in memory, where channels are fewer than
        tokens, and where they are more."""
        monkeypatch.setattr(components, "BLOCK", 25)  # No multiple of it is the length of a piece.
        found = Reduced.of(heard(width=width), 8)
        assert [each.values.shape for each in found.states] == [(POINTS, n, 8) for n in LENGTHS]
        for point in range(POINTS):
            together = np.concatenate([each.values[point].astype(np.float64) for each in heard(width=width)])
            centred = together - together.mean(axis=0)
            left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
            expected = left[:, :8] * strengths[:8]
            scores = np.concatenate([each.values[point] for each in found.states])
            signs = np.sign((scores * expected).sum(axis=0))
            np.testing.assert_allclose(scores, expected * signs, rtol=1e-6, atol=1e-6 * strengths[0])
        for one, other in zip(found.states, heard(width=width), strict=True):
            assert one.points == other.points
            np.testing.assert_array_equal(one.spans, other.spans)
            np.testing.assert_allclose(found.reduction(other.values), one.values, atol=1e-9)

    def test_double_precision_is_kept(self) -> None:
        exact = [States(each.points, each.values + 1e-9, each.spans) for each in
                 (States(e.points, e.values.astype(np.float64), e.spans) for e in heard())]  # fmt: skip
        centres = Reduced.of(exact, 2).reduction.centres
        assert (centres - Reduced.of(heard(), 2).reduction.centres) == pytest.approx(1e-9, rel=1e-3)

    def test_memory_does_not_grow_with_the_story(self) -> None:
        """Twenty times the speech, in pieces as long: at most what the components of it take more."""
        sizes = []
        for count in (10, 200):
            lengths = (60,) * count
            sizes.append(peak(lambda lengths=lengths: Reduced.of(heard(lengths, 4, 256), 4)))
        whole = 4 * 200 * 60 * 256 * 4
        assert sizes[1] < 0.4 * whole
        assert sizes[1] - sizes[0] < 4 * 190 * 60 * 256 * 4 * 0.15

    def test_files_are_gone_and_lie_where_they_should(self, tmp_path: Path) -> None:
        Reduced.of(heard(), 3, tmp_path / "new")
        assert list(tmp_path.iterdir()) == [tmp_path / "new"]
        assert not list((tmp_path / "new").iterdir())

    def test_a_full_disk_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(components, "TemporaryFile", lambda **_: FileIO("/dev/full", "w"))
        with pytest.raises(AffectbenchError, match="No space left on device") as caught:
            Reduced.of(heard(), 3, tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert "--output" in (caught.value.hint or "")


def test_mode_paper_keeps_components_of_each_sentence_and_no_states() -> None:
    task: AlignmentTask = Registry(installed=False).alignment("alice-paper")
    lengths = (60,) * 40
    found = []
    held = peak(lambda: found.append(staged(None, task, tuple(range(40)), heard(lengths, 4, 512))))  # type: ignore[arg-type]
    states, kept = 4 * 60 * 512 * 4, sum(each.nbytes for each in found[0].series)
    assert held < kept + 12 * states  # One piece, and its decomposition in double precision.
    first = next(heard(lengths, 4, 512)).values.astype(np.float64)
    np.testing.assert_allclose(found[0].series[0], whitened(first, task.components))
