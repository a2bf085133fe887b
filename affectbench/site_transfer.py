"""The transfer board: units identified on A, tested on B, for each model, method and protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affectbench.figures import GridValue, grid
from affectbench.score_models import Estimate
from affectbench.site_format import general
from affectbench.site_summary import Summary

Key = tuple[bool, str, str, str, str, float, int, bool, str, str]
"""Instrument, model and its hash, protocol and its hash, fraction, seed, control, selector and its hash."""


@dataclass(frozen=True)
class Pair:
    """One field of a grid. `ratio`: specificity over that of units identified on B itself, on the labels
    that both benchmarks have; None on the diagonal, and where there is no such effect to compare with. It has
    an interval where the record's own comparison is with the result that is shown."""

    record: Summary
    source: str
    ratio: Estimate | None

    @property
    def own(self) -> bool:
        """Whether units were identified on the benchmark that they are tested on."""
        return self.record.cell.origin == self.record.cell.task


@dataclass(frozen=True)
class Grid:
    """All pairs of one method under one protocol; `figure` is SVG text."""

    selector: str
    control: bool
    protocol: str
    pairs: list[Pair]
    figure: str


@dataclass(frozen=True)
class ModelGrids:
    """The grids of one model."""

    name: str
    record: Summary
    grids: list[Grid]


def transfer_board(records: Sequence[Summary]) -> list[ModelGrids]:
    """Real models before instruments; of each, methods before controls. Empty if nothing was transferred."""
    found: dict[Key, list[Summary]] = {}
    for record in records:
        if record.cell.identification is None or record.cell.identification.items is None:
            found.setdefault(_key(record), []).append(record)
    models: dict[tuple[bool, str], list[Grid]] = {}
    shown: dict[tuple[bool, str], Summary] = {}
    for place, key in enumerate(sorted(found)):
        own = found[key]
        if any(record.cell.origin != record.cell.task for record in own):
            models.setdefault(key[:2], []).append(_grid(own, f"grid-{place}"))
            shown[key[:2]] = own[0]
    return [ModelGrids(model[1], shown[model], grids) for model, grids in models.items()]


def specificity(effects: Sequence[Sequence[float]], places: Sequence[int]) -> float:
    """Suppress-arm specificity of an effect matrix (targets x gold) over some of its labels, at least two."""
    own = sum(effects[place][place] for place in places) / len(places)
    cross = sum(effects[s][e] for s in places for e in places if s != e)
    return cross / (len(places) * (len(places) - 1)) - own


def _key(record: Summary) -> Key:
    cell, hashes, model = record.cell, record.hashes, record.model
    protocol = (cell.intervention, hashes.protocol, cell.fraction, cell.seed)
    return (
        model.instrument,
        cell.model,
        hashes.model,
        *protocol,
        record.control,
        cell.selector,
        hashes.selector,
    )


def _grid(records: Sequence[Summary], name: str) -> Grid:
    by_pair = {(record.cell.origin, record.cell.task): record for record in records}
    tasks = sorted({task for pair in by_pair for task in pair})
    pairs = [
        Pair(by_pair[one, other], one, _ratio(by_pair[one, other], by_pair.get((other, other))))
        for one in tasks
        for other in tasks
        if (one, other) in by_pair
    ]
    cell = records[0].cell
    protocol = f"{cell.intervention} · {general(100 * cell.fraction)} % of the units · seed {cell.seed}"
    values = [[_value(by_pair.get((one, other))) for other in tasks] for one in tasks]
    title = f"Specificity of {cell.selector} on {cell.model}, identified on and tested on"
    return Grid(cell.selector, records[0].control, protocol, pairs, grid(name, title, tasks, values))


def _value(record: Summary | None) -> GridValue | None:
    if record is None or record.status != "ok" or record.headline is None:
        return None
    return GridValue(record.headline.spec, record.headline.significant)


def _ratio(moved: Summary, own: Summary | None) -> Estimate | None:
    if moved is own or own is None or own.hashes.task != moved.hashes.task:
        return None
    compared = moved.transfer
    if compared is not None and compared.answers == own.hashes.predictions:
        return compared.ratio
    if _value(moved) is None or _value(own) is None or own.headline is None or not own.headline.significant:
        return None
    reached = specificity(own.effects, [own.task.labels.index(label) for label in moved.task.labels])
    assert moved.headline is not None, "a value has a headline"
    return Estimate(value=moved.headline.spec.value / reached) if reached > 0 else None
