"""Principal components of hidden states that need not fit into memory.

States go to disk as they are heard, a file a point, and come back one point at a time, a block of tokens at a
time. So memory is that of one piece and of a matrix channels x channels, however long the story is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from affectbench.alignment.features import States
from affectbench.alignment.rdm import FloatArray
from affectbench.errors import AffectbenchError

BLOCK = 1024
"""Tokens that are read at once."""
GIB = 1 << 30


@dataclass(frozen=True)
class Reduction:
    """A projection on principal components of each point: `centres` (points, d), `axes` (points, d, k)."""

    centres: FloatArray
    axes: FloatArray

    def __call__(self, values: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """States (points, tokens, d) as components (points, tokens, k)."""
        return np.asarray((values - self.centres[:, None]) @ self.axes)


@dataclass(frozen=True)
class Reduced:
    """States as principal components: the projection, and the components of each piece, (points, tokens, k)
    as `values`."""

    reduction: Reduction
    states: tuple[States, ...]

    @classmethod
    def of(
        cls, states: Iterable[States], components: int, folder: Path | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Reduced:  # fmt: skip
        """Components over the tokens of all pieces. No EEG is seen, and they are not whitened.

        Each piece is asked for once and kept in files of `folder` (else where the system keeps temporary
        ones), which are gone afterwards, also after a kill. `progress` hears how many points are done.
        Raises `AffectbenchError` where there is no room for them.
        """
        with Spill(folder) as spill:
            for each in states:
                spill.add(each)
            total, centres, axes, scores = len(spill.points), [], [], []
            for point in range(total):
                centre, found = fitted(partial(spill.blocks, point), components)
                centres.append(centre)
                axes.append(found)
                scores.append(np.concatenate([(block - centre) @ found for block in spill.blocks(point)]))
                progress(point + 1, total)
            parts = np.split(np.stack(scores), np.cumsum(spill.tokens)[:-1], axis=1)
            reduction = Reduction(np.stack(centres), np.stack(axes))
            heard = zip(parts, spill.spans, strict=True)
            return cls(reduction, tuple(States(spill.points, part, spans) for part, spans in heard))

    @property
    def points(self) -> tuple[str, ...]:
        return self.states[0].points


class Spill:
    """States of many pieces on disk, a file a point, each in the precision in which it came."""

    def __init__(self, folder: Path | None) -> None:
        self.points: tuple[str, ...] = ()
        self.tokens: list[int] = []
        self.spans: list[FloatArray] = []
        self._folder = folder
        self._files: list[IO[bytes]] = []
        self._open = ExitStack()
        self._kind: Any = None

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, states: States) -> None:
        """Put a piece behind the others. Raises `AffectbenchError` where the disk is full."""
        try:
            if not self._files:
                self.points = states.points
                self._kind = (states.values.dtype, states.values.shape[2])
                if self._folder is not None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                for _ in self.points:
                    new = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 (closed by the stack)
                    self._files.append(self._open.enter_context(new))
            for file, layer in zip(self._files, states.values, strict=True):
                _write(file, np.ascontiguousarray(layer, dtype=self._kind[0]))
        except OSError as error:
            held = sum(self.tokens) * len(self.points) * self._kind[1] * self._kind[0].itemsize
            raise AffectbenchError(
                f"hidden states cannot be kept in {self._folder or 'the temporary folder'}: "
                f"{error.strerror or error} (after {held / GIB:.1f} GiB)",
                hint="give an --output on a disk with room for the states of a whole model (--plan says it)",
            ) from error
        self.tokens.append(states.values.shape[1])
        self.spans.append(states.spans)

    def blocks(self, point: int) -> Iterator[FloatArray]:
        """All tokens of one point in blocks (tokens, d) of float64."""
        file, (kind, width) = self._files[point], self._kind
        file.seek(0)
        while (block := np.fromfile(file, kind, BLOCK * width)).size:
            yield block.reshape(-1, width).astype(np.float64)


def _write(file: IO[bytes], values: np.ndarray) -> None:
    rest = values.data.cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def fitted(blocks: Callable[[], Iterator[FloatArray]], components: int) -> tuple[FloatArray, FloatArray]:
    """Mean (d,) and the first principal axes (d, k) of rows that come in blocks (n, d), each time anew.

    From the smaller Gram matrix: of channels, added up block by block, or of rows, where there are fewer of
    these. The largest entry of an axis is positive: a correlation between two steps depends on the signs of
    components, and a library may return either.
    """
    from scipy.linalg import eigh
    from scipy.linalg.blas import dsyrk

    total, rows = np.zeros(0), 0
    for block in blocks():
        total = block.sum(axis=0) + (total if rows else 0.0)
        rows += len(block)
    centre, channels = total / rows, len(total)
    few = np.concatenate([block - centre for block in blocks()]) if channels > rows else None
    if few is None:
        gram = np.zeros((channels, channels), order="F")
        for block in blocks():  # The lower triangle alone, in place.
            gram = dsyrk(1.0, (block - centre).T, beta=1.0, c=gram, lower=1, overwrite_c=1)
    else:
        gram = few @ few.T
    size, count = len(gram), min(components, rows, channels)
    values, vectors = eigh(
        gram, subset_by_index=[size - count, size - 1], overwrite_a=True, check_finite=False
    )
    vectors = vectors[:, ::-1]
    if few is not None:
        vectors = few.T @ vectors / np.sqrt(np.maximum(values[::-1], np.finfo(np.float64).tiny))
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return centre, np.asarray(vectors * np.where(largest < 0, -1.0, 1.0))
