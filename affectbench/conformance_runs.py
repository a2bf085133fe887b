"""Checks of what a long run depends on: errors leave nothing behind, checkpoints come back, memory stays."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from affectbench.conformance_subject import (
    LABELS,
    PART,
    Check,
    Failed,
    Measured,
    Result,
    Skipped,
    Subject,
    distance,
    same_bits,
)
from affectbench.engine import Engine
from affectbench.intervention import scale
from affectbench.readout import Items, Readout
from affectbench.sites import NEURON

FEW, MANY, ROWS = 5, 100, 2
GROWTH = 1.05
WEIGHTS = (".safetensors", ".bin", ".index.json")


class _Broken(Exception):  # noqa: N818
    """Raised within a forward pass."""


def hooks_gone(subject: Subject) -> Result:
    """A pass under edits that fails in its last layer, for one answer and for a generated one."""
    model, asked = subject.model, subject.readout()
    edit = scale(NEURON, model.shape, np.arange(3), 0.0)
    generating = Readout(LABELS, asked.candidates, 3, lambda _text, _order: 0)
    before, plain = _hooks(model.network), subject.scores([edit])

    def fail(_module: Any, _args: Any) -> None:
        raise _Broken

    for ask in (asked, generating):
        engine = Engine(model)
        engine.predict(subject.items, ask, [scale(NEURON, model.shape, np.arange(2), 0.0)])
        handle = model.layers[-1].register_forward_pre_hook(fail)
        try:
            engine.predict(subject.items, ask, [edit])
        except _Broken:
            pass
        else:
            raise Failed("an error within the model did not reach the caller")
        finally:
            handle.remove()
        left = _hooks(model.network) - before
        if left:
            names = ", ".join(sorted({name for name, _ in left}))
            raise Failed(f"after an exception {len(left)} hooks are left in {names}")
    same_bits(subject.scores([edit]), plain, "scores after an exception")
    return None


def _hooks(network: nn.Module) -> set[tuple[str, int]]:
    """Every hook of every module: the module's name and the hook's identity."""
    return {
        (name, id(hook))
        for name, module in network.named_modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for hook in hooks.values()
    }


def reload(subject: Subject) -> Result:
    """Saved by transformers beside the checkpoint's other files, and loaded by the family again."""
    model = subject.model
    if subject.folder is None or not subject.small:
        raise Skipped("the checkpoint is not in a folder, or too large to be saved a second time")
    if not model.all_of_class:
        raise Skipped(PART)
    edit = scale(NEURON, model.shape, np.arange(3), 0.0)
    expected = subject.scores([edit])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in subject.folder.iterdir():
            if path.is_file() and not path.name.endswith(WEIGHTS):
                shutil.copy(path, folder)
        model.network.save_pretrained(folder)
        again = subject.load(folder)
        if again.shape != model.shape:
            raise Failed(f"loaded again it has {again.shape}, before {model.shape}")
        other = replace(subject, model=again, folder=folder, outcomes={})
        for one, two in zip(other.items.items, subject.items.items, strict=True):
            if one.ids.tolist() != two.ids.tolist():
                raise Failed(f"{one.id}: loaded again, its prompt has other tokens")
        found = other.scores([edit])
    return Measured(distance(found, expected), subject.tolerance, "scores before and after")


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations made and that are still there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self._hold(leaf.untyped_storage())
        return found

    def _hold(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place not in self._known:
            self._known.add(place)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, place, storage.nbytes())

    def _drop(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.live -= size


def memory(subject: Subject) -> Result:
    """Peak bytes over 100 batches of one shape, against those over 5."""
    few, many = (_peak(subject, batches) for batches in (FEW, MANY))
    note = f"peak over {MANY} batches, {many / 2**20:.3g} MiB, above that over {FEW}"
    return Measured(many / few - 1, GROWTH - 1, note)


def _peak(subject: Subject, batches: int) -> int:
    """Bytes allocated at once, at most, while so many batches of two items are answered under an edit."""
    model, asked = subject.model, subject.readout()
    one = next(item for item in subject.items.items if item.audio is None)
    made = tuple(replace(one, id=f"{batches}-{place:04d}") for place in range(ROWS * batches))
    data = Items("test", made, np.zeros(len(made), dtype=np.int64), tuple(map(str, range(len(made)))))
    edits = [scale(NEURON, model.shape, np.arange(4), 0.0)]
    engine = Engine(model)
    engine.predict(subject.some([1]), asked, edits)
    engine.tokens = ROWS * len(one)
    _ = data.digest  # The items themselves are not what is measured.
    if model.device.type == "cuda":
        subject.device_peak()
        torch.cuda.reset_peak_memory_stats(model.device)
        held = torch.cuda.memory_allocated(model.device)
        engine.predict(data, asked, edits)
        return int(torch.cuda.max_memory_allocated(model.device) - held)
    with Allocated() as allocated:
        engine.predict(data, asked, edits)
    return int(allocated.peak)


CHECKS = (
    Check(
        "hooks_gone", "Hooks are gone after an exception",
        "After an error within a pass under edits no hook is left, and answers have the bits they had.",
        "whatever the wrapper registers or replaces: undo it in `finally`", hooks_gone, ("sites", "forward"),
    ),
    Check(
        "reload", "Saved and loaded again",
        "A checkpoint that is saved and loaded by the family gives the same answers.",
        "`load`: what it sets beside what is in the folder", reload, ("sites", "wrapped", "forward"),
    ),
    Check(
        "memory", "Memory over 100 batches",
        "What is held at once does not grow with the number of batches.",
        "what `collate`, `decode` and `logits` keep", memory, ("sites", "forward"),
    ),
)  # fmt: skip
