"""The shipped audio reference model: well-formed ground truth, causal where it says so, loaded plainly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectbench.audio_features import audio_token_count, log_mel
from affectbench.generators import speech
from affectbench.recipes import measure
from affectbench.recipes.audio_probe import AudioProbe, load
from affectbench.recipes.audio_training import (
    AUDIO,
    AUDIO_BOS,
    AUDIO_EOS,
    EMOTION_QUESTION,
    answer_ids,
    featurise,
)

FOLDER = Path(__file__).parents[1] / "models" / "reference" / "reference-audio"


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "planted.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def probe() -> AudioProbe:
    return load(FOLDER)


def test_planted_and_decoy_units_are_disjoint_and_in_the_last_two_layers(truth: dict[str, Any]) -> None:
    units = [unit for kind in ("planted", "decoys") for ids in truth[kind].values() for unit in ids]
    assert len(units) == len(set(units)) == 2 * 20 * len(speech.LABELS)
    assert {unit // truth["width"] for unit in units} == {2, 3}


def test_no_emotion_is_favoured_by_the_strengths(truth: dict[str, Any]) -> None:
    sums = [sum(truth["strengths"][label]) for label in speech.LABELS]
    assert np.allclose(sums, sums[0])


@torch.no_grad()
def test_the_cached_path_gives_the_logits_of_the_public_forward(probe: AudioProbe) -> None:
    items = speech.examples("validation", 1, 7)[:3]
    batch = probe.batches(featurise(items))[0]
    labels = answer_ids(probe.tokenizer, speech.LABELS)
    for item, expected in zip(items, probe.answer(batch)[0], strict=True):
        mel = torch.from_numpy(log_mel(speech.synthesise(item)).astype(np.float16).astype(np.float32))[None]
        prompt = AUDIO_BOS + AUDIO * audio_token_count(mel.shape[2]) + AUDIO_EOS + EMOTION_QUESTION
        logits = probe.model(
            **probe.tokenizer(prompt, return_tensors="pt"),
            input_features=mel,
            feature_attention_mask=torch.ones(1, mel.shape[2], dtype=torch.long),
        ).logits
        assert torch.allclose(logits[0, -1, labels], expected, atol=1e-4)


def test_planted_units_carry_their_emotion_and_decoys_do_not(
    probe: AudioProbe, truth: dict[str, Any]
) -> None:
    clips = featurise(speech.examples("test", 12, 7))
    batches, gold = probe.batches(clips), clips.label
    base = probe.predict(batches)
    assert np.mean(base == gold) > 0.6
    effects = {}
    for kind in ("planted", "decoys"):
        sets = [np.array(truth[kind][label]) for label in speech.LABELS]
        rows = measure.effect(probe.layers, sets, 0.0, lambda: probe.predict(batches))
        effects[kind] = measure.ablated(rows, base, gold)
    assert effects["planted"][0] < -50
    assert abs(effects["planted"][1]) < 8
    assert abs(effects["decoys"][0]) < 8
