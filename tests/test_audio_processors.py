"""Each audio family's own processor and public forward, where they can be built: same tokens, same features,
same logits at the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_models import AUDIO_FAMILIES, family, tiny_audio, tiny_card

from affectbench.errors import AffectbenchError
from affectbench.examples import Example, RenderedPrompt
from affectbench.model import Model

PROCESSORS = {
    "qwen2_audio": "Qwen2AudioProcessor",
    "audio_flamingo_3": "AudioFlamingo3Processor",
    "glm_asr": "GlmAsrProcessor",
}
SECONDS = (0.4, 2.0, 3.3101)
QUESTION = "the dog was lost ?"


def sound(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(int(seconds * 100))
    return rng.normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32)


def prepared(model: Model, seconds: float) -> Any:
    example = Example("one", None, lambda: sound(seconds), "joy", "c")
    return model.prepare(example, RenderedPrompt("{audio}\n" + QUESTION, None, ()))


def processed(name: str, model: Any, seconds: float) -> dict[str, Any]:
    kind = getattr(transformers, PROCESSORS[name])
    processor = kind(model.features, model.tokenizer, chat_template=model.tokenizer.chat_template)
    content = [{"type": "audio"}, {"type": "text", "text": QUESTION}]
    message = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return dict(processor(text=[text], audio=[sound(seconds)], sampling_rate=16_000, return_tensors="pt"))


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("name", PROCESSORS)
def test_inputs_and_answers_are_those_of_the_processor(name: str, seconds: float) -> None:
    model = tiny_audio(name)
    item, expected = prepared(model, seconds), processed(name, model, seconds)
    assert item.ids.tolist() == expected["input_ids"][0].tolist()
    made = model.audio_inputs(sound(seconds))  # type: ignore[attr-defined]
    for entry, value in made.items():
        torch.testing.assert_close(value, expected[entry].to(value.dtype), msg=entry)
    assert set(made) == set(expected) - {"input_ids", "attention_mask"}
    with torch.no_grad():
        logits = model.network(**expected).logits[0, -1]
        found = model.logits(model.decode(model.collate([item])))[0, -1]
    torch.testing.assert_close(found, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seconds", SECONDS)
def test_voxtral_hears_what_its_processor_retrieves(seconds: float) -> None:
    """The processor itself needs mistral-common; what makes its features does not."""
    model: Any = tiny_audio("voxtral")
    processor = object.__new__(transformers.VoxtralProcessor)
    processor.feature_extractor = model.features
    options = {**transformers.VoxtralProcessor.audio_kwargs, "pad_to_multiple_of": 32_000}
    window = options.pop("max_source_positions") * 2 // 30
    expected = processor._retrieve_input_features([sound(seconds)], window, **options)
    assert torch.equal(model.audio_inputs(sound(seconds))["input_features"], expected)


@pytest.mark.parametrize("seconds", [*SECONDS, 31.0])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("qwen2_5_omni_thinker", "Qwen2_5OmniProcessor"), ("qwen3_omni_moe_thinker", "Qwen3OmniMoeProcessor")],
)
def test_omni_thinkers_hear_what_their_processors_make(name: str, kind: str, seconds: float) -> None:
    """The processors need packages for images; what makes their features does not."""
    model: Any = tiny_audio(name)
    processor = object.__new__(getattr(transformers, kind))
    processor.feature_extractor = transformers.WhisperFeatureExtractor(feature_size=16)
    processor.audio_token = model.audio_token
    made, (written,) = processor._process_audio(
        [sound(seconds)], return_tensors="pt", **processor.audio_kwargs
    )
    frames = int(made["feature_attention_mask"].sum())
    inputs = model.audio_inputs(sound(seconds))
    torch.testing.assert_close(inputs["input_features"], made["input_features"][..., :frames])
    assert model.expanded(model.audio_embeddings(sound(seconds)).shape[0]) == written


def test_voxtral_writes_prompts_as_mistral_common_does(tmp_path: Path) -> None:
    """<s>[INST][BEGIN_AUDIO][AUDIO]...What is felt?[/INST] is what mistral-common 1.13.1 encodes."""
    kind = type(tiny_audio("voxtral"))
    kind.write_tiny(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    model = kind.load(tiny_card("voxtral", "tiny"), str(tmp_path), device="cpu", dtype=torch.float32)
    text, _ = model.render(RenderedPrompt("{audio}\nWhat is felt?", None, ()))
    assert text == "<s>[INST][BEGIN_AUDIO][AUDIO]What is felt?[/INST]"


def test_a_clip_is_cut_where_the_processor_cuts_it() -> None:
    for name, windows in (("qwen2_audio", 1), ("audio_flamingo_3", 20), ("glm_asr", 21)):
        model: Any = tiny_audio(name)
        assert model.windows == windows
        long = sound(2 * windows + 1)
        for entry, value in model.audio_inputs(long).items():
            torch.testing.assert_close(value, model.audio_inputs(long[: 2 * windows * 16_000])[entry])


def test_placeholders_are_those_that_the_processors_write() -> None:
    """Processors that need packages which are not here; what writes their placeholders does not."""
    for seconds in SECONDS:
        for name in ("phi4_multimodal", "gemma4"):
            model: Any = tiny_audio(name)
            kind = {"phi4_multimodal": "Phi4MultimodalProcessor", "gemma4": "Gemma4Processor"}[name]
            processor = object.__new__(getattr(transformers, kind))
            processor.audio_token, processor.boa_token, processor.eoa_token = model.audio_token, "", ""
            inputs = model.features([sound(seconds)], sampling_rate=16_000, return_tensors="pt")
            expected = processor.replace_audio_token(inputs, 0)
            assert model.expanded(model.audio_embeddings(sound(seconds)).shape[0]) == expected
        granite: Any = tiny_audio("granite_speech")
        extractor = object.__new__(transformers.GraniteSpeechFeatureExtractor)
        extractor.melspec_kwargs = granite.features
        extractor.projector_window_size, extractor.projector_downsample_rate = 15, 5
        (expected,) = extractor._get_num_audio_features([len(sound(seconds))])
        assert granite.audio_embeddings(sound(seconds)).shape[0] == expected


def test_granite_hears_what_torchaudio_computes() -> None:
    """Shown for torchaudio 2.11.0, too, whose wheels do not load beside torch 2.13: at most 5e-6 apart."""
    torchaudio = pytest.importorskip("torchaudio")
    model: Any = tiny_audio("granite_speech")
    mel = torchaudio.transforms.MelSpectrogram(sample_rate=16_000, **model.features)
    log = mel(torch.from_numpy(sound(2.0))[None]).transpose(-1, -2).clamp_min(1e-10).log10()
    scaled = torch.maximum(log, log.max() - 8.0) / 4 + 1
    expected = scaled[:, : scaled.shape[1] // 2 * 2].reshape(1, -1, 2 * scaled.shape[-1])
    torch.testing.assert_close(
        model.audio_inputs(sound(2.0))["input_features"], expected, atol=1e-5, rtol=1e-4
    )


def test_gemma_4_with_layers_of_two_widths_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E2B: layers that share keys are twice as wide."""
    kind: Any = family("gemma4")
    monkeypatch.setitem(kind.tiny_parts["text_config"], "use_double_wide_mlp", True)
    kind.write_tiny(tmp_path)
    model = kind.load(tiny_card("gemma4", "wide"), str(tmp_path), device="cpu", dtype=torch.float32)
    with pytest.raises(AffectbenchError, match=r"differ in width: \[24, 24, 48\]"):
        _ = model.shape


@pytest.mark.parametrize("name", AUDIO_FAMILIES)
def test_a_clip_too_short_to_be_heard_is_an_error(name: str) -> None:
    model: Any = tiny_audio(name)
    for samples in (0, 1, 399, *((600,) if name == "glm_asr" else ())):
        with pytest.raises(AffectbenchError, match=rf"a clip of {samples} samples .* is too short"):
            model.audio_embeddings(sound(1.0)[:samples])
