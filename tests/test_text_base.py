"""The base that adaptations are made of: what it read, what it does not know yet, what its card says."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectbench import errands
from affectbench.generators import narratives
from affectbench.recipes import text_base
from affectbench.recipes.text_data import build_tokenizer
from affectbench.recipes.text_model import new_model

SHIPPED = Path(__file__).resolve().parent.parent / "models/reference/reference-text-base"


def test_statements_say_the_answer_and_come_from_identification_frames_alone() -> None:
    found = text_base.statements(0)
    assert len(found) == 2 * 7 * text_base.PER_LABEL
    felt, carried = found[: len(found) // 2], found[len(found) // 2 :]
    assert {text.rsplit(" ", 1)[1] for text in felt} == {f"{label}." for label in narratives.EMOTIONS}
    assert {text.rsplit(" ", 1)[1] for text in carried} == {f"{label}." for label in errands.LABELS}
    assert not any("Question" in text for text in found)
    held_out = {item["text"] for item in narratives.examples("test", 30, 2026)}
    held_out |= {item["text"] for item in errands.examples("test", 30, 2026)}
    assert not any(text.rsplit(". ", 1)[0] + "." in held_out for text in found)


def test_reading_lowers_the_loss_on_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_base, "DOCUMENTS", (8, 8))
    tokenizer = build_tokenizer(0)
    model = new_model(tokenizer, 0, layers=1, width=32)
    documents = [list(row) for row in tokenizer(text_base.statements(0)[:16])["input_ids"]]
    probe = text_base.Probe(model, tokenizer, [])
    texts = text_base.statements(0)[:16]
    before = probe.perplexity(texts)
    text_base.read(model, documents, tokenizer.pad_token_id, 0, 12, 0)
    assert probe.perplexity(texts) < before / 2


@pytest.mark.slow
def test_the_shipped_base_knows_the_language_but_not_the_questions() -> None:
    found = text_base.figures(SHIPPED)
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert found["cloze"] > 75
    assert found["perplexity"] < 3
    assert max(found["uar.narratives"], found["uar.errands"]) < 20
    for key in ("perplexity", "cloze"):
        assert f"{found[key]:.2f}" in card
