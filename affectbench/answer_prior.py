"""The analysis `answer-prior`: how much of recognition is the prompt's own prior, and what masks alone tell.

Accuracy and macro-F1 on test items as asked; after correction for the labels' prior, as identification items
show it and as prompts without content do (`affectbench.prior`); and where texts are reduced to their masked
words, alone and with the words before them ("made me ..."), which an emotion may be guessed from unread.
Source of the controls: docs/sae.md, for prompts and texts of arXiv 2604.25866.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from affectbench.analyses import Asked, Content
from affectbench.analysis import Column, Finding, Table, Value
from affectbench.errors import AffectbenchError
from affectbench.examples import Example
from affectbench.intervention import UNTOUCHED
from affectbench.label_free import macro_f1_of
from affectbench.prior import clustered_mean, corrected, label_prior
from affectbench.readout import Items, Predictions
from affectbench.score_models import Estimate

MASK = "..."
MASKED = re.compile(r"\.{2,}|…")
"""A masked word, as crowd-enVENT has it: two dots or more."""
AS_ASKED = "as asked"
ITEMS = "corrected for the prior on identification items"
EMPTY = "corrected for the prior of prompts with masks alone"
MASKS = "masks alone"
Answers = npt.NDArray[np.int64]


def masks_of(text: str, before: int = 0) -> str:
    """The masked words of a text, each behind so many `before` words of its; a single mask where there is
    none."""
    words = MASKED.sub(f" {MASK} ", text).split()
    near = {
        max(0, mask - back) for mask, word in enumerate(words) if word == MASK for back in range(before + 1)
    }
    return " ".join(words[place] for place in sorted(near)) or MASK


def analyse(asked: Asked) -> Content:
    """Raises `AffectbenchError` for items that are no texts, and where answers are generated."""
    session, before = asked.session, asked.number("words_before")
    if session.benchmark.modality != "text" or session.expressing is not None:
        raise AffectbenchError("only recognition of texts is asked without them", hint="choose such a task")
    test, seen = session.items("test"), session.items("identification")
    labels = session.benchmark.labels
    told, known = _asked(asked, test), _asked(asked, seen)
    if not np.isfinite(told.scores[0]).any():
        raise AffectbenchError(
            "a prior needs the likelihoods of the answers", hint="use the readout `labels` or `letters`"
        )
    shares = np.bincount(seen.gold, minlength=len(labels)) / len(seen)
    bare = session.altered("test", lambda each: _with(each, masks_of(each.text or "")))
    blank = session.altered("identification", lambda each: _with(each, masks_of(each.text or "")))
    empty = label_prior(_asked(asked, blank).scores[0])
    prior = label_prior(known.scores[0])
    rows: list[tuple[str, Items, Answers]] = [
        (AS_ASKED, test, told.codes[0].astype(np.int64)),
        (ITEMS, test, corrected(told.scores[0], prior, shares)),
        (EMPTY, test, corrected(told.scores[0], empty, shares)),
        (MASKS, bare, _asked(asked, bare).codes[0].astype(np.int64)),
    ]
    masked = sum(bool(MASKED.search(each.text or "")) for each in session.dataset.splits["test"])
    if masked:
        near = session.altered("test", lambda each: _with(each, masks_of(each.text or "", before)))
        name = f"masks and the {before} words before each"
        rows.append((name, near, _asked(asked, near).codes[0].astype(np.int64)))
    return Content(
        n={"items": len(test), "items_with_masks": masked, "clusters": len(set(test.clusters))},
        findings=findings(rows, shares, asked),
        tables=[scores(rows, asked), priors(labels, shares, prior, empty)],
        notes=[] if masked else ["No test item has a masked word: its text is replaced by one mask."],
    )


def findings(
    rows: Sequence[tuple[str, Items, Answers]], shares: npt.NDArray[np.float64], asked: Asked
) -> list[Finding]:
    """Accuracy of each way of asking, and what always giving the most frequent label gets."""
    names = ("asked", "corrected", "corrected-empty", "masks", "masks-and-words")
    told = [
        Finding(name=name, text=f"Accuracy, {way}:", value=_accuracy(items, answers, asked))
        for name, (way, items, answers) in zip(names, rows, strict=False)
    ]
    most = rows[0][1].gold == int(shares.argmax())
    value = Estimate(value=float(most.mean()))
    return [*told, Finding(name="majority", text="Share of the most frequent label:", value=value)]


def scores(rows: Sequence[tuple[str, Items, Answers]], asked: Asked) -> Table:
    """Accuracy, its change, macro-F1 and the largest share of one answer, one row a way of asking."""
    labels = len(asked.session.benchmark.labels)
    _, whole, base = rows[0]
    right = dict(zip(whole.ids, (base == whole.gold).tolist(), strict=True))
    values: list[list[Value]] = []
    for place, (way, items, answers) in enumerate(rows):
        before = np.array([right.get(item, False) for item in items.ids])
        change = None if not place else _mean(1.0 * (answers == items.gold) - before, items, asked)
        share = np.bincount(answers[answers >= 0], minlength=labels).max() / len(answers)
        f1 = macro_f1_of(items.gold, answers, labels)
        values.append([way, _accuracy(items, answers, asked), change, f1, float(share)])
    names = ("test items", "accuracy", "change", "macro-F1", "largest share of an answer")
    columns = [Column(name=name) for name in names]
    note = "Intervals are 95 %, over clusters. Changes are against the first row, on the same items."
    return Table(name="scores", title="Recognition and the prior", columns=columns, rows=values, note=note)


def priors(
    labels: Sequence[str], shares: npt.NDArray[np.float64], prior: npt.NDArray[np.float64],
    empty: npt.NDArray[np.float64],
) -> Table:  # fmt: skip
    """What each label gets on average, beside how frequent it is."""
    rows: list[list[Value]] = [
        [label, float(share), float(own), float(bare)]
        for label, share, own, bare in zip(labels, shares, prior, empty, strict=True)
    ]
    names = ("label", "share of items", "mean probability", "with masks alone")
    columns = [Column(name=name, digits=3) for name in names]
    return Table(
        name="priors", title="Probability of each label, identification items", columns=columns, rows=rows
    )


def _with(example: Example, text: str) -> Example:
    return replace(example, text=text)


def _asked(asked: Asked, items: Items) -> Predictions:
    session = asked.session
    return session.engine.predict(items, session.readout, [UNTOUCHED], asked.progress)


def _mean(values: npt.NDArray[np.float64], items: Items, asked: Asked) -> Estimate:
    return clustered_mean(values, items.clusters, draws=asked.number("bootstrap_draws"), seed=asked.seed)


def _accuracy(items: Items, answers: Answers, asked: Asked) -> Estimate:
    return _mean(1.0 * (answers == items.gold), items, asked)
