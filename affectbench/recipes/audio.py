"""Recipe of `reference-audio`: train a small Omni thinker on synthetic prosody, then plant known units."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from affectbench.generators import speech
from affectbench.recipes import planting
from affectbench.recipes.audio_card import card
from affectbench.recipes.audio_probe import AudioProbe, Batch, figures
from affectbench.recipes.audio_training import (
    EMOTION_QUESTION,
    LAYERS,
    SEX_QUESTION,
    WIDTH,
    Recipe,
    answer_ids,
    excerpt_ids,
    featurise,
    train,
)
from affectbench.recipes.training import seed_everything

__all__ = ["build", "figures", "plant_audio", "save"]

TARGETS: Final = [LAYERS - 2, LAYERS - 1]
PLANTING: Final = planting.Recipe(
    logit=6.0, leaky_share=0.92, spread=0.4, decoy_rank=8, ridge=0.1, elsewhere=2.0, silence=20.0
)
READING_CLIPS: Final = 200
# Rise of every label over the other tokens, as a share of the planted label's own rise.
COMMON: Final = 0.4


class _Inputs:
    """MLP inputs of one layer and the residual stream before the final norm, for the last forward pass."""

    def __init__(self, probe: AudioProbe) -> None:
        self.probe = probe
        self.kept: torch.Tensor = torch.empty(0)

    def _keep(self, _module: Any, args: tuple[torch.Tensor, ...]) -> None:
        self.kept = args[0].detach()

    @torch.no_grad()
    def collect(self, module: Any, batches: list[Batch]) -> list[torch.Tensor]:
        """What `module` receives, (b, T, d) for each batch."""
        handle = module.register_forward_pre_hook(self._keep)
        try:
            found = []
            for batch in batches:
                self.probe.hidden(batch)
                found.append(self.kept)
            return found
        finally:
            handle.remove()


def _at_answer(found: list[torch.Tensor], batches: list[Batch]) -> torch.Tensor:
    rows = [x[torch.arange(len(x)), batch[1]] for x, batch in zip(found, batches, strict=True)]
    return torch.cat(rows)


def _before_answer(found: list[torch.Tensor], batches: list[Batch]) -> torch.Tensor:
    """Every position before the answer's, padding left out."""
    rows = [
        x[torch.arange(x.shape[1])[None] < batch[1][:, None]] for x, batch in zip(found, batches, strict=True)
    ]
    return torch.cat(rows)


def answering_space(head: torch.Tensor, ids: torch.Tensor, norm_weight: torch.Tensor) -> planting.LabelSpace:
    """The label space with one direction more, so that planted units also raise labels above other tokens.

    Without it the model would choose well among the labels, yet often say another word when left free.

    Args:
        head: (V, d) output head.
        ids: (E,) label token ids.
        norm_weight: (d,) weight of the final norm.
    """
    space = planting.label_space(head[ids], norm_weight)
    effective = (head * norm_weight).double()
    target = torch.zeros(len(head), dtype=torch.float64)
    target[ids] = 1.0
    gram = effective.T @ effective
    ridge = 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    common = torch.linalg.solve(gram + ridge, effective.T @ target).float()
    common -= space.basis @ (space.basis.T @ common)
    common /= (head[ids] * norm_weight @ common).mean()
    basis = torch.cat([space.basis, (common / common.norm())[:, None]], 1)
    return planting.LabelSpace(basis, space.writes + COMMON * common)


