"""A submission is read with suspicion: what it may hold, and everything that it may not."""

from __future__ import annotations

import json
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_content import write_yaml
from safetensors.numpy import save
from submissions import FILE, LABELS, card, code, folder, members, selection, zipped

from affectbench import submission as submission_module
from affectbench.errors import AffectbenchError
from affectbench.selector import Selection
from affectbench.submission import SubmissionError, read_folder
from affectbench.submission_archive import pack, staged, unpack
from affectbench.yaml_loading import TaskFileError

SCRIPT = "<script>alert(1)</script>"
SELECTOR = """class Mine:
    name = "mine"
    def select(self, study, budget):
        ...
"""


def refused(root: Path) -> str:
    with pytest.raises(AffectbenchError) as caught:
        read_folder(root)
    return str(caught.value)


# What a submission says.


def test_an_honest_folder_is_read(tmp_path: Path) -> None:
    found = read_folder(
        folder(tmp_path, paper="https://arxiv.org/abs/2601.03115", description="p < 0.05 & so")
    )
    assert found.submission.name == "mine"
    assert found.files == (FILE, "submission.yaml")
    assert found.submission.selections[0].file == FILE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"title": SCRIPT}, "title: expected plain text"),
        ({"description": "see <img src=x onerror=alert(1)>"}, "description: expected plain text"),
        ({"authors": ["A", "&lt;b&gt;"]}, "authors.1: expected plain text"),
        ({"authors": ["A\u202eB"]}, "authors.0: expected plain text"),
        ({"paper": "javascript:alert(1)"}, "paper: expected an address https://"),
        ({"code": "http://example.org"}, "code: expected an address https://"),
        ({"code": 'https://example.org/"onclick="x'}, "code: the address holds a character"),
        ({"paper": "https://user:pw@example.org"}, "paper: expected an address https://"),
        ({"contact": "nobody"}, "contact: expected an address https://"),
        ({"name": "../mine"}, "name: "),
        ({"title": "x" * 201}, "title: "),
        ({"version": 0}, "version: "),
        ({"authors": []}, "authors: "),
        ({"licence": None}, "licence: missing"),
        ({"identification": None}, "identification: missing"),
        ({"identification": {"data": ["x"]}}, "identification.evaluation_items: missing"),
        ({"identification": {"data": ["x"], "evaluation_items": True}}, "cannot be judged"),
        ({"budget": {"labelled_items": 1, "gpu_hours": float("nan")}}, "budget.gpu_hours"),
        ({"autors": ["A"]}, "did you mean 'authors'"),
        ({"kind": "suite"}, "expected 'submission', found 'suite'"),
        ({"include": "../secret.yaml"}, "include: unknown key"),
        ({"selector": "mine.py"}, "give either"),
        ({"selections": []}, "give either"),
        ({"selections": [{"model": "a", "task": "b", "file": "selections/../../x.safetensors"}]}, "found"),
        ({"selections": [{"model": "a", "task": "b", "file": "/etc/passwd"}]}, "found '/etc/passwd'"),
        ({"selections": [{"model": "a", "task": "b", "file": FILE}] * 2}, "have a selection already"),
        (
            {"selections": [{"model": "a", "task": "b", "file": "selections/x.safetensors"}]},
            "there is no file",
        ),
    ],
)
def test_what_its_yaml_may_not_say(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    message = refused(folder(tmp_path, **changes))
    assert told in message
    assert "submission.yaml" in message


def test_an_alias_bomb_is_not_expanded(tmp_path: Path) -> None:
    folder(tmp_path)
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in pairwise("abcdefgh")]
    (tmp_path / "submission.yaml").write_text("\n".join(lines))
    assert "aliases expand" in refused(tmp_path)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "submission.yaml").write_text("kind: !!python/object/apply:os.system ['touch pwned']\n")
    with pytest.raises(TaskFileError, match=r"expected 'submission', found \['touch pwned'\]"):
        read_folder(tmp_path)
    assert not (tmp_path / "pwned").exists()


# What it may hold.


def test_pickles_are_refused_by_name_and_by_content(tmp_path: Path) -> None:
    folder(tmp_path / "a")
    (tmp_path / "a" / "units.pkl").write_bytes(pickle.dumps([1]))
    assert "never read" in refused(tmp_path / "a")
    folder(tmp_path / "b")

    class Payload:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    (tmp_path / "b" / FILE).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(AffectbenchError, match="not a selection"):
        Selection.load(tmp_path / "b" / FILE)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["run.sh", "page.html", "selections/x.json", "models/x.yaml", "other.txt"])
