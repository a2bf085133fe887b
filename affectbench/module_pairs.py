"""What an adaptation changed, by module type and layer, read from files: two tensors in memory at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.module_change import Change, Metric, change_of, low_rank_change, square_of, together
from affectbench.module_types import Modules, Piece, locate
from affectbench.sites import FloatArray
from affectbench.stored_weights import LoraAdapter, LowRank, StoredWeights

if TYPE_CHECKING:
    from torch import Tensor

Found = dict[tuple[str, int], Change]


@dataclass(frozen=True)
class Changes:
    """Changes of a pair by type and layer; `other` is the Frobenius norm of the change of everything else
    (embeddings, norms, biases, head)."""

    modules: Modules
    found: Found
    other: float = 0.0

    def values(self, metric: Metric) -> FloatArray:
        """(types, layers) of a metric, types in the order of `modules.types`."""
        layers = range(self.modules.layers)
        return np.array(
            [[self.found[kind, layer].value(metric) for layer in layers] for kind in self.modules.types]
        )

    def over_layers(self, metric: Metric, types: Sequence[str]) -> float:
        """Mean over layers of a metric of these types, taken together as one block-diagonal matrix."""
        layers = range(self.modules.layers)
        found = [together(self.found[kind, layer] for kind in types).value(metric) for layer in layers]
        return float(np.mean(found))


def changes_between(base: Path, adapted: Path) -> Changes:
    """Compare two checkpoint folders. At any time one tensor of each is in memory.

    Raises `AffectbenchError` where a weight is missing in one of them or differs in shape.
    """
    old, new = StoredWeights(base), StoredWeights(adapted)
    check_shapes(old.shapes, new.shapes, str(base), str(adapted))
    modules = locate(old.shapes, old.config())
    found: defaultdict[tuple[str, int], list[Change]] = defaultdict(list)
    other = 0.0
    for name, pieces in _by_parameter(modules):
        before, after = old.read(name), new.read(name)
        for piece in pieces:
            change = change_of(piece.matrices(before), piece.matrices(after))
            if piece.is_matrix:
                found[piece.type, piece.layer].append(change)
            else:
                other += change.square
        del before, after
    for name in modules.others:
        for before, after in zip(old.blocks(name), new.blocks(name), strict=True):
            other += square_of(after.float() - before.float())
    return Changes(modules, _gathered(found), other**0.5)


def changes_of_adapter(base: Path, folder: Path) -> Changes:
    """What a LoRA adapter changes of the checkpoint in `base`; no change is multiplied out.

    Raises `AffectbenchError` where a factor fits no weight of the base.
    """
    old, adapter = StoredWeights(base), LoraAdapter.read(folder)
    modules = locate(old.shapes, old.config())
    names = matched(adapter.factors, old.shapes, str(folder))
    factors = {names[module]: pair for module, pair in adapter.factors.items()}
    found: defaultdict[tuple[str, int], list[Change]] = defaultdict(list)
    for name, pieces in _by_parameter(modules):
        matrices = [piece for piece in pieces if piece.is_matrix]
        if matrices:
            before, pair = old.read(name), factors.pop(name, None)
            for piece in matrices:
                found[piece.type, piece.layer].append(_of_factors(piece, before, pair))
            del before
    rest = (low_rank_change(each.a, each.b, each.scaling, each.a).square for each in factors.values())
    return Changes(modules, _gathered(found), sum(rest) ** 0.5)


def check_shapes(
    old: Mapping[str, Sequence[int]], new: Mapping[str, Sequence[int]], base: str, adapted: str
) -> None:
    """Raise `AffectbenchError` unless both have the same weights of the same shapes."""
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            lacks, has = (base, adapted) if name not in old else (adapted, base)
            raise AffectbenchError(
                f"{lacks} has no {name}, which {has} has", hint="a pair is one architecture, before and after"
            )
        if tuple(old[name]) != tuple(new[name]):
            raise AffectbenchError(
                f"{name} is {tuple(old[name])} in {base} and {tuple(new[name])} in {adapted}",
                hint="a pair is one architecture, before and after; was the vocabulary enlarged?",
            )


def matched(
    modules: Mapping[str, LowRank], parameters: Mapping[str, Sequence[int]], where: str
) -> dict[str, str]:
    """The weight that each module of an adapter changes; a wrapper's first part of a name may be missing.

    Raises `AffectbenchError` where there is none, or where the factors do not fit its shape.
    """
    found: dict[str, str] = {}
    for module, pair in modules.items():
        name = f"{module}.weight"
        if name not in parameters:
            fitting = [each for each in parameters if each.endswith(f".{name}") or name.endswith(f".{each}")]
            if len(fitting) != 1:
                raise AffectbenchError(
                    f"the adapter {where} changes {module}; the base has {len(fitting)} weights of that name",
                    hint="it was made for another base",
                )
            (name,) = fitting
        shape, own = tuple(parameters[name]), (int(pair.b.shape[0]), int(pair.a.shape[1]))
        if shape not in (own, own[::-1]):
            raise AffectbenchError(
                f"the adapter {where} changes {module} as a matrix {own}; in the base it is {shape}",
                hint="it was made for another base",
            )
        found[module] = name
    return found


def _by_parameter(modules: Modules) -> Iterator[tuple[str, list[Piece]]]:
    """Each parameter with the pieces that it holds."""
    grouped: dict[str, list[Piece]] = {}
    for piece in modules.pieces:
        grouped.setdefault(piece.parameter, []).append(piece)
    yield from grouped.items()


def _of_factors(piece: Piece, before: Tensor, pair: LowRank | None) -> Change:
    """The change of one piece; `pair` is of its whole parameter."""
    matrix = piece.matrices(before)
    if pair is None:
        return Change(0.0, square_of(matrix), matrix.numel(), 0.0)
    rows = pair.b.view(piece.groups, -1, pair.rank)[:, piece.start : piece.stop].flatten(0, 1)
    return low_rank_change(pair.a, rows, pair.scaling, matrix)


def _gathered(found: Mapping[tuple[str, int], Iterable[Change]]) -> Found:
    return {key: together(each) for key, each in found.items()}
