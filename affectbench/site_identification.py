"""What identifying units takes: specificity by number of items and by share of units, and whether the same
units come back from other items, other seeds and other benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from statistics import mean

from affectbench.figures import layer_histogram
from affectbench.figures_curves import Series, setting_curve
from affectbench.overlap import by_chance, comparable, jaccard, parse_units
from affectbench.score_models import Estimate
from affectbench.site_format import general
from affectbench.site_overall import mean_estimate
from affectbench.site_summary import Summary

PAIRS = 300
"""Pairs of selections that are compared: the first ones."""
Key = tuple[bool | str | float, ...]
_SettingOf = Callable[[Summary], tuple[float, str]]


@dataclass(frozen=True)
class Setting:
    """One method at one setting, over its draws; `overlap` with all items' units, and what chance gives."""

    selector: str
    control: bool
    name: str
    records: list[Summary]
    spec: Estimate | None
    overlap: float | None
    chance: float | None
    between: float | None


@dataclass(frozen=True)
class Curve:
    """Specificity by setting, for all methods of one model, task and protocol; `figure` is SVG text."""

    title: str
    axis: str
    figure: str
    rows: list[Setting]


@dataclass(frozen=True)
class Agreement:
    """How far two selections of one method agree, mean over the emotions that both have."""

    kind: str
    what: str
    selector: str
    control: bool
    emotions: int
    overlap: float
    chance: float


@dataclass(frozen=True)
class Layers:
    """Where one method's units lie, one row an origin; `figure` is SVG text."""

    title: str
    figure: str


@dataclass(frozen=True)
class Identified:
    """All that the page shows; `n_pairs` pairs could be compared."""

    budgets: list[Curve]
    fractions: list[Curve]
    agreements: list[Agreement]
    n_pairs: int
    layers: list[Layers]


def identified_board(records: Sequence[Summary]) -> Identified:
    """Budgets, fractions and agreement of all records; each empty where there is nothing to compare."""
    pairs = _pairs(records)
    first = list(islice(pairs, PAIRS))
    return Identified(
        budgets=budget_curves(records),
        fractions=fraction_curves(records),
        agreements=[found for pair in first if (found := _agreement(*pair)) is not None],
        n_pairs=len(first) + sum(1 for _ in pairs),
        layers=_layers(records),
    )


def budget_curves(records: Sequence[Summary]) -> list[Curve]:
    """One curve for each model, task, protocol and benchmark of identification with units from a number of
    items."""
    found: dict[Key, list[Summary]] = {}
    for record in records:
        key = (*_place(record), record.cell.origin, record.cell.fraction, record.cell.seed)
        found.setdefault(key, []).append(record)
    some = {key: own for key, own in found.items() if any(_items(record) is not None for record in own)}
    return [
        _curve(f"budget-{place}", some[key], "usable items of each emotion", _budget)
        for place, key in enumerate(sorted(some))
    ]


def fraction_curves(records: Sequence[Summary], prefix: str = "fraction") -> list[Curve]:
    """One curve for each model, task and protocol with units of several shares of the site."""
    found: dict[Key, list[Summary]] = {}
    for record in records:
        if record.cell.identification is None:
            found.setdefault((*_place(record), record.cell.seed), []).append(record)
    some = {key: own for key, own in found.items() if len({record.cell.fraction for record in own}) > 1}
    return [
        _curve(f"{prefix}-{place}", some[key], "share of the units, %", _fraction)
        for place, key in enumerate(sorted(some))
    ]


def overlap_of(one: Summary, other: Summary) -> tuple[int, float, float] | None:
    """Emotions that both selections have, and over them the mean share of common units and that by chance."""
    if one.selection is None or other.selection is None:
        return None
    units = one.model.n_layers * one.model.width
    shared, chance = [], []
    for label in set(one.task.labels) & set(other.task.labels):
        parts = [(each.selection, each.task.labels.index(label)) for each in (one, other) if each.selection]
        sizes = [part.units_per_emotion[row] for part, row in parts]
        lists = [parse_units(part.units[row]) for part, row in parts]
        value = jaccard(*comparable(list(zip(lists, sizes, strict=True))))
        if value is not None:
            shared.append(value)
            chance.append(by_chance(sizes[0], sizes[1], units))
    return (len(shared), mean(sorted(shared)), mean(sorted(chance))) if shared else None


def _place(record: Summary) -> Key:
    """What the rows of one curve share."""
    cell, hashes = record.cell, record.hashes
    names = (record.model.instrument, cell.model, cell.task, cell.intervention)
    return (*names, hashes.model, hashes.task, hashes.protocol)


def _budget(record: Summary) -> tuple[float, str]:
    items = _items(record)
    return (float("inf"), "all") if items is None else (items, str(items))