def test_files_of_no_use_are_refused(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    assert "may not be in a submission" in refused(tmp_path)


def test_a_selection_or_code_that_nothing_names_is_refused(tmp_path: Path) -> None:
    selection().save(folder(tmp_path / "a") / "selections" / "spare.safetensors")
    assert "spare.safetensors belongs to nothing" in refused(tmp_path / "a")
    (folder(tmp_path / "b") / "mine.py").write_text("raise SystemExit")
    assert "mine.py belongs to nothing" in refused(tmp_path / "b")


def test_links_are_refused(tmp_path: Path) -> None:
    folder(tmp_path / "a")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "a" / "README.md").symlink_to(tmp_path / "secret")
    assert "a link" in refused(tmp_path / "a")


def test_sizes_and_counts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    monkeypatch.setattr(submission_module, "MAX_FILES", 1)
    assert "more than 1 files" in refused(tmp_path)
    monkeypatch.undo()
    with (tmp_path / "README.md").open("wb") as stream:
        stream.truncate(submission_module.MAX_FILE_BYTES + 1)
    assert "at most" in refused(tmp_path)


def test_a_selector_is_parsed_and_not_run(tmp_path: Path) -> None:
    touch = f"open({str(tmp_path / 'pwned')!r}, 'w')\n"
    assert read_folder(code(tmp_path / "a", touch + SELECTOR)).selector_path is not None
    assert "expected one class" in refused(code(tmp_path / "b", SELECTOR.replace('"mine"', '"other"')))
    assert "not valid Python" in refused(code(tmp_path / "c", "def ("))
    assert not (tmp_path / "pwned").exists()


def test_a_compiled_file_cannot_stand_in_for_the_source(tmp_path: Path) -> None:
    root = code(tmp_path / "a", SELECTOR)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "mine.cpython-311.pyc").write_bytes(b"x")
    with staged(root) as copy:
        assert copy.files == ("mine.py", "submission.yaml")
        assert sorted(os.listdir(copy.root)) == ["mine.py", "submission.yaml"]
    archive = zipped(tmp_path / "a.zip", members(root))
    with pytest.raises(SubmissionError, match="never read"), staged(archive):
        pass


# The archive.


def test_packing_is_repeatable_and_unpacks_to_the_same(tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    first = pack(read_folder(root), tmp_path / "1.zip").read_bytes()
    os.utime(root / "submission.yaml", (0, 0))
    assert pack(read_folder(root), tmp_path / "2.zip").read_bytes() == first
    with staged(tmp_path / "1.zip") as found:
        assert members(found.root) == members(root)
    assert not found.root.exists()


def test_a_zip_made_by_other_tools_is_read(tmp_path: Path) -> None:
    found = members(folder(tmp_path / "a"))
    archive = zipped(tmp_path / "a.zip", {"selections/": b"", **found})
    with staged(archive) as checked:
        assert checked.submission.name == "mine"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "a/../../evil.py",
        "/tmp/evil.py",
        "..\\evil.py",
        "C:\\evil.py",
        "selections/../x.safetensors",
        "selections/..",
        "evil\x00.py",
        "mine/submission.yaml",
        "selections/a/b.safetensors",
        ".git/config",
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    archive = zipped(tmp_path / "a.zip", {**members(folder(tmp_path / "a")), name: b"evil"})
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(SubmissionError, match=r"may not be in a submission|never read"):
        unpack(archive, inside)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before, "nothing is written at all"


def test_links_in_an_archive_are_refused(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "a.zip",
        {"README.md": b"/etc/passwd"},
        external_attr=(stat.S_IFLNK | 0o777) << 16,
        create_system=3,
    )
    with pytest.raises(SubmissionError, match="a link"):
        unpack(archive, tmp_path)


def test_a_zip_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"README.md": bytes(12 << 20)})
    assert archive.stat().st_size < 20_000
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(SubmissionError, match=r"unpacks to \d+ times its size"):
        unpack(archive, target)
    assert list(target.iterdir()) == []


def test_many_small_files_are_a_bomb_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = b"ab" * 20_000  # Too small for its ratio to matter.
    archive = zipped(tmp_path / "a.zip", {f"selections/{k}.safetensors": plain for k in range(3)})
    monkeypatch.setattr("affectbench.submission_archive.MAX_TOTAL_BYTES", 100_000)
    with pytest.raises(SubmissionError, match="120000 with those before it"):
        unpack(archive, tmp_path)
    monkeypatch.setattr("affectbench.submission_archive.MAX_FILES", 2)
    with pytest.raises(SubmissionError, match="3 entries"):
        unpack(archive, tmp_path)


