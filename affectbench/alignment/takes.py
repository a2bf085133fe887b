"""Which recordings a folder holds: of whom, in which session and run."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from affectbench.alignment.patterns import matching
from affectbench.alignment.readers import check_bids, import_mne_bids
from affectbench.errors import AffectbenchError

BIDS_ENDINGS = (".vhdr", ".set", ".edf", ".bdf")


@dataclass(frozen=True, order=True)
class Take:
    """A recording; `session` and `run` are empty where its name has none."""

    session: str
    run: str
    path: Path


Takes = dict[str, list[Take]]
"""Recordings by subject, in the order of sessions and runs."""


def bids_takes(root: Path, task: str) -> Takes:
    """Recordings of a task in a BIDS folder.

    Raises `AffectbenchError` where there is none, and for two of the same subject, session and run.
    """
    mne_bids = import_mne_bids()
    check_bids(root)
    paths = mne_bids.find_matching_paths(
        root, tasks=task, suffixes="eeg", datatypes="eeg", extensions=list(BIDS_ENDINGS)
    )
    found: Takes = {}
    for path in paths:
        take = Take(path.session or "", path.run or "", Path(path.fpath))
        found.setdefault(path.subject, []).append(take)
    if not found:
        raise AffectbenchError(
            f"{root} has no recording of task {task!r}",
            hint=f"expected sub-*/[ses-*/]eeg/sub-*_task-{task}_*eeg with {', '.join(BIDS_ENDINGS)}",
        )
    return _told_apart(found)


def matching_takes(root: Path, pattern: str) -> Takes:
    """Files that match a pattern with {subject}, and {session} and {run} if it has them.

    Raises `AffectbenchError` where there is none, and for two of the same subject, session and run.
    """
    found: Takes = {}
    for cells, path in matching(root, pattern):
        take = Take(cells.get("session", ""), cells.get("run", ""), path)
        found.setdefault(cells["subject"], []).append(take)
    return _told_apart(found)


def _told_apart(found: Takes) -> Takes:
    ordered = {subject: sorted(takes) for subject, takes in sorted(found.items())}
    for subject, takes in ordered.items():
        for one, other in itertools.pairwise(takes):
            if (one.session, one.run) == (other.session, other.run):
                raise AffectbenchError(
                    f"subject {subject}: {one.path} and {other.path} are of one session and run",
                    hint="sessions and runs are told apart, nothing else: keep one of the two in the folder",
                )
    return ordered
