"""LoRA adapters that run for items with a sound alone, as the class's own `generate` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import LABELS, family, items, readout, tiny_audio, tiny_card

from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.examples import Example, RenderedPrompt
from affectbench.intervention import UNTOUCHED, scale
from affectbench.readout import Items, Readout

peft = pytest.importorskip("peft")
SETTINGS = {"r": 2, "target_modules": ["q_proj", "v_proj", "qkv_proj"], "init_lora_weights": False}
SOUND = np.random.default_rng(0).normal(scale=0.1, size=12_000).astype(np.float32)
EXAMPLE = Example("one", None, lambda: SOUND, "joy", "c")
PROMPT = RenderedPrompt("{audio} the dog was lost ?", None, LABELS)
FAMILIES = ("granite_speech", "phi4_multimodal")


def rewrite(folder: Path, old: str, new: str) -> None:
    text = (folder / "config.json").read_text()
    assert old in text
    (folder / "config.json").write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints with an adapter where each family's publisher puts it."""
    found = {}
    for name in FAMILIES:
        folder = found[name] = tmp_path_factory.mktemp(name)
        kind = family(name)
        kind.write_tiny(folder)
        network: Any = kind.load(tiny_card(name, "plain", str(folder)), str(folder), device="cpu",
                                 dtype=torch.float32).network  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network.add_adapter(peft.LoraConfig(**SETTINGS))
        if name == "granite_speech":
            # Of what the class saves, the adapter alone: the names of its weights are not found again.
            network.save_pretrained(str(folder / "saved"))
            for path in (folder / "saved").glob("adapter_*"):
                path.rename(folder / path.name)
            rewrite(folder, '"has_lora_adapter": false', '"has_lora_adapter": true')
        else:
            network.save_pretrained(folder / "speech-lora")
    return found


def load(folders: dict[str, Path], name: str) -> Any:
    card = tiny_card(name, "adapted", str(folders[name]))
    return family(name).load(card, str(folders[name]), device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_adapter_runs_for_sounds_alone(folders: dict[str, Path], name: str) -> None:
    model, plain = load(folders, name), tiny_audio(name)
    item = model.prepare(EXAMPLE, PROMPT)
    text = model.open_prompt("text", "the dog was lost ?")
    for _ in range(2):  # There and back.
        for given, adapted in ((item, True), (text, False)):
            found = model.logits(model.decode(model.collate([given])))[0, -1]
            model.network.enable_adapters() if adapted else model.network.disable_adapters()
            heard = model.audio_inputs(SOUND) if adapted else {}
            with torch.no_grad():
                expected = model.network(input_ids=given.ids[None], **heard).logits[0, -1]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            bare = plain.logits(plain.decode(plain.collate([given])))[0, -1]
            assert torch.allclose(found, bare, atol=1e-4) != adapted


def test_generated_tokens_are_those_of_generate(folders: dict[str, Path]) -> None:
    """Of Granite, whose own `generate` switches the adapter; the later steps see no sound."""
    model = load(folders, "granite_speech")
    item = model.prepare(EXAMPLE, PROMPT)
    told = model.network.generate(
        input_ids=item.ids[None], **model.audio_inputs(SOUND), max_new_tokens=5, do_sample=False
    )[0, len(item) :]
    texts: list[str] = []
    asked = Readout(LABELS, readout(model).candidates, 5, lambda text, _order: texts.append(text) or 0)
    data = Items("test", (item,), np.zeros(1, dtype=np.int64), ("c",))
    edit = scale("neuron", model.shape, np.arange(4) + 48, 0.0)
    Engine(model).predict(data, asked, [UNTOUCHED, edit])
    assert texts[0] == model.tokenizer.decode(told, skip_special_tokens=True)


def test_texts_and_sounds_cannot_share_a_pass(folders: dict[str, Path]) -> None:
    model = load(folders, "granite_speech")
    mixed = model.collate([model.prepare(EXAMPLE, PROMPT), items(model, 1).items[0]])
    with pytest.raises(AffectbenchError, match="with and without a sound cannot share a pass"):
        model.decode(mixed)


def test_an_adapter_that_cannot_be_loaded_is_an_error(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.utils.is_peft_available", lambda: False)
    with pytest.raises(AffectbenchError, match="only the package peft can load"):
        load(folders, "phi4_multimodal")


def test_a_model_without_the_adapter_that_it_names_is_an_error(tmp_path: Path) -> None:
    kind = family("granite_speech")
    kind.write_tiny(tmp_path)
    rewrite(tmp_path, '"has_lora_adapter": false', '"has_lora_adapter": true')
    with pytest.raises(AffectbenchError, match="says that it has a LoRA adapter"):
        kind.load(tiny_card("granite_speech", "bare"), str(tmp_path), device="cpu", dtype=torch.float32)


def test_weights_saved_under_an_adapter_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Else transformers would replace them by random numbers and say nothing of it."""
    for source in (folders["granite_speech"], folders["granite_speech"] / "saved"):
        for path in source.iterdir():
            if path.is_file():
                (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(AffectbenchError, match=r"was saved with its adapter attached: it has .*base_layer"):
        load({"granite_speech": tmp_path}, "granite_speech")
