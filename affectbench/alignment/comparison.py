"""One subject against all layers of models side by side: the work that is done once a subject, here or on a
cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from affectbench.alignment.acoustics import gridded_acoustics
from affectbench.alignment.components import Reduced
from affectbench.alignment.grid import COMPONENTS, epochs, lag_grid
from affectbench.alignment.ground import Ground, word_means
from affectbench.alignment.metrics import MEASURES, lag_side, lag_taken_out, measure
from affectbench.alignment.rdm import Distance, FloatArray
from affectbench.alignment.scoring import MOST_PAIRS, Reference, reference, scores
from affectbench.alignment.series import Timing, cleaned, cut, gridded
from affectbench.alignment.speech import Piece
from affectbench.alignment.work import Arrays
from affectbench.alignment_task import AlignmentTask
from affectbench.errors import AffectbenchError

BYTES = 8
"""Of a number."""
TOGETHER = 8
"""Electrodes whose sides over words are held at a time."""
PARTS = ("words", "pieces")
"""Of what is computed for a subject, the longest first."""
MOST_WORDS = 2500
"""Words whose pairs partial RSA is taken over: of a longer story evenly spaced ones, or their sides, which
grow with the square, would fill the memory."""
BY_POINT = ("scores", "topography", "windows")
"""What is kept of a subject for each point, in the last axis."""


@dataclass(frozen=True)
class Comparison:
    """What all subjects share: the ground, how time is cut, each measure's states, the states of words
    (points, words, components), the sides of these (points, pairs of words) for partial RSA, and the
    acoustics of each piece (m,). Points are those of one model after the other, as `models` names them."""

    ground: Ground
    task: AlignmentTask
    timing: Timing
    kept: tuple[int, ...]
    models: Mapping[str, tuple[str, ...]]
    references: tuple[Reference, ...]
    words: FloatArray
    word_sides: FloatArray
    acoustics: tuple[FloatArray, ...]

    @property
    def pieces(self) -> list[Piece]:
        return [self.ground.pieces[place] for place in self.kept]

    def without_states(self) -> Comparison:
        """What is still needed when all subjects are compared: the states of one model are gigabytes."""
        references = tuple(replace(each, match=[], mismatch=[]) for each in self.references)
        return replace(self, references=references, words=np.zeros(0), word_sides=np.zeros(0))


def kept_pieces(ground: Ground, task: AlignmentTask) -> tuple[int, ...]:
    """Places of the pieces that last as long as the task asks. Raises `AffectbenchError` where none does."""
    least, most = task.seconds
    found = tuple(place for place, piece in enumerate(ground.pieces) if least <= piece.seconds <= most)
    if not found:
        raise AffectbenchError(
            f"task {task.name}: none of {len(ground.pieces)} pieces lasts {least:g}-{most:g} s",
            hint="change `seconds`",
        )
    return found


def side_by_side(
    models: Mapping[str, Reduced], task: AlignmentTask, pieces: Sequence[Piece], memory: float
) -> list[dict[str, Reduced]]:
    """Models in the groups in which they are compared: what does not depend on the model is done once a
    group. A group's sides fit into so many bytes, if there is more than one model in it."""
    lengths = _timing(task, pieces).lengths
    each = side_bytes(task, lengths, sum(len(piece.words) for piece in pieces))
    groups: list[dict[str, Reduced]] = []
    for name, model in models.items():
        components = model.reduction.axes.shape[2]
        if groups:
            last = list(groups[-1].values())
            points = len(model.points) + sum(len(other.points) for other in last)
            if points * each <= memory and last[0].reduction.axes.shape[2] == components:
                groups[-1][name] = model
                continue
        groups.append({name: model})
    return groups


