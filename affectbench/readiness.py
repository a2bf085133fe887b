"""Which models can run on this machine, and what to do about those that cannot. Nothing is loaded."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from affectbench.errors import AffectbenchError
from affectbench.hub import accept, commit_of, complete, reachable, signed_in, snapshot, stored_bytes
from affectbench.model_card import ModelCard
from affectbench.registry import Registry

GIB = 1 << 30
BESIDES = 2 * GIB
"""What a process takes beside weights: libraries, activations, statistics; `run --plan` counts exactly."""
SHARE = 1.1
NOT_PINNED = "revision not pinned"


@dataclass(frozen=True)
class Machine:
    """Bytes of memory (None where it cannot be told) and of each GPU."""

    memory: int | None
    gpus: tuple[int, ...]

    @classmethod
    def here(cls) -> Machine:
        return cls(_memory(), _gpus())

    @cached_property
    def hub(self) -> bool:
        """Whether the hub answers; asked once, and only if somebody wants to know."""
        return reachable()


@dataclass(frozen=True)
class Obstacle:
    """Why a model cannot run here, and what to do about it."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class Readiness:
    """What stands in a model's way, where it would run (empty where nobody can tell), what else to know, and
    the bytes of memory that it needs."""

    obstacles: tuple[Obstacle, ...]
    place: str
    notes: tuple[str, ...]
    memory: int | None

    @property
    def word(self) -> str:
        """One phrase for a table."""
        return "no" if self.obstacles else ", ".join(filter(None, ("yes", self.place)))

    @property
    def lines(self) -> list[str]:
        """Everything there is to say, one thing a line."""
        return [f"{each.reason}: {each.remedy}" for each in self.obstacles] + list(self.notes)


def readiness(card: ModelCard, machine: Machine) -> Readiness:
    """Whether `card` can run on `machine`."""
    folder = snapshot(card.checkpoint, card.revision) if card.on_hub else card.folder
    if folder is not None and not complete(folder):
        folder = None
    notes = [] if card.pinned else [f"{NOT_PINNED}: python harness.py pin {card.name}"]
    found = [] if folder is not None else _weights(card, machine, notes)
    found += _packages(card)
    place = _place(card, folder, machine, found)
    if card.remote_code:
        notes.append("comes with code of its own: read it, then run with --trust-code")
    return Readiness(tuple(found), place, tuple(notes), memory_needed(card, folder))


def memory_needed(card: ModelCard, folder: Path | None) -> int | None:
    """Bytes that a model takes: its weights, and a share and a fixed part for all else. None if unknown."""
    weights = card.weight_bytes or (stored_bytes(folder) if folder is not None else 0)
    return int(weights * SHARE) + BESIDES if weights else None


def _weights(card: ModelCard, machine: Machine, notes: list[str]) -> list[Obstacle]:
    """What is in the way of having a checkpoint that is not here; that it will be fetched goes to `notes`."""
    if not card.on_hub:
        where = card.folder or card.checkpoint
        remedy = f"rebuild a reference model (harness.py rebuild {card.name}), or correct the card"
        return [Obstacle(f"no weights in {where}", remedy)]
    found = []
    if card.gated and not signed_in():
        holder = card.gated if isinstance(card.gated, str) else card.checkpoint
        found.append(Obstacle("its licence has to be accepted", accept(holder)))
    size = card.weight_bytes
    free = shutil.disk_usage(_existing(Path.home())).free
    if not machine.hub:
        remedy = "connect (and unset HF_HUB_OFFLINE), or name a folder in the card"
        found.append(Obstacle("not downloaded, and the hub does not answer", remedy))
    elif size is not None and size > free:
        told = f"{gib(size)} to download, {gib(free)} of disk free"
        found.append(Obstacle(told, "set HF_HOME to a folder on a larger disk"))
    elif not found:
        notes.append("will be downloaded at the first run" + (f": about {gib(size)}" if size else ""))
    return found


def _packages(card: ModelCard) -> list[Obstacle]:
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for text in card.requires:
        try:
            wanted = Requirement(text)
            here = version(wanted.name)
        except InvalidRequirement:
            found.append(Obstacle(f"requires {text!r}, which is no requirement", "correct the card"))
        except PackageNotFoundError:
            if find_spec(wanted.name.replace("-", "_")) is not None:
                continue  # Some are called otherwise where they are distributed.
            found.append(Obstacle(f"needs the package {text}", f"pip install '{text}'"))
        else:
            if not wanted.specifier.contains(here, prereleases=True):
                found.append(Obstacle(f"needs {text}, {here} is installed", f"pip install '{text}'"))
    return found


def _place(card: ModelCard, folder: Path | None, machine: Machine, found: list[Obstacle]) -> str:
    """Where a model fits; where nowhere, why goes to `found`."""
    need = memory_needed(card, folder)
    if need is None:
        return ""
    if any(gpu >= need for gpu in machine.gpus):
        return "GPU"
    if sum(machine.gpus) >= need:
        return "several GPUs (--device-map auto)"
    if machine.memory is None or machine.memory >= need:
        return "CPU"
    has = gib(machine.memory)
    gpus = f", GPUs: {', '.join(map(gib, machine.gpus))}" if machine.gpus else ", no GPU"
    found.append(
        Obstacle(
            f"needs {gib(need)}, this machine has {has} of memory{gpus}",
            f"a GPU of {gib(need)}, or --device-map auto with an offload_folder in a card (slow)",
        )
    )
    return ""


def _memory() -> int | None:
    """Bytes of memory that this process may use."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total


def _gpus() -> tuple[int, ...]:
    """Bytes of each GPU, as the driver's own program tells: importing torch would take seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(found) << 20 for found in re.findall(r"^\s*(\d+)\s*$", told, re.MULTILINE))


def _existing(path: Path) -> Path:
    return path if path.exists() else Path.cwd()


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def print_pins(
    console: Console,
    models: Sequence[str],
    include: Sequence[Path],
    commit: Callable[[str, str | None], str] = commit_of,
) -> None:
    """Print the line that pins each card's revision. Raises `AffectbenchError` where one cannot be pinned."""
    registry = Registry(include)
    cards = [registry.model(name) for name in models or [each.name for each in registry.entries("model")]]
    failed = []
    for card in cards:
        if card.pinned and not models:
            continue
        if card.pinned:
            console.print(escape(f"{card.name}: pinned already ({card.revision or 'a local folder'})"))
            continue
        try:
            found = commit(card.checkpoint, card.revision)
        except AffectbenchError as error:
            failed.append(f"{card.name}: {error}")
            continue
        console.print(escape(f"{card.path}:"), highlight=False, soft_wrap=True)
        console.print(f"revision: {found}", highlight=False, soft_wrap=True)
    if failed:
        raise AffectbenchError("\n".join(failed))
