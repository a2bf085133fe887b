"""Files by a pattern with cells: ``sub-{subject}/run-{run}.edf``."""

from __future__ import annotations

import re
from pathlib import Path

from affectbench.errors import AffectbenchError

CELL = r"\{(subject|session|run|segment)\}"
ESCAPED = r"\\\{(subject|session|run|segment)\\\}"
"""A cell after `re.escape`."""


def matching(root: Path, pattern: str) -> list[tuple[dict[str, str], Path]]:
    """Files below `root` that match a pattern, by path, each with what its cells are.

    A cell holds no slash; one that comes twice is the same both times. Raises `AffectbenchError` where no
    file matches.
    """
    known: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in known:
            return f"(?P={name})"
        known.add(name)
        return f"(?P<{name}>[^/]+?)"

    expression = re.compile(re.sub(ESCAPED, group, re.escape(pattern)))
    found = []
    for path in sorted(root.glob(re.sub(CELL, "*", pattern))):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match is not None:
            found.append((match.groupdict(), path))
    if not found:
        raise AffectbenchError(f"{root} has no file like {pattern}")
    return found
