"""Example records and stores for tests: really scored, on random synthetic predictions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from affectbench.conformance_report import Conformance, Outcome
from affectbench.operating import choose_operating, headline_of
from affectbench.outcomes import Condition, Outcomes
from affectbench.overlap import listed_units
from affectbench.preservation_score import PreservationOutcomes, score_preservation
from affectbench.record import (
    Cell,
    Cost,
    Hashes,
    Identification,
    ModelInfo,
    Provenance,
    Record,
    SelectionInfo,
    TaskInfo,
    ValidationPoint,
)
from affectbench.recovery import recovery
from affectbench.score import score_outcomes, scored
from affectbench.score_models import Estimate, PreservationScore, Scores
from affectbench.store import Store
from affectbench.word_score import score_answer_words

LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
GRID = (("suppress", 0.0), ("amplify", 1.5), ("amplify", 2.0), ("amplify", 4.0))
MODELS = {"reference-text": "text", "reference-audio": "audio", "small-text": "text", "small-audio": "audio"}
QUALITY = {
    "planted": 1.0,
    "mad": 0.8,
    "cas": 0.7,
    "lap": 0.6,
    "lape": 0.5,
    "probe": 0.35,
    "random": 0.0,
    "shuffled_labels": 0.0,
}
"""How far each selector's targets move: 1 = as far as planted units, 0 = like random units."""
WORDS = {"lap": 1.0, "lape": 0.5}
"""Selectors whose units move the answers of the answer-word control too, and how far beside the task's."""
EVIDENCE = {"mad": ["mean"], "probe": ["mean"], "shuffled_labels": ["mean"], "planted": ["attribution"]}
LAYERS, WIDTH = 6, 64


def example_outcomes(
    quality: float = 0.6, *, seed: int = 0, n_per_label: int = 20, n_clusters: int = 42, n_draws: int = 20
) -> Outcomes:
    """Synthetic predictions of a model about 70 % right, whose target emotion moves with `quality`."""
    rng = np.random.default_rng(seed)
    n_labels = len(LABELS)
    gold = np.tile(np.arange(n_labels), n_per_label)
    n_items = len(gold)
    base = _answers(rng, gold, 0.7)
    logits = rng.normal(size=(n_items, n_labels))
    logits[np.arange(n_items), base] = logits.max(axis=1) + rng.exponential(size=n_items)
    return Outcomes(
        labels=LABELS,
        items=np.array([f"item-{i:04d}" for i in range(n_items)]),
        gold=gold,
        clusters=np.array([f"speaker-{c:02d}" for c in rng.permutation(n_items) % n_clusters]),
        base=base,
        base_margin=_margins(logits),
        conditions=tuple(
            _condition(rng, arm, dose, quality, gold, base, logits, n_draws) for arm, dose in GRID
        ),
    )


def _answers(rng: np.random.Generator, gold: np.ndarray, accuracy: float) -> np.ndarray:
    return np.where(rng.random(len(gold)) < accuracy, gold, rng.integers(0, len(LABELS), len(gold)))


def _margins(logits: np.ndarray) -> np.ndarray:
    """(N, E) logits -> (N, E) margins of each label over the largest other one."""
    columns = [logits[:, s] - np.delete(logits, s, axis=1).max(axis=1) for s in range(logits.shape[1])]
    return np.stack(columns, axis=1)


