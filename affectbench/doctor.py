"""What `doctor` prints: is everything in place on this machine?"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from affectbench import __version__
from affectbench.content import builtin_root
from affectbench.dataset import DATA_VARIABLE
from affectbench.readiness import Machine, readiness
from affectbench.registry import Registry

LIBRARIES = (
    "torch",
    "transformers",
    "lm_eval",
    "datasets",
    "evaluate",
    "librosa",
    "numpy",
    "pydantic",
    "safetensors",
)


def examine(console: Console) -> None:
    """Print one line for each thing that a run depends on."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for mark, what, found in [*_software(), *_hardware(), *_content()]:
        table.add_row("[green]ok[/]" if mark else "[yellow]look[/]", what, found)
    console.print(table)


def _software() -> list[tuple[bool, str, str]]:
    lines = [(True, "affectbench", __version__), (True, "python", platform.python_version())]
    for name in LIBRARIES:
        try:
            lines.append((True, name, version(name)))
        except PackageNotFoundError:
            lines.append((False, name, "not installed: pip install affectbench"))
    return lines


def _hardware() -> list[tuple[bool, str, str]]:
    import torch

    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    return [
        (
            True,
            "cores",
            f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads (OMP_WAIT_POLICY {policy})",
        ),
        (True, "GPU", ", ".join(gpus) or "none: run on the CPU"),
        (free > 1, "free disk", f"{free:.1f} GiB"),
    ]


def _content() -> list[tuple[bool, str, str]]:
    registry = Registry()
    data = os.environ.get(DATA_VARIABLE)
    lines = [
        (True, "built-ins", str(builtin_root())),
        (
            data is None or Path(data).is_dir(),
            DATA_VARIABLE,
            data or "not set (needed for corpora of your own)",
        ),
    ]
    machine, hub = Machine.here(), 0
    for entry in registry.entries("model"):
        card = registry.model(entry.name)
        found = readiness(card, machine)
        if card.on_hub:
            hub += 1
        else:
            told = str(card.folder) if not found.obstacles else "; ".join(found.lines)
            lines.append((not found.obstacles, f"model {card.name}", told))
    lines.append((True, "models of the hub", f"{hub}: `list models` says which can run here"))
    return lines
