"""Predictions as Parquet: one row an answer, enough to score a cell again without its model."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from affectbench.errors import RecordError, ScoreError
from affectbench.outcomes import Array, Condition, Outcomes, Steered

LABELS_KEY = b"affectbench_labels"
DRAW = "draw:"
OWN_BASE = "base:own"
STEERED = "steered:"


def to_parquet(outcomes: Mapping[str, Outcomes]) -> bytes:
    """The bytes of a Parquet file; splits must share their labels.

    Columns: split, condition (base, suppress, amplify), dose, alpha (null for base), target (a label,
    "draw:3", "steered:mix" or "steered:mix:draw:3", or "base:own": what a condition with a base of its own is
    compared with), item, cluster, gold and prediction (codes into the
    labels kept in the file's metadata; -1 unparsed, -2 error, -3 a label that is not scored), margin (of the
    target, float32, null where there is none). Base answers come once a label, to hold its margin.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = {each.labels for each in outcomes.values()}
    if len(labels) != 1:
        raise RecordError(f"splits of one cell have different labels: {sorted(labels)}")
    tables = [
        _block(split, each.ordered(), *block) for split, each in outcomes.items() for block in _blocks(each)
    ]
    table = pa.concat_tables(tables)
    metadata = {LABELS_KEY: json.dumps(list(labels.pop())).encode()}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue()


def _blocks(outcomes: Outcomes) -> list[tuple[str, float | None, float | None, list[str], Array, Array]]:
    """(condition, dose, alpha, targets, predictions (M, N), margin (M, N)) for base, targets and draws."""
    ordered = outcomes.ordered()
    labels = list(ordered.labels)
    base = np.broadcast_to(ordered.base, ordered.base_margin.T.shape)
    blocks: list[tuple[str, float | None, float | None, list[str], Array, Array]] = [
        ("base", None, None, labels, base, ordered.base_margin.T)
    ]
    for c in ordered.conditions:
        blocks.append((c.arm, c.dose, c.alpha, labels, c.predictions, c.margin))
        names = [f"{DRAW}{r}" for r in range(len(c.draws))]
        blocks.append((c.arm, c.dose, c.alpha, names, c.draws, np.full(c.draws.shape, np.nan)))
        if c.base is not None:
            blocks.append(
                (c.arm, c.dose, c.alpha, [OWN_BASE], c.base[None], np.full((1, len(c.base)), np.nan))
            )
        for each in c.steered:
            names = _steered_names(each.targeting, len(each.draws))
            codes = np.concatenate([each.answers[None], each.draws])
            blocks.append((c.arm, c.dose, c.alpha, names, codes, np.full(codes.shape, np.nan)))
    return blocks


def _steered_names(targeting: str, draws: int) -> list[str]:
    name = f"{STEERED}{targeting}"
    return [name, *(f"{name}:{DRAW}{r}" for r in range(draws))]


def _block(
    split: str,
    outcomes: Outcomes,
    condition: str,
    dose: float | None,
    alpha: float | None,
    targets: list[str],
    predictions: Array,
    margin: Array,
) -> Any:
    import pyarrow as pa

    repeats, n_items = predictions.shape
    rows = repeats * n_items

    def text(values: list[str]) -> Any:
        return pa.array(values, pa.string()).dictionary_encode()

    def every_target(values: Array, kind: Any) -> Any:
        return pa.array(np.tile(values, repeats), kind)

    return pa.table(
        {
            "split": text([split] * rows),
            "condition": text([condition] * rows),
            "dose": pa.array([dose] * rows, pa.float64()),
            "alpha": pa.array([alpha] * rows, pa.float64()),
            "target": text([target for target in targets for _ in range(n_items)]),
            "item": text(outcomes.items.tolist() * repeats),
            "cluster": text(outcomes.clusters.tolist() * repeats),
            "gold": every_target(outcomes.gold, pa.int16()),
            "prediction": pa.array(predictions.ravel(), pa.int16()),
            "margin": pa.array(margin.ravel().astype(np.float32), pa.float32(), from_pandas=True),
        }
    )


