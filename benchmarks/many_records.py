"""Generated records in any number: made-up answers, really scored, under many names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from affectbench.operating import judged
from affectbench.overlap import listed_units
from affectbench.record import Record, SelectionInfo
from affectbench.score_models import Estimate
from benchmarks.results import DOSES, EMOTIONS, made_up, small_run

LAYERS, WIDTH, UNITS = 24, 4096, 200
VARIANTS = 8


def many_records(entries: int, cells: int) -> Iterator[Record]:
    """`entries` methods in `cells` comparisons each (models x tasks); every record is sealed and differs."""
    variants = _variants()
    comparisons = list(product(range(-(-cells // 4)), range(4)))[:cells]
    for entry, (place, (model, task)) in product(range(entries), enumerate(comparisons)):
        yield _named(variants[(5 * entry + place) % VARIANTS], entry, f"model-{model}", f"task-{task}")


def _variants() -> list[Record]:
    """A record of a small real run, with the scores of made-up answers in place of its own."""
    record = small_run(1)[0]
    labels = [f"emotion {letter}" for letter in "abcdefg"[:EMOTIONS]]
    info = {"labels": labels, "n_items": record.task.n_items | {"test": 280}}
    kept = [record.preservation[0].model_copy(update={"arm": arm, "dose": dose}) for arm, dose in DOSES]
    found = []
    for seed in range(VARIANTS):
        outcomes = {
            split: made_up(280, 2 * seed + place, labels)
            for place, split in enumerate(("validation", "test"))
        }
        parts = judged(outcomes, kept, seed) | {
            "task": record.task.model_copy(update=info),
            "calibration": None,
        }
        model = record.model.model_copy(update={"n_layers": LAYERS, "width": WIDTH, "instrument": False})
        found.append(Record.model_validate(dict(record) | parts | {"model": model}))
    return found


def _named(record: Record, entry: int, model: str, task: str) -> Record:
    name = f"method-{entry:03d}"
    rng = np.random.default_rng([entry, len(model), int(model[6:]), int(task[5:])])
    sets = [rng.choice(2000, size=UNITS, replace=False) for _ in range(EMOTIONS)]
    selection = SelectionInfo(
        units_per_emotion=[UNITS] * EMOTIONS,
        units=[listed_units(units.tolist()) for units in sets],
        layer_histogram=[np.bincount(units // WIDTH, minlength=LAYERS).tolist() for units in sets],
        ties="none",
    )
    headline = record.headline
    if headline is not None:
        shift = float(rng.normal(scale=0.2))
        moved = {
            end: None if value is None else value + shift
            for end, value in headline.spec.model_dump(exclude={"se"}).items()
        }
        spec = headline.spec.model_copy(update=moved)
        pres = Estimate(value=float(1 - 0.1 * rng.random()), low=0.85, high=1.0, se=0.02)
        headline = headline.model_copy(update={"spec": spec, "pres": pres, "significant": shift > 0})
    return record.model_copy(
        update={
            "cell": record.cell.model_copy(update={"model": model, "task": task, "selector": name}),
            "model": record.model.model_copy(update={"id": model}),
            "task": record.task.model_copy(update={"id": task}),
            "hashes": record.hashes.model_copy(update={"task": task, "model": model, "selector": name}),
            "selection": selection,
            "headline": headline,
        }
    ).sealed()
