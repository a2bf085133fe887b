"""Judged replies -> matrices, accuracies and rates, with intervals over scenarios."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from affectbench import stats
from affectbench.effects import LEVEL, UNDEFINED_DRAWS, estimate_of
from affectbench.expression_models import Expression, ReplyExample, ReplyScore
from affectbench.outcomes import UNPARSED, Array
from affectbench.replies import Replies
from affectbench.score_models import Estimate
from affectbench.stats import FloatArray

RATES = ("none", "masked", "noun", "stem", "degenerate", "capped", "topicality")
GRAM = 3


def score_expression(
    replies: Replies, judge: str, digest: str, *, seed: int, groups: tuple[int, int] = (0, 0),
    bootstrap_draws: int = 2_000,
) -> Expression:  # fmt: skip
    """Score the replies of one cell. `groups`: usable and all groups that units were identified on.

    Intervals are percentiles of a bootstrap over scenarios.
    """
    keys = list(dict.fromkeys(zip(replies.prompt, replies.condition, map(float, replies.dose), strict=True)))
    names = np.array(replies.labels, dtype=object)
    scores = {}
    for prompt, condition, dose in keys:
        chosen = (replies.prompt == prompt) & (replies.condition == condition)
        if condition != "base":
            chosen &= (replies.dose == dose) & (replies.target == names[replies.gold])
        scores[prompt, condition, None if condition == "base" else dose] = _score(
            replies.where(chosen), seed, bootstrap_draws
        )
    return Expression(
        judge=judge,
        digest=digest,
        n_groups=groups[0],
        n_asked=groups[1],
        prompting=scores.pop(("elicited", "base", None)),
        plain=scores.pop(("plain", "base", None)),
        conditions=list(scores.values()),
        examples=_examples(replies),
    )


def _examples(replies: Replies) -> list[ReplyExample]:
    """The texts of the first scenario and outcome, of suppressed ones those told to express that emotion."""
    group = min(replies.item[replies.prompt == "plain"])
    words = [*replies.labels, "none"]
    found = []
    for place in range(len(replies)):
        row = {name: values[place] for name, values in replies.columns.items()}
        own = row["item"] == group or row["item"].startswith(f"{group}__")
        if not own or (row["condition"] == "suppress" and row["target"] != replies.labels[row["gold"]]):
            continue
        target = replies.labels[row["gold"]] if row["gold"] >= 0 else ""
        code = int(row["code"])
        found.append(
            ReplyExample(
                prompt=row["prompt"],
                condition=row["condition"],
                dose=None if row["condition"] == "base" else float(row["dose"]),
                target=target,
                item=row["item"],
                text=row["text"],
                judged=words[code] if code >= UNPARSED else f"no judgement ({row['failure']})",
            )
        )
    return found


def rescored(known: Expression, replies: Replies, seed: int) -> Expression:
    """The same part of a record, from its stored replies."""
    groups = known.n_groups, known.n_asked
    return score_expression(replies, known.judge, known.digest, seed=seed, groups=groups)


def distinct(texts: Iterable[str], size: int = GRAM) -> float | None:
    """Different word n-grams over all n-grams of the texts together, in (0, 1]; None where there is none."""
    grams = [
        tuple(words[place : place + size])
        for words in (text.split() for text in texts)
        for place in range(len(words) - size + 1)
    ]
    return len(set(grams)) / len(grams) if grams else None


def _score(replies: Replies, seed: int, draws: int) -> ReplyScore:
    labels = replies.labels
    aimed = bool((replies.gold >= 0).all())
    row = replies.gold.astype(np.int64) if aimed else np.zeros(len(replies), dtype=np.int64)
    rows = list(labels) if aimed else ["no emotion"]
    table, n_clusters = _table(replies, row, len(rows))
    sizes = len(rows), len(labels)

    def statistics(sums: FloatArray) -> FloatArray:
        return _statistics(sums, *sizes)

    point = statistics(table.sum(axis=0, dtype=np.float64)[None])[0]
    drawn = stats.bootstrap(table, statistics, draws=draws, seed=seed) if n_clusters > 1 else point[None]
    cells = len(rows) * (len(labels) + 1)
    low, high = _bounds(point, drawn, cells)
    estimates = {
        name: _estimate(point[cells + k], drawn[:, cells + k]) for k, name in enumerate(("accuracy", *RATES))
    }
    judged = replies.code >= UNPARSED
    right = replies.code == row
    return ReplyScore(
        prompt=str(replies.prompt[0]),  # type: ignore[arg-type]
        condition=str(replies.condition[0]),  # type: ignore[arg-type]
        dose=None if replies.condition[0] == "base" else float(replies.dose[0]),
        rows=rows,
        matrix=_matrix(point[:cells], len(rows)),
        low=_matrix(low, len(rows)),
        high=_matrix(high, len(rows)),
        n=len(replies),
        n_clusters=n_clusters,
        accuracy=estimates["accuracy"] if aimed else None,
        accuracy_judged=float(right[judged].mean()) if aimed and judged.any() else None,
        masked_accuracy=estimates["masked"] if aimed else None,
        none=estimates["none"],
        judged_share=float(judged.mean()),
        n_request=int((replies.failure == "request").sum()),
        n_parse=int((replies.failure == "parse").sum()),
        n_model=int((replies.failure == "model").sum()),
        noun=estimates["noun"] if aimed else None,
        stem=estimates["stem"] if aimed else None,
        degenerate=estimates["degenerate"],
        capped=estimates["capped"],
        distinct_3=distinct(replies.text),
        topicality=estimates["topicality"],
    )


def _table(replies: Replies, row: Array, n_rows: int) -> tuple[FloatArray, int]:
    """(C, n_rows + n_rows * (E + 1) + 7) sums by cluster: texts of each row, judged cells, rates."""
    clusters, n_clusters = stats.cluster_codes(replies.cluster.astype(str))
    n_labels = len(replies.labels)
    column = np.where(replies.code == UNPARSED, n_labels, replies.code).astype(np.int64)
    known = column >= 0
    flat = row * (n_labels + 1) + column
    rates: list[Any] = [
        replies.code == UNPARSED,
        (replies.masked_code == row) & (replies.gold >= 0),
        *(replies.columns[name] for name in RATES[2:]),
    ]

    def summed(values: Array, weights: Array | None, width: int) -> FloatArray:
        counts = np.bincount(values, weights=weights, minlength=n_clusters * width)
        return counts.reshape(n_clusters, width).astype(np.float64)

    parts = [
        summed(clusters * n_rows + row, None, n_rows),
        summed((clusters * n_rows * (n_labels + 1) + flat)[known], None, n_rows * (n_labels + 1)),
        *(summed(clusters, np.asarray(values, dtype=np.float64), 1) for values in rates),
    ]
    return np.concatenate(parts, axis=1), n_clusters


def _statistics(sums: FloatArray, n_rows: int, n_labels: int) -> FloatArray:
    """(D, T) sums -> (D, cells + 1 + rates): the matrix, the mean of its diagonal, and the rates."""
    size = n_rows * (n_labels + 1)
    texts, cells, rates = np.split(sums, [n_rows, n_rows + size], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = cells.reshape(-1, n_rows, n_labels + 1) / texts[:, :, None]
        found = rates / texts.sum(axis=1, keepdims=True)
    accuracy = np.diagonal(matrix, axis1=1, axis2=2).mean(axis=1, keepdims=True)
    return np.concatenate([matrix.reshape(-1, size), accuracy, found], axis=1)


def _estimate(value: float, drawn: FloatArray) -> Estimate:
    return estimate_of(float(value), drawn) if len(drawn) > 1 else Estimate(value=round(float(value), 12))


def _bounds(point: FloatArray, drawn: FloatArray, cells: int) -> tuple[FloatArray, FloatArray]:
    """Percentiles of the matrix; the points themselves where too few resamples hold every row."""
    defined = drawn[np.isfinite(drawn[:, :cells]).all(axis=1), :cells]
    if len(defined) < max(2.0, (1 - UNDEFINED_DRAWS) * len(drawn)):
        return point[:cells], point[:cells]
    low, high = np.quantile(defined, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return low, high


def _matrix(flat: FloatArray, rows: int) -> list[list[float]]:
    found: list[list[float]] = np.round(flat.reshape(rows, -1), 6).tolist()
    return found
