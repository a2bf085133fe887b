"""A submission: a folder with `submission.yaml` and what names the units, as data or as a selector file.

Whatever is in the folder was written by a stranger. Reading it runs nothing, follows no link, opens no file
outside, and is bounded in size; what is not understood is an error, not ignored.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from affectbench.content import outline
from affectbench.errors import AffectbenchError
from affectbench.task_parts import Count, Frozen, Name, Number
from affectbench.yaml_loading import TaskFileError, build, load_alone, reject, suggest

CARD = "submission.yaml"
RESULTS = "results"
MAX_FILES = 2000
MAX_FILE_BYTES = 16 << 20
MAX_TOTAL_BYTES = 256 << 20
CELL_FILE = r"[A-Za-z0-9._-]+"
ALLOWED = re.compile(
    rf"submission\.yaml|README\.md|LICENSE|(test_)?[a-z][a-z0-9_]*\.py|selections/{CELL_FILE}\.safetensors"
    rf"|{RESULTS}/records/{CELL_FILE}\.json|{RESULTS}/predictions/{CELL_FILE}\.parquet"
    rf"|{RESULTS}/selections/{CELL_FILE}\.safetensors"
)
"""Every path that a submission may hold; nothing else is read, packed or unpacked."""

_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pyc")
_PASSING = re.compile(r"(^|/)(\.[^/]*|__pycache__)(/|$)")
MARKUP = re.compile(
    r"<[A-Za-z/!?]|&[A-Za-z]+;|&#|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""Markup, entities, control characters and what changes the direction of text."""
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


class SubmissionError(AffectbenchError):
    """A submission cannot be read, or does not say what it must."""


def texts_of(value: Any) -> Iterator[str]:
    """Every text within nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from texts_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts_of(each)


def _plain(text: str) -> str:
    found = MARKUP.search(text)
    if found:
        reject("", f"expected plain text, found markup or a control character: {found.group()!r}")
    return text


def _one_line(text: str) -> str:
    if "\n" in text or text != text.strip():
        reject("", "expected one line without blanks around it")
    return _plain(text)


def _web(text: str) -> str:
    """An https address with a host, without credentials or anything that could leave an attribute."""
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        reject("", f"expected an address https://..., found {text[:60]!r}")
    if not re.fullmatch(r"[A-Za-z0-9:/?#@!$&*+,;=._~%()-]+", text):
        reject("", "the address holds a character that addresses do not have")
    return text


def _reachable(text: str) -> str:
    return text if _ADDRESS.fullmatch(text) else _web(text)


def _inside(name: str) -> str:
    if not re.fullmatch(rf"selections/{CELL_FILE}\.safetensors", name):
        reject("", f"expected selections/NAME.safetensors in the submission's folder, found {name[:80]!r}")
    return name


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
Prose = Annotated[str, Field(max_length=4000), AfterValidator(_plain)]
Web = Annotated[str, Field(max_length=300), AfterValidator(_web)]
Contact = Annotated[str, Field(max_length=300), AfterValidator(_reachable)]
Inside = Annotated[str, Field(max_length=200), AfterValidator(_inside)]


class Identification(Frozen):
    """What the units were found on. `evaluation_items`: whether validation or test items were among it."""

    data: Annotated[tuple[Line, ...], Field(min_length=1, max_length=20)]
    evaluation_items: Annotated[bool, Field(strict=True)]


class Budget(Frozen):
    """What finding the units took, as the authors count it."""

    labelled_items: Annotated[int, Field(strict=True, ge=0)]
    forward_passes: Annotated[int, Field(strict=True, ge=0)] | None = None
    gpu_hours: Annotated[Number, Field(ge=0)] | None = None


class SelectionEntry(Frozen):
    """The selection for one model on one task; without `intervention`, under every protocol of its site."""

    model: Name
    task: Name
    file: Inside
    intervention: Name | None = None


class Submission(Frozen):
    """What `submission.yaml` says. `name` is how the method is called in records and on the board."""

    kind: Literal["submission"]
    name: Name
    version: Count
    title: Line
    description: Prose = ""
    authors: Annotated[tuple[Line, ...], Field(min_length=1, max_length=50)]
    contact: Contact
    licence: Line
    paper: Web | None = None
    code: Web | None = None
    suite: Name
    identification: Identification
    budget: Budget
    selections: Annotated[tuple[SelectionEntry, ...], Field(max_length=500)] = ()
    selector: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.py$", max_length=80)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Submission:
        if bool(self.selections) == (self.selector is not None):
            reject("", "give either `selections` (data) or `selector` (a Python file)")
        if self.selector is not None and self.selector != f"{self.name}.py":
            reject("selector", f"expected {self.name}.py: the file bears the method's name")
        if self.identification.evaluation_items:
            problem = "units found on the items that judge them cannot be judged; find them on other items"
            reject(("identification", "evaluation_items"), problem)
        seen: set[tuple[str, str, str | None]] = set()
        for place, entry in enumerate(self.selections):
            key = (entry.model, entry.task, entry.intervention)
            if key in seen:
                reject(("selections", place), "this model, task and intervention have a selection already")
            seen.add(key)
        return self

    def entry_for(self, model: str, task: str, intervention: str) -> SelectionEntry | None:
        """The selection for a cell: one that names the intervention goes before one that names none."""
        found = [each for each in self.selections if (each.model, each.task) == (model, task)]
        fitting = [each for each in found if each.intervention in (intervention, None)]
        return min(fitting, key=lambda each: each.intervention is None, default=None)


@dataclass(frozen=True)
class Folder:
    """A submission on disk whose files were all checked."""

    root: Path
    submission: Submission
    files: tuple[str, ...]

    def path(self, name: str) -> Path:
        return self.root / name

    @property
    def selector_path(self) -> Path | None:
        name = self.submission.selector
        return None if name is None else self.root / name

    @cached_property
    def has_results(self) -> bool:
        """Whether the authors' own records are with it."""
        return any(name.startswith(f"{RESULTS}/records/") for name in self.files)