def _items(record: Summary) -> int | None:
    """Items of each emotion that units were identified on; None for all."""
    origin = record.cell.identification
    return origin.items if origin is not None else None


def _fraction(record: Summary) -> tuple[float, str]:
    return record.cell.fraction, general(100 * record.cell.fraction)


def _curve(name: str, records: Sequence[Summary], axis: str, setting_of: _SettingOf) -> Curve:
    settings = sorted({setting_of(record) for record in records})
    methods = sorted({(record.control, record.cell.selector) for record in records})
    rows, series = [], []
    for control, selector in methods:
        own = [record for record in records if record.cell.selector == selector]
        found = [
            _setting(selector, control, label, [r for r in own if setting_of(r)[1] == label], own)
            for _, label in settings
        ]
        rows += [row for row in found if row.records]
        series.append(Series(f"{selector} (control)" if control else selector, [row.spec for row in found]))
    cell = records[0].cell
    share = "" if setting_of is _fraction else f", {general(100 * cell.fraction)} % of the units"
    moved = "" if cell.origin == cell.task else f", units from {cell.origin}"
    title = f"{cell.model} on {cell.task}{moved}, {cell.intervention}{share}, seed {cell.seed}"
    figure = setting_curve(name, f"Specificity, {title}", axis, [label for _, label in settings], series)
    return Curve(title, axis, figure, rows)


def _setting(
    selector: str, control: bool, name: str, records: list[Summary], every: Sequence[Summary]
) -> Setting:
    scored = [record.headline.spec for record in records if record.status == "ok" and record.headline]
    complete = bool(records) and len(scored) == len(records)
    whole = next((record for record in every if _items(record) is None), None)
    sampled = [record for record in records if _items(record) is not None]
    found = [overlap_of(record, whole) for record in sampled] if whole is not None else []
    known = [each for each in found if each is not None]
    among = [overlap_of(one, other) for one, other in combinations(sampled, 2)]
    return Setting(
        selector=selector,
        control=control,
        name=name,
        records=records,
        spec=mean_estimate(scored) if complete else None,
        overlap=mean(each[1] for each in known) if known else None,
        chance=mean(each[2] for each in known) if known else None,
        between=mean(each[1] for each in among if each) if any(among) else None,
    )


def _same_method(record: Summary) -> Key:
    cell, hashes = record.cell, record.hashes
    method = (record.model.instrument, cell.model, hashes.model, cell.selector, hashes.selector)
    return (*method, cell.intervention, hashes.protocol, cell.fraction)


def _pairs(records: Sequence[Summary]) -> Iterator[tuple[str, Summary, Summary]]:
    """Ordinary records of one method that differ in the seed alone, or in the benchmark alone."""
    for own in _methods(records):
        for one, other in combinations(own, 2):
            if one.cell.task == other.cell.task:
                yield "seeds", one, other
            elif one.cell.seed == other.cell.seed and set(one.task.labels) & set(other.task.labels):
                yield "benchmarks", one, other


def _methods(records: Sequence[Summary]) -> list[list[Summary]]:
    """Ordinary records with units, by method, model and protocol."""
    found: dict[Key, list[Summary]] = {}
    for record in records:
        if record.cell.identification is None and record.selection is not None:
            found.setdefault(_same_method(record), []).append(record)
    return [found[key] for key in sorted(found)]


def _agreement(kind: str, one: Summary, other: Summary) -> Agreement | None:
    found = overlap_of(one, other)
    if found is None:
        return None
    cell = one.cell
    varied = (
        f"{cell.task}, seeds {cell.seed} and {other.cell.seed}"
        if kind == "seeds"
        else f"{cell.task} and {other.cell.task}, seed {cell.seed}"
    )
    what = f"{cell.model}: {varied}; {cell.intervention}, {general(100 * cell.fraction)} %"
    return Agreement(kind, what, cell.selector, one.control, *found)


def _layers(records: Sequence[Summary]) -> list[Layers]:
    """For each method with several origins, where their units lie; at most as many as pairs are compared."""
    found = []
    for place, own in enumerate(islice((own for own in _methods(records) if len(own) > 1), PAIRS // 10)):
        names, counts = [], []
        for record in own:
            rows = record.selection.layer_histogram if record.selection is not None else []
            if rows and rows[0]:
                names.append(f"{record.cell.task}, seed {record.cell.seed}")
                counts.append([sum(layer) for layer in zip(*rows, strict=True)])
        if len(names) < 2:
            continue
        cell = own[0].cell
        title = f"{cell.selector} on {cell.model}, {cell.intervention}, {general(100 * cell.fraction)} %"
        drawn = layer_histogram(f"origins-{place}", f"Units by layer, {title}", names, counts)
        found.append(Layers(title, drawn))
    return found