def test_an_archive_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"README.md": bytes(3 << 20)})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, 10)
    archive.write_bytes(content)
    with zipfile.ZipFile(archive) as opened:
        assert opened.infolist()[0].file_size == 10
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(SubmissionError, match="not a sound zip"):
        unpack(archive, target)
    assert sum(path.stat().st_size for path in target.rglob("*")) <= 10


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_ways_of_compressing_are_refused(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", kind) as archive:
        archive.writestr("README.md", "x" * 100)
    with pytest.raises(SubmissionError, match="in another way than deflate"):
        unpack(tmp_path / "a.zip", tmp_path)


def test_a_huge_archive_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "a.zip").open("wb") as stream:
        stream.truncate(submission_module.MAX_TOTAL_BYTES + 1)
    with pytest.raises(SubmissionError, match="268435457 bytes"):
        unpack(tmp_path / "a.zip", tmp_path)


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "not a sound zip"), (b"PK\x03\x04 and rubbish", "not a sound zip")]
)
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(SubmissionError, match=told):
        unpack(tmp_path / "a.zip", tmp_path)
    with pytest.raises(SubmissionError, match="there is no submission"), staged(tmp_path / "none.zip"):
        pass


def test_a_repeated_or_encrypted_entry_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("README.md", "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("README.md", "two")
    with pytest.raises(SubmissionError, match="twice"):
        unpack(tmp_path / "a.zip", tmp_path)
    encrypted = zipped(tmp_path / "b.zip", {"README.md": b"x"})
    content = bytearray(encrypted.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    encrypted.write_bytes(content)
    with pytest.raises(SubmissionError, match="encrypted"):
        unpack(encrypted, tmp_path)


# The selections.


def raw(path: Path, tensors: dict[str, np.ndarray], **header: Any) -> Path:
    """A selection file with any content at all."""
    known = {"site": "gate", "layers": 2, "width": 40, "labels": list(LABELS), "digest": ""} | header
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(tensors, metadata={"selection": json.dumps(known)}))
    return path


def units(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return {f"units.{k}": np.arange(4, dtype=np.int64) for k in range(3)} | changes


@pytest.mark.parametrize(
    ("tensors", "header", "told"),
    [
        (units(**{"units.1": np.array([1, 2, 2])}), {}, "unit 2 is listed more than once"),
        (units(**{"units.1": np.array([1, 80])}), {}, "unit 80 does not exist"),
        (units(**{"units.1": np.array([-1])}), {}, "unit -1 does not exist"),
        (units(**{"units.1": np.array([0.5])}), {}, "not one row of whole numbers"),
        (units(**{"units.1": np.array([[1]])}), {}, "not one row of whole numbers"),
        (units(scores=np.full((3, 80), np.nan, np.float32)), {}, "scores hold NaN"),
        (units(scores=np.zeros((3, 7), np.float32)), {}, "scores have shape"),
        ({"units.0": np.arange(4)}, {}, "not a selection"),
        (units(), {}, "do not match the digest"),
        (units(), {"labels": [1, 2, 3]}, "its JSON header"),
        (units(), {"labels": "anger"}, "its JSON header"),
        (units(), {"layers": -1}, "its JSON header"),
        (units(), {"width": True}, "its JSON header"),
        (units(), {"site": SCRIPT}, "its JSON header"),
        (units(), {"items": [1]}, "its JSON header"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], header: dict[str, Any], told: str
) -> None:
    path = raw(tmp_path / "x.safetensors", tensors, **header)
    with pytest.raises(AffectbenchError, match=told) as caught:
        Selection.load(path)
    assert "x.safetensors" in str(caught.value)


def test_ten_million_units_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = np.arange(10_000_000, dtype=np.int32)
    path = raw(
        tmp_path / "selections" / "toy.safetensors", units(**{"units.0": many}), layers=10**4, width=10**4
    )

    def reading(*_: object) -> None:
        raise AssertionError("units were read")

    monkeypatch.setattr(Selection, "__post_init__", reading)
    with pytest.raises(AffectbenchError, match="10000000 units for 'anger' exceed the budget of 4"):
        Selection.load(path, most=4)


def test_a_file_of_that_size_is_refused_anyway(tmp_path: Path) -> None:
    monstrous = units(**{"units.0": np.arange(10_000_000, dtype=np.int32)})
    root = tmp_path / "a"
    (root / "selections").mkdir(parents=True)
    write_yaml(root / "submission.yaml", card())
    raw(root / FILE, monstrous, layers=10**4, width=10**4)
    assert "at most 16777216 bytes a file" in refused(root)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, struct.pack("<Q", 1 << 60) + b"{}"])
def test_a_damaged_selection_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(AffectbenchError, match=r"x\.safetensors: not a selection"):
        Selection.load(path)


def test_the_items_behind_a_selection_travel_with_it(tmp_path: Path) -> None:
    named = selection(items=("mara-stole", "otto-won"))
    named.save(tmp_path / "x.safetensors")
    assert Selection.load(tmp_path / "x.safetensors").items == ("mara-stole", "otto-won")
    assert named.digest == selection().digest
