"""Where content lives, and how its Python files are loaded: by path, under a private prefix."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from affectbench.errors import AffectbenchError

PREFIX = "_affectbench_content"
CONTENT_FOLDERS = ("tasks", "models", "selectors")


class RegistryError(AffectbenchError):
    """Content that is asked for does not exist, exists twice, or does not hold what it must."""


def builtin_root() -> Path:
    """The folder that holds tasks/, models/, selectors/ and leaderboard/.

    Inside the package for an installed wheel, the repository's root for a checkout.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_content", package.parent):
        if all((root / folder).is_dir() for folder in CONTENT_FOLDERS):
            return root
    raise RegistryError(
        f"built-in tasks, models and selectors are neither in {package / '_content'} nor in {package.parent}",
        hint="reinstall affectbench, or run it from a complete checkout",
    )


def source_digest(path: Path) -> str:
    """sha256 of a file's bytes, 16 hex: the identity of a selector's code."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class ClassOutline:
    """A class of a Python file that declares ``name = "..."``, read without running the file. `sites`: what
    it declares under that name, a tuple of texts; None where it declares none."""

    class_name: str
    name: str
    methods: frozenset[str]
    sites: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SourceOutline:
    """First line of a Python file's docstring, and its named classes."""

    summary: str
    classes: tuple[ClassOutline, ...]


def outline(path: Path) -> SourceOutline:
    """Read a Python file without importing it. Raises `RegistryError` where it does not parse."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise RegistryError(f"{path}:{line}: not valid Python: {error}") from error
    lines = (ast.get_docstring(tree) or "").strip().splitlines()
    found = [_class_outline(node, path) for node in tree.body if isinstance(node, ast.ClassDef)]
    return SourceOutline(lines[0] if lines else "", tuple(known for known in found if known is not None))


def _class_outline(node: ast.ClassDef, path: Path) -> ClassOutline | None:
    methods = frozenset(
        item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    name, sites = _declared(node, "name"), _declared(node, "sites")
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
        return None
    return ClassOutline(node.name, name.value, methods, None if sites is None else _texts(sites, path))


def _declared(node: ast.ClassDef, name: str) -> ast.expr | None:
    """What a class body assigns to `name`."""
    for item in node.body:
        if isinstance(item, ast.Assign):
            targets = item.targets
        elif isinstance(item, ast.AnnAssign):
            targets = [item.target]
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return item.value
    return None


def _texts(value: ast.expr, path: Path) -> tuple[str, ...]:
    """A tuple of texts that stands in the source as such."""
    try:
        found = ast.literal_eval(value)
    except ValueError:
        found = None
    if not isinstance(found, tuple) or not found or not all(isinstance(text, str) for text in found):
        raise RegistryError(
            f"{path}:{value.lineno}: `sites` is not a tuple of texts",
            hint='the file is read without being run: write it out, such as ("head", "residual")',
        )
    return found


def load_module(kind: str, name: str, path: Path) -> ModuleType:
    """Import a content file once, as ``_affectbench_content.<kind>.<name>``.

    Raises `RegistryError`, with the original as its cause, where the file itself fails.
    """
    full_name = f"{PREFIX}.{kind}.{name}"
    loaded = sys.modules.get(full_name)
    if loaded is not None and Path(str(loaded.__file__)) == path:
        return loaded
    spec = importlib.util.spec_from_file_location(full_name, path)
    if spec is None or spec.loader is None:
        raise RegistryError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # Running somebody's file may raise anything; it is named, never hidden.
        del sys.modules[full_name]
        problem = f"{type(error).__name__}: {error}"
        raise RegistryError(f"{path}: {kind} {name!r} could not be imported: {problem}") from error
    return module


def pick_class(holder: ModuleType | type, kind: str, name: str, method: str, where: str) -> type:
    """The one class of a module whose `name` is `name` and which has `method`. Raises `RegistryError`."""
    if isinstance(holder, type):
        classes = [holder]
    else:
        classes = [
            value
            for value in vars(holder).values()
            if isinstance(value, type) and value.__module__ == holder.__name__ and hasattr(value, "name")
        ]
    fitting = [cls for cls in classes if callable(getattr(cls, method, None))]
    if len(fitting) != 1:
        found = ", ".join(cls.__name__ for cls in fitting) or "none"
        raise RegistryError(
            f"{where}: expected exactly one class with a `name` and a method `{method}`, found {found}",
            hint=f"a {kind} is one file with one such class",
        )
    declared = getattr(fitting[0], "name", None)
    if declared != name:
        raise RegistryError(
            f"{where}: class {fitting[0].__name__} has the name {declared!r}, expected {name!r}",
            hint=f'set `name = "{name}"`, or rename the file',
        )
    return fitting[0]


def locate_module(dotted: str) -> ModuleSpec:
    """Find an installed module without importing it or its parents. Raises `RegistryError`."""
    top, *rest = dotted.split(".")
    spec = importlib.util.find_spec(top)
    for count, _ in enumerate(rest, start=2):
        if spec is None or spec.submodule_search_locations is None:
            break
        folders: Sequence[str] = list(spec.submodule_search_locations)
        spec = PathFinder.find_spec(".".join(dotted.split(".")[:count]), folders)
    if spec is None or spec.name != dotted:
        raise RegistryError(
            f"module {dotted} is not installed", hint="reinstall the package that announces it"
        )
    return spec
