"""Conformance: what every wrapper must keep, on a tiny instance of the real class or on a checkpoint.

`CHECKS` lists all of it in the order in which it is run; `subject` loads what is examined; `outcome` makes
one check; `verify` makes all and returns the report.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from affectbench import (
    __version__,
    conformance_answers,
    conformance_audio,
    conformance_peers,
    conformance_runs,
    conformance_sites,
    conformance_stream,
)
from affectbench.conformance_report import Conformance, Outcome
from affectbench.conformance_subject import Check, Subject, examine
from affectbench.content import source_digest
from affectbench.errors import AffectbenchError
from affectbench.hub import commit_of, snapshot
from affectbench.memory import peak_memory_mib
from affectbench.model import Model
from affectbench.model_loading import load_from, weights_digest
from affectbench.placement import library_versions
from affectbench.plan import card_of, checkpoint_of
from affectbench.record import now_iso
from affectbench.registry import Registry
from affectbench.sites import SiteShape
from affectbench.task import ModelCard, load_as
from affectbench.yaml_loading import suggest

__all__ = ["CHECKS", "Check", "Outcome", "Subject", "Target", "outcome", "subject", "target", "verify"]

CHECKS: tuple[Check, ...] = (
    *conformance_sites.CHECKS,
    *conformance_answers.CHECKS,
    *conformance_stream.CHECKS,
    *conformance_audio.CHECKS,
    *conformance_runs.CHECKS,
    *conformance_peers.CHECKS,
)
"""Every check, each after those that are told apart by it."""
TINY = "(a tiny instance)"


@dataclass(frozen=True)
class Target:
    """What is examined: a card, and the checkpoint it is loaded from; None for a tiny instance of
    `architecture`, made by the family from `seed`."""

    card: ModelCard
    source: str | None
    architecture: str | None = None
    seed: int = 0


def target(
    registry: Registry,
    name: str,
    *,
    checkpoint: bool = False,
    architecture: str | None = None,
    seed: int = 0,
    trust_code: bool = False,
) -> Target:
    """What `name` stands for: a card, a card's file, a family, the folder of a checkpoint, or a hub id.

    A card stands for a tiny instance of its class, with `checkpoint` for its weights. With `trust_code` the
    code that comes with a checkpoint is run. Raises `AffectbenchError` where there is no such thing.
    """
    path = Path(name).expanduser()
    families = {entry.name for entry in registry.entries("family")}
    cards = {entry.name for entry in registry.entries("model")}
    if path.suffix == ".yaml" and path.is_file():
        card = load_as(path, ModelCard)
    elif name in families and name not in cards:
        card = _family_card(registry, name)
    elif name in cards or not (path.is_dir() or "/" in name):
        if name not in cards:
            known = {*families, *cards}
            raise AffectbenchError(
                f"there is no model or family {name!r}{suggest(name, known)}",
                hint=f"known: {', '.join(sorted(known))}; or give a card's file, or a checkpoint's folder",
            )
        card = registry.model(name)
    else:
        card, checkpoint = card_of(registry, name), True
    card = card.trust() if trust_code else card
    if checkpoint:
        if architecture is not None:
            raise AffectbenchError("--architecture is of a tiny instance", hint="leave out --checkpoint")
        if card.checkpoint == TINY:
            raise AffectbenchError(f"{name} is a family, not a checkpoint", hint="give a card or a folder")
        if not card.pinned:
            card = card.model_copy(update={"revision": commit_of(card.checkpoint, card.revision)})
        return Target(card, checkpoint_of(card))
    return Target(card, None, architecture or card.architecture or _class_in(card), seed)


def _family_card(registry: Registry, name: str) -> ModelCard:
    hears = "audio" in registry.family(name).modalities  # type: ignore[attr-defined]
    return ModelCard(
        kind="model", name=name.replace("_", "-"), version=1, family=name, checkpoint=TINY,
        modality="audio" if hears else "text", licence="not stated",
    )  # fmt: skip


def _class_in(card: ModelCard) -> str | None:
    """The class that a card's checkpoint says it is of, where its config is at hand."""
    config = None if card.folder is None else card.folder / "config.json"
    if config is None or not config.is_file():
        return None
    named = json.loads(config.read_text(encoding="utf-8")).get("architectures") or [None]
    return str(named[0]) if named[0] else None


