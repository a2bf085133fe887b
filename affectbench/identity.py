"""Content hashes of files and checkpoints, without loading them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def digest_of(parts: Iterable[str]) -> str:
    """sha256 of strings in order, 16 hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, 16 hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


@cache
def code_digest() -> str:
    """Hash of this package's own code, 16 hex."""
    folder = Path(__file__).parent
    return digest_of(
        f"{path.relative_to(folder)} {file_digest(path)}" for path in sorted(folder.rglob("*.py"))
    )


def checkpoint_digest(folder: Path) -> str:
    """Hash of a checkpoint folder's weights, configuration, tokenizer, known answer and code."""
    names = (
        *("*.safetensors", "*.bin", "*config.json", "tokenizer*", "vocab*", "merges.txt", "*.model"),
        *("special_tokens_map.json", "added_tokens.json", "chat_template*", "planted.json", "*.py"),
    )
    files = sorted({path for name in names for path in folder.glob(name) if path.is_file()})
    return digest_of(part for path in files for part in (path.name, file_digest(path)))