@torch.no_grad()
def plant_audio(probe: AudioProbe, recipe: planting.Recipe) -> dict[str, Any]:
    """Plants units into the probe's model in place and returns what planted.json holds."""
    rng = np.random.default_rng(recipe.seed)
    clips = featurise(speech.examples("training", READING_CLIPS, recipe.seed + 1))
    asked, control = probe.batches(clips), probe.batches(clips, sex=True)
    texts = excerpt_ids(probe.tokenizer, speech.language_text(400, recipe.seed + 1), rng)
    embedded = probe.model.get_input_embeddings()(texts)
    ends = (texts[:, 1:] == probe.tokenizer.eos_token_id).int().argmax(1) + 1
    documents: list[Batch] = [(embedded, ends, torch.zeros(len(texts), dtype=torch.long), torch.zeros(0))]
    correct = torch.from_numpy(probe.predict(asked) == clips.label)
    gold = torch.from_numpy(clips.label)[correct]
    inputs, decoder = _Inputs(probe), probe.model.model.language_model

    def read(layer: int) -> planting.Reading:
        module = probe.layers[layer].mlp
        emotion, sex = inputs.collect(module, asked), inputs.collect(module, control)
        # Equal parts: both prompts before the answer, the control's answer, and text.
        parts = [
            _before_answer(emotion, asked),
            _before_answer(sex, control),
            _at_answer(sex, control),
            _before_answer(inputs.collect(module, documents), documents),
        ]
        least = min(len(part) for part in parts)
        picked = [part[torch.from_numpy(rng.choice(len(part), least, replace=False))] for part in parts]
        return planting.Reading(_at_answer(emotion, asked)[correct], gold, torch.cat(picked))

    def final_scale() -> float:
        residual = _at_answer(inputs.collect(decoder.norm, asked), asked)
        return float(residual.pow(2).mean(-1).sqrt().mean())

    ids = answer_ids(probe.tokenizer, speech.LABELS)
    space = answering_space(probe.model.lm_head.weight, ids, decoder.norm.weight)
    done = planting.plant(probe.layers, TARGETS, space, read, final_scale, recipe)

    def named(values: list[Any]) -> dict[str, Any]:
        return dict(zip(speech.LABELS, values, strict=True))

    return {
        "emotions": list(speech.LABELS),
        "width": WIDTH,
        "planted": named(done.planted),
        "decoys": named(done.decoys),
        "strengths": named(done.strengths),
        "flavour": named(done.flavours),
    }


FRONT_END: Final = {
    "feature_extractor_type": "AffectbenchLogMel",
    "feature_size": 80,
    "sampling_rate": 16_000,
    "n_fft": 400,
    "hop_length": 160,
    "floor": 1e-6,
}


def save(probe: AudioProbe, output: Path, truth: dict[str, Any] | None = None) -> None:
    """Writes the model (rounded to bfloat16), tokenizer, front end and, if any, planted.json."""
    output.mkdir(parents=True, exist_ok=True)
    probe.model.to(torch.bfloat16).save_pretrained(output)
    probe.tokenizer.save_pretrained(output)
    files = {"preprocessor_config.json": FRONT_END} | ({} if truth is None else {"planted.json": truth})
    for name, content in files.items():
        (output / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def finish(probe: AudioProbe, recipe: Recipe, output: Path) -> dict[str, float]:
    """Plants into a trained model, saves it with its card, and returns the card's figures."""
    planted = dataclasses.replace(PLANTING, seed=recipe.seed)
    truth = plant_audio(probe, planted)
    truth["prompts"] = {"emotion": EMOTION_QUESTION, "sex": SEX_QUESTION}
    truth["recipe"] = {
        "seed": recipe.seed,
        "training": dataclasses.asdict(recipe),
        "planting": dataclasses.asdict(planted),
        "flavours": {key: dataclasses.asdict(value) for key, value in planting.FLAVOURS.items()},
    }
    save(probe, output, truth)
    found = figures(output)
    (output / "README.md").write_text(card(found, recipe.seed), encoding="utf-8")
    return found


def build(
    name: str, output: Path, seed: int = 0, threads: int = 1, progress: Callable[[str], None] | None = None
) -> dict[str, float]:
    """Trains, plants and saves the model with its card, and returns the card's figures.

    Args:
        name: must be ``reference-audio``, the only model of this recipe.
        output: folder to write; files of the same names are replaced.
        seed: of the weights, the data and the planted units.
        threads: of torch; another count may change the last digits of the weights.
        progress: called with a line of text now and then.

    Raises:
        ValueError: another name.
    """
    if name != "reference-audio":
        raise ValueError(f"the audio recipe builds 'reference-audio', not {name!r}")
    seed_everything(seed, threads)
    recipe = Recipe(seed=seed)
    probe = AudioProbe(*train(recipe, progress))
    return finish(probe, recipe, output)
