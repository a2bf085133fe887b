"""What a forward pass need not compute, left out: layers below a prefix, and columns that nobody reads.

The model's own forward stays in charge of masks, positions and caches; single modules get another `forward`
for the length of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from affectbench.batch import Batch, Prefix, Watched
from affectbench.intervention import ANSWER, ROLE_BIT, VALID, Intervention

if TYPE_CHECKING:
    from affectbench.model import Model

Forward = Callable[..., Any]


@contextmanager
def replaced(forwards: Sequence[tuple[Any, Forward]]) -> Iterator[None]:
    """Give modules another forward; what stood there before (accelerate's own, or nothing) comes back."""
    before: list[tuple[Any, Forward | None]] = []
    try:
        for module, forward in forwards:
            before.append((module, vars(module).get("forward")))
            module.forward = forward
        yield
    finally:
        for module, forward in reversed(before):
            if forward is None:
                vars(module).pop("forward", None)
            else:
                module.forward = forward


def shortcuts(model: Model, prefix: Prefix | None, last: int | None) -> list[tuple[Any, Forward]]:
    """Modules and the forwards that leave out the layers below `prefix` and all but the `last` columns."""
    found: list[tuple[Any, Forward]] = []
    final = model.layers[-1]
    forward: Forward = final.forward
    ended = prefix is not None and prefix.layer == len(model.layers)
    if last is not None and not ended:
        if model.trimmable:
            forward = last_columns(forward, last)
        else:
            mlp = model.mlp(len(model.layers) - 1)
            found.append((mlp, _last_columns_of_mlp(mlp.forward, last)))
    if prefix is None:
        return [*found, (final, forward)] if forward != final.forward else found
    skip = _skipping(model.tuple_layers)
    found += [(layer, skip) for layer in model.layers[: prefix.layer]]
    if ended:
        return [*found, (final, _entering(skip, prefix.hidden))]
    entry = model.layers[prefix.layer]
    if entry is final:
        return [*found, (final, _entering(forward, prefix.hidden))]
    return [*found, (entry, _entering(entry.forward, prefix.hidden)), (final, forward)]


def _skipping(tuples: bool) -> Forward:
    def skip(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states,) if tuples else hidden_states

    return skip


def _entering(forward: Forward, hidden: Tensor) -> Forward:
    def entered(_hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        return forward(hidden, *args, **kwargs)

    return entered


def _last_columns_of_mlp(forward: Forward, last: int) -> Forward:
    def shortened(hidden: Tensor) -> Any:
        output = torch.zeros_like(hidden)
        found = forward(hidden[:, -last:].contiguous())
        if isinstance(found, tuple):  # Some mixtures of experts return their routing, too.
            output[:, -last:] = found[0]
            return output, *found[1:]
        output[:, -last:] = found
        return output

    return shortened


def only_at_answer(batch: Batch, interventions: Sequence[Intervention]) -> bool:
    """Whether all that is edited is the last column of the batch, and what is generated after it."""
    edits = [edit for intervention in interventions for edit in intervention.effective]
    only = bool(edits) and all(ROLE_BIT[edit.positions] == ANSWER for edit in edits)
    return only and not bool((batch.roles[:, :-1] & ANSWER).any())


@torch.no_grad()
def answer_column(model: Model, batch: Batch, spent: Callable[[int], None]) -> Batch:
    """The last column of a batch, behind the keys and values of the others: all that is left to run where
    nothing is edited before it."""
    rows, columns = batch.embeds.shape[:2]
    if columns == 1 or batch.branches is not None:
        return batch
    before = Batch(batch.embeds[:, :-1], batch.mask[:, :-1], batch.roles[:, :-1])
    cache = model.cache()
    model.decode(before, cache=cache, last=1)
    spent(rows)
    return Batch(batch.embeds[:, -1:], batch.mask, batch.roles[:, -1:], before=cache)


class _StopError(Exception):
    """The keys and values of a layer are known: the rest of its forward is not needed."""


class _Keys:
    """Stands in for the cache of one layer: takes the keys and values of all columns and stops the layer,
    then hands them to the same layer run on fewer columns."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._held: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self._held is None:
            given = (keys, values)
            self._held = given if self._cache is None else self._cache.update(*given, *args, **kwargs)
            raise _StopError
        return self._held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


def last_columns(forward: Forward, last: int) -> Forward:
    """A layer's forward that returns the `last` columns only: keys and values are computed for all columns,
    everything else for those that are read."""

    def shortened(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        columns = hidden_states.shape[1]
        if columns <= last:
            return forward(hidden_states, *args, **kwargs)
        held = kwargs | {"past_key_values": _Keys(kwargs.get("past_key_values"))}
        try:
            return forward(hidden_states, *args, **held)  # A layer that uses no cache is run whole.
        except _StopError:
            pass
        return forward(hidden_states[:, -last:], *args, **_sliced(held, hidden_states, last))

    return shortened


def _sliced(kwargs: dict[str, Any], hidden: Tensor, last: int) -> dict[str, Any]:
    """A layer's keyword arguments for its last columns."""
    found = dict(kwargs)
    mask = found.get("attention_mask")
    if mask is None and last > 1:  # Without a mask, attention would take them for the first columns.
        columns = hidden.shape[1]
        closed = torch.full((last, columns), torch.finfo(hidden.dtype).min, device=hidden.device)
        found["attention_mask"] = closed.triu(columns - last + 1).to(hidden.dtype)[None, None]
    elif mask is not None and mask.dim() == 4:
        found["attention_mask"] = mask[:, :, -last:]
    for name in ("position_ids", "cache_position"):
        if found.get(name) is not None:
            found[name] = found[name][..., -last:]
    if found.get("position_embeddings") is not None:
        found["position_embeddings"] = tuple(part[..., -last:, :] for part in found["position_embeddings"])
    return found


@torch.no_grad()
def can_trim(model: Model) -> bool:
    """Whether the last layer of `model` gives the same last columns when only they are asked for.

    Not read from names but tried out, with and without padding, for one and for two columns.
    """
    final = model.layers[-1]
    embeds = model.embed(torch.tensor([[1, 2, 3, 1], [2, 3, 1, 2]]))
    for padding in (0, 2):
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        mask[0, :padding] = False
        batch = Batch(embeds, mask, mask.to(torch.uint8) * VALID)
        whole = model.decode(batch)
        for last in (1, 2):
            try:
                with replaced([(final, last_columns(final.forward, last))]):
                    found = model.decode(batch)
            except Exception:  # Whatever a family's layer makes of fewer columns: then it gets all of them.
                return False
            tolerance = 16 * torch.finfo(found.dtype).eps * float(whole.abs().max().clamp_min(1.0))
            if found.shape[1] != last or not bool(((found - whole[:, -last:]).abs() <= tolerance * 4).all()):
                return False
    return True


@torch.no_grad()
def can_resume(model: Model) -> bool:
    """Whether a pass of `model` can be entered at a layer, from hidden states that another pass had there.

    Not so where layers take more than those from the layers below, such as shared keys and values. Tried out
    at the first, the middle and the last layers.
    """
    layers = len(model.layers)
    embeds = model.embed(torch.tensor([[1, 2, 3, 1], [2, 3, 1, 2]]))
    mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    mask[0, :2] = False
    batch = Batch(embeds, mask, mask.to(torch.uint8) * VALID)
    entries = sorted({1, layers // 2, layers - 1, layers} - {0})
    with watching(model, entries, ()) as watched:
        whole = model.decode(batch)
    tolerance = 64 * torch.finfo(whole.dtype).eps * float(whole.abs().max().clamp_min(1.0))
    for entry in entries:
        try:
            found = model.decode(batch, prefix=Prefix(entry, watched.entries[entry].clone()))
        except Exception:  # Whatever a family makes of a layer that was not run.
            return False
        if not bool(((found - whole).abs() <= tolerance)[mask].all()):
            return False
    return True


@contextmanager
def watching(model: Model, entries: Sequence[int], neurons: Sequence[int]) -> Iterator[Watched]:
    """Keep what enters the layers `entries` and the down_proj of the layers `neurons`."""
    found = Watched({}, {})

    def enter(layer: int) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.entries[layer] = args[0] if args else kwargs["hidden_states"]

        return hook

    def leave(_module: Any, _args: Any, output: Any) -> None:
        model.tuple_layers = isinstance(output, tuple)
        found.entries[len(model.layers)] = output[0] if model.tuple_layers else output

    def read(layer: int) -> Any:
        def hook(_module: Any, args: tuple[Any, ...]) -> None:
            found.neurons[layer] = args[0]

        return hook

    handles = [model.layers[-1].register_forward_hook(leave)]
    try:
        for layer in entries:
            if layer < len(model.layers):
                handles.append(model.layers[layer].register_forward_pre_hook(enter(layer), with_kwargs=True))
        for layer in neurons:
            handles.append(model.down(layer).register_forward_pre_hook(read(layer)))
        yield found
    finally:
        for handle in handles:
            handle.remove()
