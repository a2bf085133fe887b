"""Work in pieces that depend on nothing but what they are given: done here or on Ray, each kept when it is
done.

A piece is a function of arrays and plain values that gives named arrays. What is in the journal is not done
again, so a run that was stopped goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.identity import code_digest, digest_of
from affectbench.journal import Journal, remove_pieces
from affectbench.ray_executor import TRIES, RayExecutor, reason_of

Arrays = Mapping[str, np.ndarray]
Function = Callable[..., Arrays]


@dataclass(frozen=True)
class Task:
    """One piece: a name that says all that it depends on beside the study's identity, and its arguments."""

    key: str
    arguments: tuple[Any, ...]


@dataclass
class Workshop:
    """Does the tasks of a study. `advance` hears of each that is done, `note` of what one should know."""

    folder: Path
    study: str
    identity: str
    advance: Callable[[str, int, int], None]
    note: Callable[[str], None]
    ray: RayExecutor | None = None
    cpu_s: float = 0.0
    taken_s: float = field(default=0.0, init=False)
    _journal: Journal | None = field(default=None, init=False)

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            identity = digest_of([self.study, self.identity, code_digest(), *_versions()])
            path = self.folder / "partial" / f"{self.study}__{identity}"
            self._journal = Journal(path, identity, self.note)
            if self._journal.found:
                self.note(f"{self.study}: going on from what is in {path}")
        return self._journal

    def each(self, what: str, function: Function, shared: Any, tasks: Sequence[Task]) -> list[Arrays]:
        """``function(shared, *arguments)`` of each task, in the order of the tasks."""
        found: dict[str, Arrays] = {}
        todo = []
        for task in tasks:
            piece = self.journal.find(task.key)
            if piece is None:
                todo.append(task)
                continue
            found[task.key] = piece.arrays
            self.taken_s += piece.facts["cost"]["cpu_s"]
        self.advance(what, len(found), len(tasks))
        for task, arrays, cpu_s in self._done(function, shared, todo):
            self.journal.add(task.key, arrays, {"cost": {"cpu_s": cpu_s}})
            self.cpu_s += cpu_s
            found[task.key] = arrays
            self.advance(what, len(found), len(tasks))
        return [found[task.key] for task in tasks]

    def _done(
        self, function: Function, shared: Any, todo: Sequence[Task]
    ) -> Iterator[tuple[Task, Arrays, float]]:
        if self.ray is None or len(todo) < 2:
            for task in todo:
                yield (task, *_timed(function, shared, task.arguments))
            return
        with self.ray.cluster() as ray:
            remote = ray.remote(_timed).options(num_cpus=self.ray.cpus, max_retries=TRIES - 1)
            common = ray.put(shared)
            running = {remote.remote(function, common, task.arguments): task for task in todo}
            while running:
                ready, _ = ray.wait(list(running), num_returns=1)
                task = running.pop(ready[0])
                try:
                    done = ray.get(ready[0])
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    raise AffectbenchError(
                        f"{self.study}, {task.key}: its worker died {TRIES} times: {reason_of(error)}",
                        hint="is there memory enough for so many workers? see --workers and --plan. What is "
                        "done is kept: the same command goes on from here",
                    ) from error
                yield (task, *done)

    def forget(self) -> None:
        """Remove the pieces: what they were for is stored."""
        self.close()
        remove_pieces(self.folder / "partial", self.study)

    def close(self) -> None:
        """Write no more; what is there stays for the next run."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _timed(function: Function, shared: Any, arguments: Iterable[Any]) -> tuple[Arrays, float]:
    started = time.process_time()
    arrays = function(shared, *arguments)
    return arrays, time.process_time() - started


def _versions() -> list[str]:
    import scipy
    import torch

    return [f"numpy {np.__version__}", f"scipy {scipy.__version__}", f"torch {torch.__version__}"]


@contextmanager
def closing(workshop: Workshop) -> Iterator[Workshop]:
    """The workshop, closed at the end whatever happens; its pieces stay."""
    try:
        yield workshop
    finally:
        workshop.close()
