"""Alignment of large models: states that do not fit into memory, and what is kept of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from test_alignment_units import spoken

from affectbench.alignment import comparison, components
from affectbench.alignment.comparison import compared, side_by_side, side_bytes
from affectbench.alignment.components import Reduced
from affectbench.alignment.features import States
from affectbench.alignment.grid import cells
from affectbench.alignment.ground import SimulatedGround
from affectbench.alignment.head import head_model
from affectbench.alignment.series import OTHERS
from affectbench.alignment.simulation import Plant
from affectbench.alignment.story import reference_story
from affectbench.alignment.study_alignment import found
from affectbench.alignment.study_paper import staged, whitened
from affectbench.alignment.work import Workshop
from affectbench.alignment_task import AlignmentTask, Lags
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
        work()
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
        made = Reduced.of(heard(width=width), 8)
        assert [each.values.shape for each in made.states] == [(POINTS, n, 8) for n in LENGTHS]
        for point in range(POINTS):
            together = np.concatenate([each.values[point].astype(np.float64) for each in heard(width=width)])
            centred = together - together.mean(axis=0)
            left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
            expected = left[:, :8] * strengths[:8]
            scores = np.concatenate([each.values[point] for each in made.states])
            signs = np.sign((scores * expected).sum(axis=0))
            np.testing.assert_allclose(scores, expected * signs, rtol=1e-6, atol=1e-6 * strengths[0])
        for one, other in zip(made.states, heard(width=width), strict=True):
            assert one.points == other.points
            np.testing.assert_array_equal(one.spans, other.spans)
            np.testing.assert_allclose(made.reduction(other.values), one.values, atol=1e-9)

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
    lengths = (30,) * 30
    made = []
    held = peak(lambda: made.append(staged(None, task, tuple(range(30)), heard(lengths, 4, 256))))
    states, kept = 4 * 30 * 256 * 4, sum(each.nbytes for each in made[0].series)
    assert held < kept + 12 * states  # One piece, and its decomposition in double precision.
    first = next(heard(lengths, 4, 256)).values.astype(np.float64)
    np.testing.assert_allclose(made[0].series[0], whitened(first, task.components))


class TestSideBySide:
    """Models that are compared with a subject at once, and each by itself."""

    TASK = Registry(installed=False).alignment("reference-eeg")

    @pytest.fixture(scope="class")
    def ground(self) -> SimulatedGround:
        pytest.importorskip("mne", reason="the extra `eeg` is not installed")
        story = reference_story(10, segments=2, seed=1)
        return SimulatedGround(story, spoken(story), Plant(1, 0.3, 8.0), head_model(), 2, 100.0, 0)

    @pytest.fixture(scope="class")
    def models(self, ground: SimulatedGround) -> dict[str, Reduced]:
        other = [each.at([0, 2]) for each in spoken(ground.story, seed=9)]
        return {"one": Reduced.of(ground.states, 6), "other": Reduced.of(other, 6)}

    def test_results_are_those_of_each_model_alone(
        self, ground: SimulatedGround, models: dict[str, Reduced], tmp_path: Path
    ) -> None:
        metrics = ("rsa_spearman", "rsa_lag_partial", "pairwise_mi")  # Products, and what needs both sides.
        task = self.TASK.model_copy(update={"metrics": metrics, "lags": Lags(until=0.4, step=0.2)})
        kept = tuple(range(10))
        workshop = Workshop(tmp_path, "models", "one", lambda *_: None, lambda _: None)
        together = found(workshop, compared(ground, task, kept, models))
        assert list(together) == ["one", "other"]
        assert len(list((tmp_path / "partial").rglob("*.journal"))) == 1
        for name, model in models.items():
            alone = found(workshop, compared(ground, task, kept, {name: model}))[name]
            own = together[name]
            assert own.points == alone.points == model.points
            np.testing.assert_allclose(own.pieces, alone.pieces, atol=1e-12)
            np.testing.assert_allclose(own.acoustics, alone.acoustics, atol=1e-12)
            assert own.kept.keys() == alone.kept.keys()
            for key, values in alone.kept.items():
                np.testing.assert_allclose(own.kept[key], values, atol=1e-12)

    def test_what_subjects_share_takes_what_is_said(
        self, ground: SimulatedGround, models: dict[str, Reduced]
    ) -> None:
        task = self.TASK.model_copy(update={"metrics": ("rsa_spearman", "cka_rbf", "tau_b")})
        made = compared(ground, task, tuple(range(10)), models)
        arrays = [array for each in made.references for array in (*each.match, *each.mismatch)]
        held = sum(array.nbytes for array in arrays) + made.word_sides.nbytes
        words = sum(len(piece.words) for piece in made.pieces)
        said = 5 * side_bytes(task, made.timing.lengths, words)
        # A piece may have fewer than five mismatches for tau-b, whose side is a little longer than its pairs.
        assert held == pytest.approx(said, rel=0.1)
        assert sum(array.nbytes for each in made.without_states().references for array in each.match) == 0

    def test_as_many_as_fit_into_memory_are_compared_at_once(
        self, ground: SimulatedGround, models: dict[str, Reduced]
    ) -> None:
        pieces = ground.pieces
        lengths = [cells(piece.seconds, self.TASK.grid) for piece in pieces]
        longest = sorted(lengths)[-OTHERS - 1]
        words = sum(len(piece.words) for piece in pieces)
        each = side_bytes(self.TASK, [min(count, longest) for count in lengths], words)
        one, other = models.values()
        many = {"a": one, "b": other, "c": other, "d": one}

        def groups(points: float) -> list[list[str]]:
            return [list(group) for group in side_by_side(many, self.TASK, pieces, points * each)]

        assert groups(100) == [["a", "b", "c", "d"]]
        assert groups(7) == [["a", "b", "c"], ["d"]]
        assert groups(5) == [["a", "b"], ["c", "d"]]
        assert groups(1) == [["a"], ["b"], ["c"], ["d"]]
        many["b"] = Reduced.of(ground.states, 4)
        assert groups(100) == [["a"], ["b"], ["c", "d"]]

    def test_a_long_story_is_compared_at_evenly_spaced_words(
        self, ground: SimulatedGround, models: dict[str, Reduced], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = compared(ground, self.TASK, tuple(range(10)), models)
        count = whole.words.shape[1]
        monkeypatch.setattr(comparison, "MOST_WORDS", count // 3)
        some = compared(ground, self.TASK, tuple(range(10)), models)
        places = comparison.spaced_words(count)
        assert (len(places), places[0], places[-1]) == (count // 3, 0, count - 1)
        assert set(np.diff(places)) <= {3, 4}
        np.testing.assert_array_equal(some.words, whole.words[:, places])
        found = comparison.one_subject(some, 0, "words")
        assert found["windows"].shape == (6, 5)
        assert np.isfinite(found["topography"]).all()