@contextmanager
def subject(registry: Registry, what: Target, device: str = "cpu") -> Iterator[Subject]:
    """A loaded model, ready to be examined; a tiny instance lies in a folder for as long as the block runs.

    Raises `AffectbenchError` where the family cannot make or load it.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    card = what.card
    with tempfile.TemporaryDirectory(prefix="affectbench-tiny-") as scratch:
        source = what.source
        if source is None:
            # Full precision tells a mistake from rounding; there is nothing to spread.
            card = card.model_copy(update={"dtype": "float32", "device_map": None, "adapter": None})
            family: Any = registry.family(what.card.family)
            _check_said(what, family)
            family.write_tiny(Path(scratch), architecture=what.architecture, seed=what.seed)
            source = scratch

        def load(folder: Path) -> Model:
            return load_from(registry, card, str(folder), device)

        model = load_from(registry, card, source, device)
        folder = Path(source) if Path(source).is_dir() else snapshot(source, card.revision)
        # With an adapter merged in, the model is another than the one in the folder.
        yield Subject(model, load, folder if card.adapter is None else None)


def _check_said(what: Target, family: Any) -> None:
    """Raise where a family reads many classes and the card does not say which one its checkpoint is of."""
    if what.architecture is None and len(family.architectures) > 1 and what.card.checkpoint != TINY:
        raise AffectbenchError(
            f"family {family.name!r} reads several classes, and model {what.card.name} does not say which",
            hint="add `architecture` to its card, as config.json has it, or give --architecture; known: "
            f"{', '.join(family.architectures)}",
        )


def outcome(subject: Subject, check: Check) -> Outcome:
    """One check of a subject, after those that it needs; each is made once."""
    return examine(check, subject, CHECKS)


def chosen(names: Sequence[str]) -> tuple[Check, ...]:
    """The checks of these ids; all, where none is named. Raises `AffectbenchError` for an unknown one."""
    known = {check.id: check for check in CHECKS}
    for name in names:
        if name not in known:
            raise AffectbenchError(
                f"there is no check {name!r}{suggest(name, known)}", hint=f"checks: {', '.join(known)}"
            )
    return tuple(check for check in CHECKS if not names or check.id in names)


def verify(
    registry: Registry,
    what: Target,
    *,
    device: str = "cpu",
    only: Sequence[str] = (),
    progress: Callable[[Check], None] | None = None,
) -> Conformance:
    """Make the checks (those named in `only`, or all) and report. `progress` hears of each before it is made.

    Raises `AffectbenchError` where there is no model to examine: a failed check is in the report.
    """
    wanted, started = chosen(only), time.perf_counter()
    with subject(registry, what, device) as examined:
        outcomes = []
        for check in wanted:
            if progress is not None:
                progress(check)
            outcomes.append(outcome(examined, check))
        return _report(registry, what, examined, outcomes, device, time.perf_counter() - started)


def _report(
    registry: Registry, what: Target, examined: Subject, outcomes: list[Outcome], device: str, seconds: float
) -> Conformance:
    model, card = examined.model, what.card
    gpu = device.startswith("cuda")
    chip = torch.cuda.get_device_name(device) if gpu else torch.backends.cpu.get_cpu_capability()
    peak = examined.device_peak() / 2**20 if gpu else peak_memory_mib()
    shape: SiteShape | None = None
    with suppress(Exception):  # What is wrong with it is in the outcome of `sites`.
        shape = model.shape
    local = what.source is None or Path(what.source).is_dir()
    named = f"{what.source} {card.revision}"
    return Conformance(
        model=card.name,
        version=card.version,
        card=card.digest,
        family=card.family,
        family_source=source_digest(registry.find("family", card.family).path),
        architecture=type(model.network).__name__,
        instance="tiny" if what.source is None else "checkpoint",
        weights=weights_digest(model.card, what.source or str(examined.folder)) if local else named,
        seed=what.seed,
        dtype=str(model.dtype).removeprefix("torch."),
        device=device,
        hardware=f"{platform.machine()} {chip}, {torch.get_num_threads()} threads",
        versions={"affectbench": __version__, "python": platform.python_version(), **_versions()},
        n_layers=shape.layers if shape else None,
        width=shape.width if shape else None,
        n_parameters=model.parameters,
        date=now_iso(),
        seconds=round(seconds, 1),
        peak_memory_mib=round(peak, 1),
        checks=outcomes,
    )


def _versions() -> dict[str, str]:
    """Of the libraries that compute, and of the tools that were compared with, where there are any."""
    compared = {name: version(name) for name in ("nnsight", "pyvene") if find_spec(name) is not None}
    return {**library_versions(), **compared}
