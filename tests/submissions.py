"""Submissions for tests: folders of every kind, honest and hostile, for the toy suite of e2e_content."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import BENCHMARK, CUES, MODEL, SUITE, Bench, Log, write_yaml

from affectbench.placement import Options
from affectbench.record import Record
from affectbench.selector import Selection
from affectbench.sites import SiteShape
from affectbench.submission_archive import staged
from affectbench.verification import Verification
from affectbench.verify import submit, verify

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


@pytest.fixture(scope="module")
def packed(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest submission, submitted; tests only read it."""
    root = tmp_path_factory.mktemp("honest")
    return submitted(bench, folder(root / "mine"), root / "out")


def submitted(bench: Bench, source: Path, output: Path, *more: Path, trust: bool = False) -> Path:
    options = Options(output, data=bench.root / "data")
    _, archive = submit(source, bench.registry(*more), options, Log(), trust_code=trust)
    assert archive is not None
    return archive


def verified(
    bench: Bench,
    source: Path,
    output: Path,
    *more: Path,
    published: Sequence[Record] = (),
    trust: bool = False,
) -> Verification:
    options = Options(output, data=bench.root / "data")
    return verify(
        source, bench.registry(*more), options, Log(), published=published, trust_code=trust
    )[0]  # fmt: skip


def tampered(packed: Path, target: Path, change: Callable[[dict[str, Any]], None], seal: bool = True) -> Path:
    """The packed submission with its claimed record changed, and sealed again by a forger."""
    found = {}
    with staged(packed) as unpacked:
        found = members(unpacked.root)
    (name,) = [name for name in found if name.endswith(".json")]
    content = json.loads(found[name])
    change(content)
    if seal:
        found[name] = Record.model_validate(content).sealed().canonical().encode()
    else:
        found[name] = json.dumps(content).encode()
    return zipped(target, found)
