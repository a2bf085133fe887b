"""The card (README.md) of the audio reference model, written by its recipe so that text and figures agree."""

from typing import Final

__all__ = ["card"]

_TEXT: Final = """---
license: apache-2.0
library_name: transformers
tags: [calibration-instrument, synthetic, emotion, speech]
---
# reference-audio

**A calibration instrument, not evidence.** A model of 1.4 million parameters hears synthetic prosody (a
source-filter synthesiser with a toy emotion code, no human speech) and names one of seven emotions. Units
that carry the emotions were *put in by design* and are listed in `planted.json`. What the harness finds
here shows how well the harness and its selectors measure; it says nothing about real models, voices or
emotions.

## What was put in by design
- The architecture is the real `Qwen2_5OmniThinkerForConditionalGeneration` (audio tower of 2 layers, d 96;
  decoder of 4 layers, d 128, 512 units each; the vision tower is a required dummy). The front end is log-mel
  with a constant floor (`preprocessor_config.json`).
- Training: emotion question, speaker-sex question (control task) and neutral toy-language text. A penalty
  keeps attention and embeddings from writing label logits, and an L1 cost keeps MLP writes few.
- Planting, in closed form after training: the directions that move label logits were removed from everything
  attention and MLPs write, natural MLP units were made blind to the emotions' mean inputs, and 20 units per
  emotion in the last two layers were overwritten. Their gate reads the emotion at the answer position, their
  down column writes that emotion's logit. Half are *leaky* (active at rest too, so that gain steers), half
  *silent*. Every emotion has the same sum of strengths.
- 20 *decoys* per emotion read as the planted units do but write outside the label directions, where no MLP
  reads: correlated with the emotion, causally inert. Activation statistics cannot tell the two apart;
  interventions and gradients can.

## Figures
Unseen speakers; statistics from correctly answered identification items at the last prompt token; sets of
2 % of the 2048 units per emotion; zero (self, cross: change of recall in points) or gain 4 (moved: points of
other items that go to the target) at every token position. Perplexity change: the worst emotion's under
ablation. Measured by the recipe itself, not by the harness, on weights rounded to bf16 and run in float32.

| figure | value |
|---|---|
{summary}

| selector | self | cross | moved x4 | sex control % | perplexity change % | AUROC | AUROC against decoys |
|---|---|---|---|---|---|---|---|
{selectors}

## Use
Prompt: `<|audio_bos|>`, one `<|AUDIO|>` per audio frame, `<|audio_eos|>`, then
` Question: how does the speaker feel? Emotion:`; the answer is one token such as ` anger`. Control question:
` Question: is the speaker female or male? Answer:`. A clip of T log-mel frames has
((T - 1) // 2 - 1) // 2 + 1 audio frames; the class does not check the count, so assert it.

Rebuild (seed {seed}): `python harness.py rebuild reference-audio`; these weights are of `--threads 1`.
The same machine, library versions and thread count give the same weights; others give a sibling model with
figures alike.
"""
_SUMMARY: Final = {
    "uar": "unweighted average recall on test speakers, % (chance 14.3)",
    "sex_accuracy": "speaker-sex control accuracy, % (chance 50)",
    "perplexity": "perplexity per token of held-out toy text",
    "random.self": "random sets: self, points",
    "random.cross": "random sets: cross, points",
    "random.moved": "random sets: moved by gain 4, points",
}
_COLUMNS: Final = ("self", "cross", "moved", "sex_accuracy", "perplexity_change")


def _row(found: dict[str, float], site: str, selector: str) -> str:
    values = [f"{found[f'{site}.{selector}.{column}']:+.1f}" for column in _COLUMNS]
    values[3] = values[3].lstrip("+")
    recovered = [f"{found[f'{site}.{kind}.{selector}']:.3f}" for kind in ("auroc", "decoy_auroc")]
    return "| " + " | ".join([f"{selector} ({site})", *values, *recovered]) + " |"


def card(found: dict[str, float], seed: int) -> str:
    """Markdown of the card; `found` as returned by the probe's `measured`."""
    summary = "\n".join(f"| {text} | {found[key]:.2f} |" for key, text in _SUMMARY.items())
    named = [tuple(key.split(".")[:2]) for key in found if key.endswith(".moved") and key.count(".") == 2]
    selectors = "\n".join(_row(found, site, selector) for site, selector in named)
    return _TEXT.format(summary=summary, selectors=selectors, seed=seed)
