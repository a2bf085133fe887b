"""Submissions for tests: folders of every kind, honest and hostile, for the toy suite of e2e_content."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from e2e_content import BENCHMARK, CUES, MODEL, SUITE, write_yaml

from affectbench.selector import Selection
from affectbench.sites import SiteShape

LABELS = tuple(CUES)
SHAPE = SiteShape(2, 40)
FILE = "selections/toy.safetensors"
UNITS = ((0, 4, 7, 11), (10, 12, 18, 26), (43, 0, 1, 2))
"""Units that carry something in the toy model."""


def card(**changes: Any) -> dict[str, Any]:
    """What submission.yaml says; a change to None takes the key out."""
    content = {
        "kind": "submission",
        "name": "mine",
        "version": 1,
        "title": "Mine",
        "authors": ["A. Author"],
        "contact": "author@example.org",
        "licence": "Apache-2.0",
        "suite": SUITE,
        "identification": {"data": ["identification split"], "evaluation_items": False},
        "budget": {"labelled_items": 24},
        "selections": [{"model": MODEL, "task": BENCHMARK, "file": FILE}],
    } | changes
    return {key: value for key, value in content.items() if value is not None}


def selection(*units: Sequence[int], **changes: Any) -> Selection:
    """Units of the toy model, a list for each emotion; by default UNITS."""
    chosen = units or UNITS
    arrays = tuple(np.array(each, dtype=np.int64) for each in chosen)
    return Selection(changes.pop("site", "gate"), changes.pop("shape", SHAPE), LABELS, arrays, **changes)


def folder(root: Path, *units: Sequence[int], scores: Any = None, **changes: Any) -> Path:
    """A submission of units as data."""
    write_yaml(root / "submission.yaml", card(**changes))
    selection(*units, scores=scores).save(root / FILE)
    return root


def code(root: Path, source: str, name: str = "mine") -> Path:
    """A submission of a selector file."""
    write_yaml(root / "submission.yaml", card(name=name, selections=None, selector=f"{name}.py"))
    (root / f"{name}.py").write_text(source)
    return root


def zipped(path: Path, members: Mapping[str, bytes], **entry: Any) -> Path:
    """A zip with these members and nothing checked; `entry` sets attributes of every member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in entry.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return path


def members(root: Path) -> dict[str, bytes]:
    """The files of a folder, as `zipped` takes them."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