def _condition(
    rng: np.random.Generator,
    arm: str,
    dose: float,
    quality: float,
    gold: np.ndarray,
    base: np.ndarray,
    logits: np.ndarray,
    n_draws: int,
) -> Condition:
    n_labels, n_items, alpha = len(LABELS), len(gold), abs(dose - 1)
    predictions, margin = np.tile(base, (n_labels, 1)), np.zeros((n_labels, n_items))
    for s in range(n_labels):
        if arm == "suppress":
            moved = (gold == s) & (rng.random(n_items) < 0.7 * quality)
            predictions[s, moved] = (s + rng.integers(1, n_labels, moved.sum())) % n_labels
        else:
            moved = rng.random(n_items) < quality * alpha / 8
            predictions[s, moved] = s
        noise = rng.random(n_items) < 0.04
        predictions[s, noise] = rng.integers(-1, n_labels, noise.sum())
        push = quality * alpha * (1 if arm == "amplify" else -1)
        margin[s] = _margins(logits)[:, s] + push + rng.normal(scale=0.3, size=n_items)
    noise = rng.random((n_draws, n_items)) < 0.06
    draws = np.where(noise, rng.integers(0, n_labels, (n_draws, n_items)), base)
    return Condition(arm, dose, alpha, predictions, margin, draws)


def example_record(
    model: str = "reference-text",
    selector: str = "mad",
    seed: int = 0,
    *,
    intervention: str = "gain",
    task: str | None = None,
    bootstrap_draws: int = 1000,
) -> Record:
    """One sealed record of the cell (model, selector, intervention, seed), deterministic in its arguments."""
    return _build(model, selector, seed, intervention, task, bootstrap_draws)[0]


def example_store(root: Path | str, *, predictions: bool = False) -> Store:
    """Write 4 models x 8 selectors under `root`; one cell of them failed, one lacks data."""
    store = Store(root)
    for model in MODELS:
        for selector in QUALITY:
            record, outcomes = _build(model, selector, 0, "gain", None, 1000)
            if (model, selector) == ("small-audio", "probe"):
                record = failed(record, "error", "the selector ran out of memory")
            if (model, selector) == ("small-audio", "lape"):
                record = failed(record, "insufficient", "no items with gold label disgust")
            store.write(record)
            if predictions and record.status != "error":
                store.write_predictions(record.cell, outcomes)
    return store


def example_report(model: str = "reference-text", **changes: object) -> Conformance:
    """A conformance report of a tiny instance with a check of each outcome."""
    checks = [
        ("padding", "Left pad = right pad", "passed", "", 3e-7),
        ("zeroing", "Zeroing", "failed", "apart by 0.2; look at `down`", 0.2),
        ("audio_heard", "Audio matters", "skipped", "takes no <audio>", None),
    ]
    names = ("id", "title", "status", "reason", "value")
    outcomes = [
        Outcome(**dict(zip(names, check, strict=True)), tolerance=3.5e-4 if check[-1] else None, seconds=1.5)
        for check in checks
    ]
    content = Conformance(
        model=model, version=1, card="c" * 16, family="causal_lm", family_source="f" * 16,
        architecture="Qwen2ForCausalLM", instance="tiny", weights="w" * 16, seed=0, dtype="float32",
        device="cpu", hardware="x86_64 AVX2, 1 threads", versions={"torch": "2.13.0"}, n_layers=3, width=24,
        n_parameters=18208, date="2026-01-01T00:00:00+00:00", seconds=9.5, peak_memory_mib=600.0,
        checks=outcomes,
    )  # fmt: skip
    return content.model_copy(update=changes)


def failed(record: Record, status: str, reason: str) -> Record:
    """The record as it would be had the cell ended without scores."""
    emptied = {"scores": None, "headline": None, "preservation": [], "validation": [], "operating": None}
    changed = record.model_dump() | emptied | {"status": status, "reason": reason, "calibration": None}
    return Record.model_validate(changed).sealed()


def renamed(record: Record, **names: object) -> Record:
    """The record as that of another cell, sealed anew."""
    return record.model_copy(update={"cell": record.cell.model_copy(update=names)})


def transferred(record: Record, source: Record) -> Record:
    """The record as that of units which were identified on the task of `source`."""
    cell = record.cell.model_copy(update={"identification": Identification(task=source.cell.task)})
    hashes = record.hashes.model_copy(update={"identification": source.hashes.task})
    return record.model_copy(update={"cell": cell, "hashes": hashes, "validation": []}).sealed()


