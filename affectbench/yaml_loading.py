"""Reading of task YAML: plain data with the file and line of every key, includes resolved, nothing executed.

Stricter than `yaml.safe_load`: a key given twice, a merge key (``<<``), an alias that refers to itself or
expands without bound, and anything but mappings at the top are errors that name file and line.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from affectbench.errors import AffectbenchError

Place = tuple[str | int, ...]
INCLUDE = "include"
MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_FILES = 32
MAX_PROBLEMS = 8

M = TypeVar("M", bound=BaseModel)


class TaskFileError(AffectbenchError):
    """A task, model card or suite file cannot be read or does not say what it must.

    The message starts with ``file:line: key:`` wherever the problem has a place.
    """


@dataclass(frozen=True)
class Mark:
    """Where a key was written: its file and line (from 1)."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass
class Document:
    """Plain data of one YAML file with its includes merged in, and the mark of every key in it."""

    path: Path
    data: dict[str, Any]
    marks: dict[Place, Mark] = field(default_factory=dict)

    def mark(self, place: Place) -> Mark:
        """The mark of `place`, or of the nearest thing above it that was written down."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.marks:
                return self.marks[place[:length]]
        return Mark(self.path, 1)


def suggest(wrong: object, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name nearest to `wrong`, or an empty string."""
    close = difflib.get_close_matches(str(wrong).lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def load_document(path: Path) -> Document:
    """Read `path` and the files it includes. Raises `TaskFileError`."""
    return _load(path, (), [0])


def load_alone(path: Path) -> Document:
    """Read `path` and no other file: `include` is a key like any other. Raises `TaskFileError`."""
    return _Reader(path).read()


def reject(key: str | Place, problem: str) -> NoReturn:
    """Fail a pydantic validator at `key`, below the place being validated ("" for that place itself)."""
    place = (key,) if isinstance(key, str) and key else tuple(key)
    raise PydanticCustomError("affectbench", "{problem}", {"problem": problem, "place": place})


def build(model: type[M], document: Document) -> M:
    """Validate a document as `model`. Raises `TaskFileError` naming the place of every problem."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems = [_describe(document, details) for details in _causes(error.errors(include_url=False))]
        shown = problems[:MAX_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more problems")
        raise TaskFileError("\n".join(shown)) from error


def _causes(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without lists that are too short only because their items are wrong."""
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(other["loc"][:-1] == problem["loc"] for other in problems if other is not problem)
    ]


def _describe(document: Document, details: ErrorDetails) -> str:
    context = details.get("ctx") or {}
    place, value = _place(document.data, details["loc"])
    if details["type"] == "missing":
        return f"{document.mark(place)}: {_dotted(place, details['loc'][-1])}: missing; it is required"
    if details["type"] == "affectbench":
        place = (*place, *context["place"])
        return f"{document.mark(place)}: {_dotted(place)}: {context['problem']}"
    if details["type"] == "union_tag_not_found":
        return f"{document.mark(place)}: {_dotted(place)}: the key {context['discriminator']} is missing"
    if details["type"] == "union_tag_invalid":
        place = (*place, str(context["discriminator"]).strip("'"))
        value, expected = context["tag"], str(context["expected_tags"])
        problem = f"expected one of {expected}, found {value!r}{suggest(value, _quoted(expected))}"
    elif details["type"] in ("literal_error", "enum"):
        expected = str(context["expected"])
        problem = f"expected {expected}, found {value!r}{suggest(value, _quoted(expected))}"
    else:
        problem = f"{details['msg'].replace('Input should be', 'expected')}, found {_shown(value)}"
        if isinstance(value, bool) and details["type"] == "string_type":
            problem += "; YAML reads this word as true or false: put it in quotes"
    return f"{document.mark(place)}: {_dotted(place)}: {problem}"


def _place(data: Any, location: tuple[int | str, ...]) -> tuple[Place, Any]:
    """Where in the data an error sits: union tags and markers that are no keys are skipped."""
    place: list[str | int] = []
    for step in location:
        known = step in data if isinstance(data, dict) else isinstance(data, list) and isinstance(step, int)
        if known:
            data = data[step]
            place.append(step)
    return tuple(place), data


def _dotted(place: Place, *more: str | int) -> str:
    return ".".join(str(step) for step in (*place, *more)) or "top level"


