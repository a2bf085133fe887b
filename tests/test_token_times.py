"""When the tokens of a sound are heard, for every audio family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from remote_standins import tiny_remote
from tiny_models import AUDIO_FAMILIES, tiny_audio

from affectbench.alignment import features
from affectbench.alignment.features import hidden_states, prepared, token_seconds, token_spans
from affectbench.audio_io import SAMPLE_RATE
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError

STEP = {
    "audio_flamingo_3": 0.04, "gemma4": 0.04, "glm_asr": 0.08, "granite_speech": 0.1, "kimi_audio": 0.08,
    "minicpm_o": 0.04, "phi4_multimodal": 0.08, "qwen2_5_omni_thinker": 0.04, "qwen2_audio": 0.04,
    "qwen3_omni_moe_thinker": 1 / 13, "ultravox": 0.16, "voxtral": 0.08,
}  # fmt: skip
"""Seconds of sound behind one token, as the makers of the models state it or their strides multiply to.
Qwen3-Omni hears windows of a second by themselves: three halvings, each
rounded up, make 13 tokens of 100 frames."""
THINKER = "qwen3_omni_moe_thinker"
REMOTE = ("kimi_audio", "minicpm_o", "ultravox")


def made(name: str) -> Any:
    return tiny_remote(name) if name in REMOTE else tiny_audio(name)


def step_of(model: Any) -> float:
    """Ultravox stacks eight frames of 20 ms, its stand-in fewer."""
    stacked = model.whole.config.stack_factor if model.name == "ultravox" else 8
    return STEP[model.name] * stacked / 8


@pytest.fixture(params=[*AUDIO_FAMILIES, THINKER, *REMOTE])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "qwen2_audio":  # The window of the tiny tower is 2 s; of the real one, 30 s.
        monkeypatch.setattr(features, "SECONDS", ((1, 2),))
    return made(request.param)


def test_a_token_lasts_what_it_should(model: Any) -> None:
    assert token_seconds(model) == pytest.approx(step_of(model), abs=1e-9)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.83])
def test_tokens_fill_the_sound_and_begin_within_it(model: Any, seconds: float) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)
    (found,) = hidden_states(Engine(model), prepared(model, "noise", sound), len(sound))
    step = step_of(model)
    assert found.values.shape[1] == len(found.spans)
    np.testing.assert_allclose(found.spans[:, 0], np.arange(len(found.spans)) * step, atol=1e-9)
    assert found.spans[-1, 0] < seconds
    assert found.spans[-1, 1] > seconds - features.SLACK * step - 1e-9


def test_a_number_that_neither_fits_nor_fills_a_window_is_an_error(model: Any) -> None:
    right = model.embeddings_of(SAMPLE_RATE)
    for tokens in (max(1, right // 3), right + 40):
        with pytest.raises(AffectbenchError, match=r"for 1\.00 s of sound"):
            token_spans(model, SAMPLE_RATE, tokens)