def transfer_records(selector: str = "mad") -> list[Record]:
    """A grid of two tasks: two ordinary records and two transferred ones."""
    one, other = (example_record("small-text", selector, task=task) for task in ("stories", "letters"))
    return [one, other, transferred(one, other), transferred(other, one)]


def readout_records(selector: str = "mad") -> list[Record]:
    """The same units on a task that asks for words and, transferred, on one that asks for letters."""
    home = example_record("small-text", selector, task="stories")
    away = transferred(example_record("small-text", selector, task="letters"), home)
    hashes = away.hashes.model_copy(update={"selection": home.hashes.selection})
    kinds = zip((home, away.model_copy(update={"hashes": hashes})), ("labels", "letters"), strict=True)
    return [
        record.model_copy(update={"task": record.task.model_copy(update={"readout": kind})}).sealed()
        for record, kind in kinds
    ]


def with_spec(record: Record, low: float, value: float, high: float, **changes: object) -> Record:
    """The record as it would be with this specificity, by default significant."""
    assert record.headline is not None
    estimate = Estimate(value=value, low=low, high=high, se=0.01)
    headline = record.headline.model_copy(update={"spec": estimate, "significant": True, **changes})
    return record.model_copy(update={"headline": headline})


def _build(
    model: str, selector: str, seed: int, intervention: str, task: str | None, bootstrap_draws: int
) -> tuple[Record, dict[str, Outcomes]]:
    modality = MODELS.get(model, "text")
    task = task or f"reference-{modality}"
    cell = Cell(
        model=model, task=task, selector=selector, intervention=intervention, fraction=0.01, seed=seed,
        site="gate", positions="all",
    )  # fmt: skip
    number = int(_digest(f"{model} {selector} {seed} {intervention} {task}"), 16)
    quality = QUALITY.get(selector, 0.4) * (0.7 if model.startswith("small") else 1.0)
    outcomes = {
        "validation": example_outcomes(quality, seed=number + 1),
        "test": example_outcomes(quality, seed=number),
    }
    scores, resampled = scored(outcomes["test"], seed=seed, bootstrap_draws=bootstrap_draws)
    preservation = _preservation(number, quality, bootstrap_draws)
    points = _points(score_outcomes(outcomes["validation"], seed=seed, bootstrap_draws=100), preservation)
    operating = choose_operating(points)
    words, confound = None, None
    if model != "small-audio":
        control = example_outcomes(WORDS.get(selector, 0.1) * quality, seed=number + 2, n_draws=0)
        words, confound = score_answer_words(
            control, outcomes["test"], scores, operating, seed=seed, bootstrap_draws=bootstrap_draws
        )
    record = Record(
        cell=cell,
        status="ok",
        control=selector in ("random", "shuffled_labels"),
        evidence=EVIDENCE.get(selector, [] if selector == "random" else ["rate"]),
        hashes=Hashes(**{k: _digest(f"{k} {v}") for k, v in _identity(cell).items()}),
        model=_model_info(model, modality),
        task=_task_info(task, modality, outcomes),
        selection=_selection_info(number, quality),
        scores=scores,
        validation=points,
        operating=operating,
        preservation=preservation,
        headline=headline_of(scores, resampled, operating, preservation),
        word_confound=confound,
        answer_words=words,
        calibration=_calibration(number, quality) if model.startswith("reference") else None,
        cost=Cost(
            wall_s=12.5, cpu_s=11.9, forward_passes=420, items_forwarded=26_880, identification_items=420,
            halvings=0, peak_memory_mib=812.0,
        ),
        provenance=_provenance(seed),
    )  # fmt: skip
    return record.sealed(), outcomes


