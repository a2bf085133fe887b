"""Correcting answers for a prompt's prior, against closed forms; and what is answered to masks alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectbench.analyses import ANALYSES, Asked, Content
from affectbench.answer_prior import analyse, masks_of
from affectbench.dataset import Dataset, load_benchmark, prompt_text
from affectbench.errors import ScoreError
from affectbench.examples import Example
from affectbench.placement import Options, Order, Placement
from affectbench.plan import job_of_names
from affectbench.prior import LOST, clustered_mean, corrected, label_prior, probabilities
from affectbench.registry import Registry
from affectbench.score_models import Estimate
from affectbench.session import Session

SETTINGS = ANALYSES["answer-prior"].settings | {"bootstrap_draws": 50}
LIMIT = 3


class TestPrior:
    def test_probabilities_of_logits_and_of_log_likelihoods_are_those_among_the_labels(self) -> None:
        found = probabilities(np.log([[0.02, 0.06], [0.3, 0.1]]))
        assert found == pytest.approx(np.array([[0.25, 0.75], [0.75, 0.25]]))
        assert np.isnan(probabilities([[np.nan, 0.0], [0.0, -np.inf]])).all()

    def test_a_known_shift_of_the_prior_is_undone(self) -> None:
        """Posteriors with even classes, tilted as Bayes' rule tilts them; corrected they come back."""
        true = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6], [0.4, 0.35, 0.25]])
        tilt = np.array([1.0, 4.0, 0.5])
        tilted = true * tilt / (true * tilt).sum(axis=1, keepdims=True)
        assert tilted.argmax(axis=1).tolist() != true.argmax(axis=1).tolist()
        found = corrected(np.log(tilted), tilt / tilt.sum(), np.full(3, 1 / 3))
        assert found.tolist() == true.argmax(axis=1).tolist()

    def test_the_ratio_by_hand_where_labels_are_not_equally_frequent(self) -> None:
        scores = np.log([[0.5, 0.5], [0.55, 0.45]])
        # 0.5 * 0.6 / 0.7 < 0.5 * 0.4 / 0.3, and so for the second; with the shares as the prior, all stays.
        assert corrected(scores, [0.7, 0.3], [0.6, 0.4]).tolist() == [1, 1]
        assert corrected(scores, [0.6, 0.4], [0.6, 0.4]).tolist() == [0, 0]

    def test_what_is_added_to_all_scores_of_an_item_changes_nothing(self) -> None:
        rng = np.random.default_rng(0)
        scores = rng.normal(size=(50, 4))
        moved = scores + rng.normal(size=(50, 1)) * 20
        prior, shares = label_prior(scores), np.array([0.1, 0.2, 0.3, 0.4])
        assert label_prior(moved) == pytest.approx(prior)
        assert (corrected(moved, prior, shares) == corrected(scores, prior, shares)).all()

    def test_items_without_scores_are_left_out_and_lost(self) -> None:
        scores = np.log([[0.5, 0.5], [0.9, 0.1]])
        scores[0] = np.nan
        assert label_prior(scores) == pytest.approx([0.9, 0.1])
        assert corrected(scores, [0.5, 0.5], [0.5, 0.5]).tolist() == [LOST, 0]
        with pytest.raises(ScoreError, match="no item has finite scores"):
            label_prior(scores[:1])

    def test_a_mean_over_clusters_has_the_interval_of_their_means(self) -> None:
        values, clusters = np.repeat([0.0, 1.0], 5), np.repeat(["a", "b"], 5).tolist()
        assert clustered_mean(values, clusters, draws=400, seed=0) == Estimate(value=0.5, low=0.0, high=1.0)
        assert clustered_mean(values[:5], clusters[:5], draws=400, seed=0) == Estimate(value=0.0)


def test_masks_with_and_without_the_words_before_them() -> None:
    text = "He shouted at me. That made me ... and later very ...."
    assert masks_of(text) == "... ..."
    assert masks_of(text, 2) == "made me ... later very ..."
    assert masks_of("... when I saw it", 2) == "..."
    assert masks_of("I felt ....., ...", 3) == "I felt ... , ..."
    assert masks_of("It rained.") == masks_of("") == "..."


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    registry = Registry(installed=False)
    job = job_of_names(registry, "reference-text", "reference-narratives", (), (), 0)
    dataset = load_benchmark(job.benchmark, None, LIMIT)
    options = Options(tmp_path_factory.mktemp("out"), limit=LIMIT)
    return Placement(registry, Order(job, dataset, (), ()), options, lambda _text: None).session


