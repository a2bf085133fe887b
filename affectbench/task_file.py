"""What all files of content share: a name, a version, the file they came from, and a content hash."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import PrivateAttr

from affectbench.task_parts import Count, Frozen, Name

PROSE = {"title", "description", "licence", "citation", "obtain", "protocol", "label_notes"}
Modality = Literal["text", "audio"]


class TaskFile(Frozen):
    """What all four kinds share. `name` equals the file's stem; a changed `digest` needs a new `version`."""

    digest_without: ClassVar[frozenset[str]] = frozenset()
    """Keys that cannot change a number, beside `PROSE`."""

    name: Name
    version: Count
    title: str = ""
    description: str = ""

    _path: Path | None = PrivateAttr(default=None)
    _files: dict[str, Path] = PrivateAttr(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The file this was read from; None for an object made in Python."""
        return self._path

    def file(self, name: str) -> Path:
        """The file that a key of this object names, resolved against the YAML file that holds the key."""
        return self._files.get(name, Path(name))

    @cached_property
    def digest(self) -> str:
        """Content hash, 16 hex."""
        content = self.model_dump(mode="json", exclude=PROSE | self.digest_without)
        content["files"] = {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(self._files.items())
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
