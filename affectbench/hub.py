"""The model hub, and its cache on this machine: what is here, and which commit a name stands for."""

from __future__ import annotations

import json
import os
import socket
import threading
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from affectbench.errors import AffectbenchError

PATIENCE = 10.0
GLANCE = 1.0
"""Seconds to wait for an answer: where it is needed, and where it is nice to have."""


class HubError(AffectbenchError):
    """The hub cannot be reached, or does not give what was asked for."""


def snapshot(repository: str, revision: str | None) -> Path | None:
    """The folder of the hub's cache that holds a revision (the main branch where None), if there is one."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    named = revision or "main"
    ref = root / "refs" / named
    folder = root / "snapshots" / (ref.read_text().strip() if ref.is_file() else named)
    return folder if folder.is_dir() else None


def complete(folder: Path) -> bool:
    """Whether a checkpoint's configuration and all its weights are in `folder`."""
    if not (folder / "config.json").is_file():
        return False
    for index in folder.glob("*.safetensors.index.json"):
        parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / part).is_file() for part in parts)
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def stored_bytes(folder: Path) -> int:
    """Bytes of the safetensors files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@cache
def commit_of(repository: str, revision: str | None) -> str:
    """The commit that a branch (the main one where None) stands for now: the hub is asked; where it cannot be
    reached, the cache. Raises `HubError` where neither says."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    wanted = f"{repository}@{revision or 'main'}"
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        found = HfApi().model_info(repository, revision=revision, timeout=PATIENCE).sha
        if found:
            return found
        problem = "it names no commit"
    except GatedRepoError as error:
        raise HubError(f"{wanted}: its licence has to be accepted first", hint=accept(repository)) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise HubError(
            f"{wanted}: there is nothing of that name on the hub", hint="check the card"
        ) from error
    except Exception as error:  # Connections fail in ways that differ between versions of the client.
        problem = (str(error) or type(error).__name__).splitlines()[0]
    cached = snapshot(repository, revision)
    if cached is not None:
        return cached.name
    raise HubError(
        f"{wanted}: which commit that is cannot be told: {problem}",
        hint="connect to the hub, write a commit into the card (`revision:`), or give a folder",
    )


def accept(repository: str) -> str:
    """How to get a checkpoint whose licence has to be accepted."""
    return f"accept the licence at https://huggingface.co/{repository}, then: hf auth login"


def signed_in() -> bool:
    """Whether this machine has a hub token; it is not read."""
    from huggingface_hub import constants

    return any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")) or (
        Path(constants.HF_TOKEN_PATH).is_file()
    )


def reachable() -> bool:
    """Whether the hub answers within a second. Behind a proxy it is taken for granted."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlsplit(constants.ENDPOINT)
    place = (address.hostname or "", address.port or (80 if address.scheme == "http" else 443))
    answered = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection(place, timeout=GLANCE).close()
            answered.set()
        except OSError:
            pass

    # Looking up the name has no time limit of its own, so nobody waits for it.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(GLANCE)
    return answered.is_set()