def _identity(cell: Cell) -> dict[str, str]:
    return {
        "task": cell.task,
        "protocol": cell.intervention,
        "selector": cell.selector,
        "selection": f"{cell.model} {cell.selector} {cell.seed}",
        "model": cell.model,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _preservation(number: int, quality: float, bootstrap_draws: int) -> list[PreservationScore]:
    rng = np.random.default_rng(number)
    base = rng.random(60) < 0.8
    tokens, base_nll = np.full(60, 100), np.full(60, 150.0)
    spread = rng.gamma(4.0, 0.25, size=60)
    measured_all = []
    for arm, dose in GRID:
        damage = 0.02 * quality * abs(dose - 1)
        now = base & (rng.random(60) >= damage)
        measured = PreservationOutcomes(
            arm=arm, dose=dose, kl=damage * tokens * spread, nll=base_nll * (1 + damage), nll_base=base_nll,
            n_tokens=tokens, n_bytes=4 * tokens, capability=now, capability_base=base,
            capability_task="toy-cloze", degenerate_base=np.zeros(20, dtype=int),
            degenerate=rng.random(20) < damage,
        )  # fmt: skip
        measured_all.append(measured)
    return score_preservation(measured_all, seed=0, bootstrap_draws=bootstrap_draws)


def _points(scores: Scores, preservation: list[PreservationScore]) -> list[ValidationPoint]:
    return [
        ValidationPoint(arm=d.arm, dose=d.dose, spec=d.spec.value, pres=p.pres.value, collapsed=d.collapsed)
        for d, p in zip(scores.doses, preservation, strict=True)
    ]


def _calibration(number: int, quality: float):
    rng = np.random.default_rng(number)
    units = rng.permutation(LAYERS * WIDTH)[: 10 * len(LABELS)].reshape(len(LABELS), 10)
    planted, decoys = units[:, :6].tolist(), units[:, 6:].tolist()
    scores = rng.normal(size=(len(LABELS), LAYERS * WIDTH))
    for emotion, own in enumerate(planted):
        scores[emotion, own] += 3 * quality
    return recovery(scores, planted, decoys)


def _model_info(model: str, modality: str) -> ModelInfo:
    instrument = model.startswith("reference")
    return ModelInfo(
        id=model, family="qwen2", revision="1", modality=modality, dtype="float32", device="cpu",
        n_layers=LAYERS, width=WIDTH, n_parameters=500_000, instrument=instrument,
        instrument_note="emotion units planted by construction" if instrument else "",
    )  # fmt: skip


def _task_info(task: str, modality: str, outcomes: dict[str, Outcomes]) -> TaskInfo:
    return TaskInfo(
        id=task, version=1, title=f"Reference task, {modality}", modality=modality, labels=list(LABELS),
        metric="uar", chance=1 / len(LABELS),
        n_items={"identification": 420} | {k: len(o.items) for k, o in outcomes.items()},
        n_clusters={"identification": 84} | {k: len(np.unique(o.clusters)) for k, o in outcomes.items()},
    )  # fmt: skip


def _selection_info(number: int, quality: float) -> SelectionInfo:
    """Four units an emotion: the better the selector, the more of them are the first four of its layer."""
    rng = np.random.default_rng(number)
    units = []
    for emotion in range(len(LABELS)):
        known = WIDTH * (emotion % LAYERS) + np.arange(4)
        other = rng.choice(LAYERS * WIDTH, size=4, replace=False)
        units.append(np.unique(np.where(rng.random(4) < quality, known, other)))
    return SelectionInfo(
        units_per_emotion=[len(own) for own in units],
        units=[listed_units(own) for own in units],
        layer_histogram=[np.bincount(own // WIDTH, minlength=LAYERS).tolist() for own in units],
        ties="none at the boundary",
    )


def _provenance(seed: int) -> Provenance:
    return Provenance(
        affectbench="0.1.0", python="3.11.9", torch="2.13.0", transformers="5.23.0", lm_eval="0.4.13",
        numpy="2.4.6", platform="Linux x86_64", threads=1, batch_size=16, seed=seed,
        command="affectbench run quickstart", started="2026-11-20T12:00:00+00:00",
        finished="2026-11-20T12:00:12+00:00",
    )  # fmt: skip