def _quoted(expected: str) -> list[str]:
    return expected.split("'")[1::2]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _load(path: Path, above: tuple[Path, ...], n_files: list[int]) -> Document:
    resolved = path.resolve()
    if resolved in above:
        chain = " -> ".join(file.name for file in (*above[above.index(resolved) :], resolved))
        raise TaskFileError(f"{path}: include goes round in a circle: {chain}", hint="remove one of them")
    n_files[0] += 1
    if n_files[0] > MAX_FILES:
        raise TaskFileError(f"{path}: more than {MAX_FILES} files are included", hint="include fewer files")
    document = _Reader(path).read()
    includes = document.data.pop(INCLUDE, None)
    if includes is None:
        return document
    merged = Document(path, {})
    for name in includes if isinstance(includes, list) else [includes]:
        mark = document.mark((INCLUDE,))
        _merge(merged, _load(_included(mark, name), (*above, resolved), n_files))
    _merge(merged, document)
    return merged


def _included(mark: Mark, name: object) -> Path:
    if not isinstance(name, str) or not name:
        raise TaskFileError(f"{mark}: include: expected the relative path of a YAML file, found {name!r}")
    if Path(name).is_absolute():
        raise TaskFileError(
            f"{mark}: include: {name!r} is an absolute path", hint="give it relative to this file"
        )
    path = Path(os.path.normpath(mark.path.parent / name))
    if not path.is_file():
        siblings = [file.name for file in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise TaskFileError(f"{mark}: include: there is no file {path}{suggest(path.name, siblings)}")
    return path


def _merge(base: Document, over: Document) -> None:
    """Lay `over` on `base`: mappings are merged key by key, everything else is replaced."""
    _merge_mapping(base.data, over.data, base.marks, over.marks, ())


def _merge_mapping(
    base: dict[str, Any],
    over: Mapping[str, Any],
    base_marks: dict[Place, Mark],
    over_marks: Mapping[Place, Mark],
    place: Place,
) -> None:
    for key, value in over.items():
        here = (*place, key)
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge_mapping(base[key], value, base_marks, over_marks, here)
        else:
            base[key] = value
            for stale in [old for old in base_marks if old[: len(here)] == here]:
                del base_marks[stale]
            base_marks.update({new: mark for new, mark in over_marks.items() if new[: len(here)] == here})
        base_marks[here] = over_marks[here]


class _Reader:
    """Turns one file into plain data and marks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marks: dict[Place, Mark] = {}
        self.n_nodes = 0

    def read(self) -> Document:
        loader = yaml.SafeLoader(self._text())
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise TaskFileError(f"{self.path}:1: expected keys and values", hint="start with `kind: ...`")
            data = self._mapping(loader, node, (), ())
        except RecursionError as error:
            raise TaskFileError(f"{self.path}: nested too deeply", hint="flatten the file") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 1
            raise TaskFileError(f"{self.path}:{line}: not valid YAML: {error.problem}") from error
        except yaml.YAMLError as error:
            raise TaskFileError(f"{self.path}: not valid YAML: {error}") from error
        finally:
            loader.dispose()
        return Document(self.path, data, self.marks)

    def _text(self) -> str:
        try:
            raw = self.path.read_bytes()
        except OSError as error:
            raise TaskFileError(f"{self.path}: cannot be read: {error.strerror}") from error
        if len(raw) > MAX_BYTES:
            raise TaskFileError(f"{self.path}: {len(raw)} bytes", hint=f"the limit is {MAX_BYTES}")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise TaskFileError(f"{self.path}: not UTF-8 at byte {error.start}") from error

    def _value(
        self, loader: yaml.SafeLoader, node: yaml.Node, place: Place, above: tuple[yaml.Node, ...]
    ) -> Any:
        self.n_nodes += 1
        if self.n_nodes > MAX_NODES or node in above:
            raise TaskFileError(
                f"{self._mark(node)}: aliases expand to more than {MAX_NODES} values or refer to themselves",
                hint="write the values out",
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, place, (*above, node))
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                self.marks[(*place, index)] = self._mark(child)
                items.append(self._value(loader, child, (*place, index), (*above, node)))
            return items
        return loader.construct_object(node)

    def _mapping(
        self, loader: yaml.SafeLoader, node: yaml.MappingNode, place: Place, above: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = self._mark(key_node)
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise TaskFileError(f"{mark}: merge keys (<<) are not read", hint="use `include:`")
            key = loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                written = getattr(key_node, "value", "")
                raise TaskFileError(
                    f"{mark}: key {written!r} is read as {type(key).__name__}, expected text",
                    hint=f'put it in quotes: "{written}"' if isinstance(key_node, yaml.ScalarNode) else None,
                )
            if key in data:
                first = self.marks[(*place, key)].line
                raise TaskFileError(f"{mark}: {key}: given twice, first on line {first}")
            self.marks[(*place, key)] = mark
            data[key] = self._value(loader, value_node, (*place, key), above)
        return data

    def _mark(self, node: yaml.Node) -> Mark:
        return Mark(self.path, node.start_mark.line + 1)