def masked(session: Session) -> Session:
    """The same model on items whose last two words are masked."""

    def mask(example: Example) -> Example:
        assert example.text is not None
        return replace(example, text=" ".join([*example.text.split()[:-2], "...", "..."]))

    old = session.dataset
    splits = {name: tuple(map(mask, every)) for name, every in old.splits.items()}
    dataset = Dataset(old.benchmark, splits, old.errors, old.dropped)
    return replace(session, dataset=dataset)


def by_hand(session: Session, split: Any, before: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the labels from transformers' own forward, and gold, item by item."""
    words = [tokens[0] for tokens in session.readout.candidates]
    found, gold = [], []
    for example in session.dataset.splits[split]:
        own = example if before is None else replace(example, text=masks_of(example.text or "", before))
        item = session.model.prepare(own, prompt_text(session.benchmark, own))
        with torch.no_grad():
            logits = session.model.network(input_ids=item.ids[None]).logits[0, -1, words]
        found.append(torch.log_softmax(logits.double(), -1).numpy())
        gold.append(session.benchmark.labels.index(example.label))
    return np.stack(found), np.array(gold)


def column(content: Content, name: str) -> dict[str, Any]:
    table = content.tables[0]
    place = [each.name for each in table.columns].index(name)
    return {str(row[0]): row[place] for row in table.rows}


def test_every_way_of_asking_against_the_public_forward(session: Session) -> None:
    session = masked(session)
    content = analyse(Asked(session, 0, SETTINGS))
    (plain, gold), (seen, told) = (by_hand(session, split, None) for split in ("test", "identification"))
    bare, near = (by_hand(session, "test", before)[0] for before in (0, 2))
    shares = np.bincount(told, minlength=7) / len(told)
    prior = np.exp(seen).mean(axis=0)
    empty = np.exp(by_hand(session, "identification", 0)[0]).mean(axis=0)
    expected = [
        each.argmax(1)
        for each in (plain, plain + np.log(shares / prior), plain + np.log(shares / empty), bare, near)
    ]
    found = column(content, "accuracy")
    assert [each.value for each in found.values()] == pytest.approx([(e == gold).mean() for e in expected])
    changes = list(column(content, "change").values())
    assert changes[0] is None
    base = (expected[0] == gold).mean()
    assert [each.value for each in changes[1:]] == pytest.approx(
        [(each == gold).mean() - base for each in expected[1:]]
    )
    assert list(found)[-1] == "masks and the 2 words before each"
    assert content.n["items_with_masks"] == len(gold)
    assert len({tuple(each) for each in expected}) > 1
    rows = {str(row[0]): row[1:] for row in content.tables[1].rows}
    for place, label in enumerate(session.benchmark.labels):
        assert rows[label] == pytest.approx([shares[place], prior[place], empty[place]], abs=1e-5)


def test_without_masks_the_text_is_one_mask_and_the_page_says_so(session: Session) -> None:
    content = analyse(Asked(session, 0, SETTINGS))
    assert content.n["items_with_masks"] == 0
    assert len(content.tables[0].rows) == 4
    assert "No test item has a masked word" in content.notes[0]
    # One prompt for all: one answer for all.
    assert column(content, "largest share of an answer")["masks alone"] == 1.0
    majority = next(each for each in content.findings if each.name == "majority")
    assert column(content, "accuracy")["masks alone"].value == pytest.approx(majority.value.value)


def test_the_command_makes_it(tmp_path: Path, run_cli: Any) -> None:
    line = (
        "analyse",
        "answer-prior",
        "--model",
        "reference-text",
        "--limit",
        3,
        "--threads",
        1,
        "-o",
        tmp_path,
    )
    code, said, error = run_cli(*line)
    assert code == 0, error
    assert "Accuracy, masks alone:" in said