def read_folder(root: Path) -> Folder:
    """Read and check a submission's folder; no code in it is run.

    Raises `SubmissionError` for what may not be in a submission, `TaskFileError` for what its YAML lacks.
    """
    if not (root / CARD).is_file() or (root / CARD).is_symlink():
        raise SubmissionError(
            f"{root} is no submission: it has no file {CARD}",
            hint="python harness.py new selector NAME writes one",
        )
    files = tuple(sorted(_files(root)))
    submission = read_card(root / CARD)
    for name in [*(entry.file for entry in submission.selections), submission.selector]:
        if name is not None and name not in files:
            raise SubmissionError(f"{root / CARD}: there is no file {name}{suggest(name, files)}")
    named = {entry.file for entry in submission.selections}
    spare = [name for name in files if name.startswith("selections/") and name not in named]
    code = [name for name in files if name.endswith(".py") and not name.startswith("test_")]
    spare += [name for name in code if name != submission.selector]
    if spare:
        raise SubmissionError(
            f"{root}: {spare[0]} belongs to nothing in {CARD}", hint="name it there, or take it out"
        )
    if submission.selector is not None:
        _check_source(root / submission.selector, submission.name)
    return Folder(root, submission, files)


def read_card(path: Path) -> Submission:
    """Read `submission.yaml` alone. Raises `TaskFileError` naming line and key."""
    document = load_alone(path)
    kind = document.data.get("kind")
    if kind != "submission":
        raise TaskFileError(f"{path}: kind: expected 'submission', found {kind!r}")
    return build(Submission, document)


def published_cards(results: Path) -> tuple[dict[str, Submission], list[tuple[Path, str]]]:
    """The cards below a results folder by their method's name, and those that cannot be trusted, with the
    reason."""
    cards: dict[str, Submission] = {}
    refused: list[tuple[Path, str]] = []
    for path in sorted((results / "submissions").glob(f"*/{CARD}")):
        try:
            card = read_card(path)
        except AffectbenchError as error:
            refused.append((path, error.message))
            continue
        if card.name == path.parent.name:
            cards[card.name] = card
        else:
            refused.append((path, f"its folder is not named {card.name}, like the method"))
    return cards, refused


def allowed(name: str) -> str:
    """`name` if a submission may hold a file of that path. Raises `SubmissionError` with the reason."""
    if ALLOWED.fullmatch(name) and ".." not in name.split("/"):
        return name
    shown = name[:80]
    if name.lower().endswith(_PICKLED):
        raise SubmissionError(
            f"{shown!r}: pickled and compiled files are never read",
            hint="selections are safetensors: affectbench.selector.Selection.save writes them",
        )
    raise SubmissionError(
        f"{shown!r} may not be in a submission",
        hint=f"it holds {CARD}, selections/*.safetensors or one selector file, a README.md, and {RESULTS}/",
    )


def copy_folder(source: Path, target: Path) -> None:
    """Copy what a submission may hold and nothing else: no cache that Python would run instead."""
    for name in _files(source):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, place, follow_symlinks=False)


def _files(root: Path) -> Iterator[str]:
    """Paths of a folder's files below it, hidden files and Python's caches left out; all are checked."""
    total = 0
    for count, path in enumerate(_walk(root), start=1):
        name = path.relative_to(root).as_posix()
        if count > MAX_FILES:
            raise SubmissionError(f"{root}: more than {MAX_FILES} files", hint="a submission is small")
        size = path.stat().st_size
        total += size
        if size > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES:
            raise SubmissionError(
                f"{name}: {size} bytes, {total} with those before it",
                hint=f"at most {MAX_FILE_BYTES} bytes a file and {MAX_TOTAL_BYTES} in all",
            )
        yield allowed(name)


def _walk(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if _PASSING.search(name):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise SubmissionError(f"{name}: a link or a special file", hint="put the file itself there")
        if path.is_file():
            yield path


def _check_source(path: Path, name: str) -> None:
    """The one class of a selector file has the method's name. The file is parsed, not run."""
    declared: Any = [cls.name for cls in outline(path).classes if cls.methods & {"scores", "select"}]
    if declared != [name]:
        raise SubmissionError(
            f"{path}: expected one class with `name = {name!r}` and a method `scores` or `select`, "
            f"found {', '.join(map(repr, declared)) or 'none'}"
        )
