"""Open answers: drawn as the model's probabilities say, the same in any batch, and kept when a run stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny_models import items, tiny_dense
from transformers import TopPLogitsWarper
from typer.testing import CliRunner

from affectbench.cli import app
from affectbench.decoding import Decoding, Sampler
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.intervention import UNTOUCHED
from affectbench.open_answers import Answering, Asking
from affectbench.plan import job_of_names
from affectbench.readout import FAILED
from affectbench.registry import Registry
from affectbench.writing import Writer

ASK = ["answers", "reference-text-adapted", "--limit", "1", "--longest", "1", "--threads", "1"]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.8)])
def test_tokens_are_drawn_with_the_probabilities_of_transformers(temperature: float, top_p: float) -> None:
    logits = torch.tensor([1.0, 2.0, -1.0, 0.5, 1.5, -3.0])
    draws = 4000
    sampler = Sampler(temperature, top_p, seed=5)
    found = [int(sampler(logits, torch.tensor([place]), 0).argmax()) for place in range(draws)]
    kept = TopPLogitsWarper(top_p)(None, logits[None] / temperature)[0]
    expected = draws * kept.double().softmax(0).numpy()
    counts = np.bincount(found, minlength=6)
    assert not counts[expected == 0].any()
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.001


def test_a_drawn_text_depends_on_its_prompt_and_seed_and_not_on_its_batch() -> None:
    model = tiny_dense("Llama")
    data = items(model, 6)

    def texts(seed: int, places: list[int]) -> list[list[int]]:
        drawing = Decoding(8, temperature=1.0, top_p=0.95, seed=seed)
        return Writer(Engine(model), drawing).write(data.at(places), [UNTOUCHED])[0].tolist()

    together = texts(0, [0, 1, 2, 3, 4, 5])
    assert [texts(0, [place])[0] for place in range(6)] == together
    assert texts(1, [0, 1, 2, 3, 4, 5]) != together
    greedy = Writer(Engine(model), Decoding(8)).write(data, [UNTOUCHED])[0].tolist()
    assert together != greedy
    cold = Decoding(8, temperature=1e-4)
    assert Writer(Engine(model), cold).write(data, [UNTOUCHED])[0].tolist() == greedy


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_item_has_its_best_answer_and_drawn_ones(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    result = CliRunner().invoke(app, [*ASK, "--samples", "2", "-o", str(path)])
    assert result.exit_code == 0, result.output
    rows = rows_in(path)
    assert [row["sample"] for row in rows] == [0] * 7 + [1] * 7 + [2] * 7
    labels = {row["gold"] for row in rows}
    assert len(labels) == 7
    best = [row for row in rows if row["sample"] == 0]
    assert sum(row["answer"] == row["gold"] for row in best) >= 4  # It was adapted to answer these.
    assert not (tmp_path / "partial").exists()


def test_a_stopped_run_goes_on_and_writes_the_same(tmp_path: Path) -> None:
    registry = Registry()
    job = job_of_names(registry, "reference-text-adapted", None, (), (), 0)

    def run(path: Path, stop: int | None, notes: list[str]) -> None:
        def progress(done: int, total: int) -> None:
            if stop is not None and done >= stop:
                raise KeyboardInterrupt

        asking = Asking(most=3, samples=1)
        Answering(registry, job, asking, path, limit=2, tokens=400).run(progress, notes.append)

    notes: list[str] = []
    run(tmp_path / "whole" / "answers.jsonl", None, notes)
    path = tmp_path / "stopped" / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, 20, notes)
    assert notes == []
    assert not path.exists()
    run(path, None, notes)
    assert "going on from what is in" in notes[0]
    assert path.read_bytes() == (tmp_path / "whole" / "answers.jsonl").read_bytes()


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    asked = {
        "has no place for an item": [*ASK, "--question", "What do they feel?"],
        "asks for no label": ["answers", "reference-text-expressive", "--task", "scenarios"],
    }
    for message, command in asked.items():
        result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "a.jsonl")])
        assert isinstance(result.exception, AffectbenchError)
        assert message in result.exception.message


def test_an_answer_of_broken_numbers_is_an_error_and_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Writer.write

    def broken(self: Writer, *args: Any) -> np.ndarray:
        found = whole(self, *args)
        found[0, 0, 0] = FAILED
        return found

    monkeypatch.setattr(Writer, "write", broken)
    path = tmp_path / "answers.jsonl"
    result = CliRunner().invoke(app, [*ASK, "--samples", "0", "-o", str(path)])
    assert "1 items have an error" in result.output
    first, *others = rows_in(path)
    assert "not finite" in first["error"]
    assert "answer" not in first
    assert all("answer" in row for row in others)