def from_parquet(path: Path) -> dict[str, Outcomes]:
    """Read predictions back, by split, with items sorted by id.

    Raises:
        RecordError: not Parquet, not ours, or rows are missing or repeated.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        labels = tuple(json.loads(table.schema.metadata[LABELS_KEY]))
        columns = {name: _column(table, name) for name in table.column_names}
        splits = dict.fromkeys(columns["split"].tolist())
        return {split: _outcomes(labels, _where(columns, columns["split"] == split)) for split in splits}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, ScoreError) as error:
        raise RecordError(
            f"the predictions in {path} are damaged: {error}", hint="run the cell again"
        ) from error


def size_of(path: Path) -> tuple[int, int]:
    """Rows and unpacked bytes of a Parquet file, from its footer. Raises `RecordError` if it has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.ParquetFile(path).metadata
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"the predictions in {path} are damaged: {error}") from error
    groups = (found.row_group(place) for place in range(found.num_row_groups))
    return found.num_rows, sum(group.total_byte_size for group in groups)


def _column(table: Any, name: str) -> Array:
    import pyarrow as pa

    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    values: Array = column.to_numpy()
    return values.astype(str) if values.dtype == object else values


def _where(columns: Mapping[str, Array], chosen: Array) -> dict[str, Array]:
    return {name: values[chosen] for name, values in columns.items()}


def _outcomes(labels: tuple[str, ...], rows: Mapping[str, Array]) -> Outcomes:
    base = _where(rows, rows["condition"] == "base")
    first = _where(base, base["target"] == labels[0])
    order = np.argsort(first["item"], kind="stable")
    items = first["item"][order]
    keys: dict[tuple[str, float, float], None] = dict.fromkeys(
        (str(arm), float(dose), float(alpha))
        for arm, dose, alpha in zip(rows["condition"], rows["dose"], rows["alpha"], strict=True)
        if arm != "base"
    )
    return Outcomes(
        labels=labels,
        items=items,
        gold=first["gold"][order],
        clusters=first["cluster"][order],
        base=first["prediction"][order],
        base_margin=_grid(base, labels, items, "margin").T,
        conditions=tuple(_condition(labels, items, rows, *key) for key in keys),
    )


def _condition(
    labels: tuple[str, ...], items: Array, rows: Mapping[str, Array], arm: str, dose: float, alpha: float
) -> Condition:
    own = _where(rows, (rows["condition"] == arm) & (rows["dose"] == dose))
    steered = np.char.startswith(own["target"], STEERED)
    ways, own = _where(own, steered), _where(own, ~steered)
    compared = own["target"] == OWN_BASE
    bases, own = _where(own, compared), _where(own, ~compared)
    drawn = np.char.startswith(own["target"], DRAW)
    n_draws = len(np.unique(own["target"][drawn]))
    names = tuple(f"{DRAW}{r}" for r in range(n_draws))
    aimed = _where(own, ~drawn)
    return Condition(
        arm=arm,
        dose=dose,
        alpha=alpha,
        predictions=_grid(aimed, labels, items, "prediction"),
        margin=_grid(aimed, labels, items, "margin"),
        draws=_grid(_where(own, drawn), names, items, "prediction"),
        steered=_steered(ways, items),
        base=_grid(bases, (OWN_BASE,), items, "prediction")[0] if compared.any() else None,
    )


def _steered(rows: Mapping[str, Array], items: Array) -> tuple[Steered, ...]:
    """The label-free answers of a condition, in the order in which they were written."""
    found = []
    known = dict.fromkeys(rows["target"].tolist())
    for name in [each for each in known if each.count(":") == 1]:
        targeting = name.removeprefix(STEERED)
        own = [each for each in known if each == name or each.startswith(f"{name}:")]
        names = tuple(_steered_names(targeting, len(own) - 1))
        grid = _grid(_where(rows, np.isin(rows["target"], own)), names, items, "prediction")
        found.append(Steered(targeting, grid[0], grid[1:]))
    return tuple(found)


def _grid(rows: Mapping[str, Array], targets: tuple[str, ...], items: Array, name: str) -> Array:
    """Lay a column out as (targets, items). Raises ValueError unless each pair comes exactly once."""
    n_items = len(items)
    order = np.lexsort((rows["item"], rows["target"]))
    by_name = sorted(targets)
    complete = len(order) == len(targets) * n_items and (
        (rows["item"][order] == np.tile(items, len(targets))).all()
        and (rows["target"][order] == np.repeat(np.array(by_name, dtype=str), n_items)).all()
    )
    if not complete:
        raise ValueError("answers are missing or repeated")
    grid = rows[name][order].reshape(len(targets), n_items)
    return grid[[by_name.index(target) for target in targets]]