def side_bytes(task: AlignmentTask, lengths: Sequence[int], words: int) -> float:
    """Bytes of the sides of one point that all subjects share, for pieces of so many cells."""
    measures = [measure(name, "debiased") for name in task.metrics]
    copies = sum(2 if one.side else 1 + MOST_PAIRS for one in measures if one.side or one.name == "tau_b")
    words = min(words, MOST_WORDS)
    pairs = copies * sum(n * (n - 1) // 2 for n in lengths) + words * (words - 1) / 2
    return float(pairs * BYTES)


def quarter_of_memory() -> float:
    """Bytes for the sides of models: workers of a cluster read them from a store that is no larger than a
    third of the memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 4


def _timing(task: AlignmentTask, pieces: Sequence[Piece]) -> Timing:
    return Timing.of(pieces, task.grid, lag_grid(task.lags.until, task.lags.step))


def compared(
    ground: Ground, task: AlignmentTask, kept: tuple[int, ...], models: Mapping[str, Reduced]
) -> Comparison:
    """Prepare the states of the kept pieces for all subjects: those of one model, or of several that have as
    many components."""
    pieces = [ground.pieces[place] for place in kept]
    timing = _timing(task, pieces)
    heard = [gridded(each.states, timing) for each in models.values()]
    reduced = [np.concatenate(piece) for piece in zip(*heard, strict=True)]
    references = tuple(
        reference(measure(name, "debiased"), reduced, timing, seed=task.seed, distance=task.distance)
        for name in task.metrics
    )
    side = MEASURES["debiased"]["rsa_spearman"].side
    assert side is not None, "RSA is an inner product"
    acoustics = tuple(
        side(gridded_acoustics(piece.sound(ground.sounds[piece.segment]), count, task.grid), "euclidean")
        for piece, count in zip(pieces, timing.lengths, strict=True)
    )
    words = np.concatenate([word_means(each.states, pieces) for each in models.values()])
    words = words[:, spaced_words(words.shape[1])]
    sides = _word_sides(words, lag_side(_onsets(pieces)), task.distance)
    points = {name: each.points for name, each in models.items()}
    return Comparison(ground, task, timing, kept, points, references, words, sides, acoustics)


def _word_sides(words: FloatArray, lag: FloatArray, distance: Distance) -> FloatArray:
    """Sides (points, pairs of words) of states for partial RSA, the time between words taken out."""
    return np.stack([lag_taken_out(point, lag, distance) for point in words])


def _onsets(pieces: Sequence[Piece]) -> FloatArray:
    """When each word that is compared began, in seconds of the recording."""
    onsets = np.array([word.onset for piece in pieces for word in piece.words])
    return onsets[spaced_words(len(onsets))]


def spaced_words(count: int) -> npt.NDArray[np.int64]:
    """Places of those of so many words that are compared."""
    return np.linspace(0, count - 1, min(count, MOST_WORDS)).round().astype(np.int64)


def one_subject(shared: Comparison, subject: int, part: str) -> Arrays:
    """What is kept of a subject, in one of `PARTS`, each a piece of work by itself.

    Of ``words``: `topography` (windows, channels, points) and `windows` (windows, points), partial RSA over
    words of single electrodes and of all, locked to word onsets. Of ``pieces``: `scores` (measures, 2,
    pieces, lags, points) of `scoring.scores`; `acoustics` (pieces, lags), RSA of the sound's acoustics and
    the EEG; `side` (m,), the EEG's RSA side at the middle lag of all pieces, for the noise ceiling; `line`,
    where a notch was set (NaN: nowhere).
    """
    eeg = cleaned(shared.ground.recording(subject), shared.task.band)
    if part == "words":
        topography, windows = _word_locked(shared, eeg.data, eeg.rate)
        return {"topography": topography, "windows": windows}
    series = cut(eeg, shared.pieces, shared.timing)
    found = np.stack([scores(each, series) for each in shared.references])
    side = MEASURES["debiased"]["rsa_spearman"].side
    assert side is not None, "RSA is an inner product"
    heard = [np.stack([side(lagged, shared.task.distance) for lagged in piece]) for piece in series]
    middle = len(shared.timing.lags) // 2
    return {
        "scores": found,
        "acoustics": np.stack([h @ a for h, a in zip(heard, shared.acoustics, strict=True)]),
        "side": np.concatenate([piece[middle] for piece in heard]).astype(np.float32),
        "line": np.array(np.nan if eeg.line is None else eeg.line),
    }


def _word_locked(shared: Comparison, data: FloatArray, rate: float) -> tuple[FloatArray, FloatArray]:
    """Partial RSA over words, time between words taken out, in each window after word onset: of single
    electrodes (windows, channels, points), and of all together (windows, points)."""
    distance, onsets = shared.task.distance, _onsets(shared.pieces)
    between = lag_side(onsets)
    single, together = [], []
    for window in COMPONENTS:
        means, kept = epochs(data, rate, onsets.tolist(), window)
        lag, states = between, shared.word_sides
        if not kept.all():
            lag = lag_side(onsets[kept])
            states = _word_sides(shared.words[:, kept], lag, distance)
        found = []
        for first in range(0, means.shape[1], TOGETHER):  # A side of all words is large.
            places = range(first, min(first + TOGETHER, means.shape[1]))
            sides = np.stack([lag_taken_out(means[:, [place]], lag, "euclidean") for place in places])
            found.append(sides @ states.T)
        single.append(np.concatenate(found))
        together.append(states @ lag_taken_out(means, lag, distance))
    return np.stack(single), np.stack(together)


def model_acoustics(shared: Comparison) -> FloatArray:
    """RSA of the sound's acoustics and the states, (pieces, points)."""
    by_name = {each.measure.name: each for each in shared.references}
    if "rsa_spearman" not in by_name:
        raise AffectbenchError(
            f"task {shared.task.name}: consensus needs the metric rsa_spearman", hint="add it to `metrics`"
        )
    match = by_name["rsa_spearman"].match
    return np.stack([m @ a for m, a in zip(match, shared.acoustics, strict=True)])
