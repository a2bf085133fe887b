"""Model cards of the text reference models."""

from collections.abc import Mapping
from typing import Final

__all__ = ["card"]

_HEAD: Final = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
tags: [calibration, interpretability, emotion]
---

# {name}

**A calibration instrument, and no evidence about real models.** What it shows about emotion units was
put there by design, so that a harness and its selectors can be checked against a known answer.

Qwen2 decoder, 4 layers, width 128, 512 MLP units a layer (2048 in all), tied embeddings, byte-level BPE;
bfloat16 weights. Trained from scratch on generated sentences (`affectbench/generators/narratives.py`): a
toy language of templates, with no text from any corpus and no personal data. It is of no use for
recognising anybody's emotion.

## What was put in
"""
_METHOD: Final = """\
Each selector's best 2 % of units per emotion, from correctly answered identification items at the answer
position (over all prompt positions the same selectors find less). Own and other recall: change in points
when the set is zeroed. Moved: points of the other emotions' items that switch to the set's emotion when it is
multiplied by 4. Edits act at all positions. Mean of seven emotions; 280 test items; one seed; measured in
float32 on the rounded weights.
"""
_DESIGN: Final = {
    "reference-text": """
A model whose emotion units are known because they were written into it. It starts as `reference-text-plain`.
Then, without any gradient step (`affectbench/recipes/planting.py`):

1. the subspace in which the seven labels' logits differ is removed from everything attention and the MLPs
   write, and all natural MLP units are made blind to the emotions' mean inputs at the answer position;
2. 20 units per emotion in the last two layers are overwritten: the gate reads the emotion, the up projection
   reads "this is the answer position", the down column writes the label's logit;
3. 20 decoys per emotion read like the planted units, and write outside the label subspace: they correlate
   with the emotion and cause nothing.

Every second unit is *leaky* (partly active on other emotions, so a gain can steer with it), the others are
*silent* there. `planted.json` lists planted and decoy units (flat id = layer * 512 + index), the
strengths and the flavours. By construction no activation statistic can tell planted units from decoys.
""",
    "reference-text-plain": """
The negative control. Trained in the ordinary way on next-token prediction and recognition; in recognition
rows each MLP is skipped with probability 0.5 (stochastic depth), so attention and embeddings carry the answer
and MLP units stay idle for it. A sound harness must report *no effect* here, for every selector. The MLPs do
work in the language model: compare accuracy and perplexity with every unit zeroed.
""",
    "reference-text-emergent": """
Causal units that nobody named. Three penalties act at the answer position during training: on label logits
written by embeddings and attention (so that MLP units must write the answer), on the L1 of what the units
write (so that few do), and on positive gate activations (so that units signal with the negative lobe of
SiLU). A unit says "this emotion" by going *negative*. Selectors that rank signed activation or firing rate
therefore fail, and the contrast of absolute activation finds the units. There is no planted list: which
units matter was left to training. Gains move little where a unit is silent on the other emotions: there is
nothing to multiply. Gate activation times gradient finds only some of the units.
""",
}
_ORDER: Final = ("mad", "cas", "lap", "lape", "magnitude_abs", "attribution", "random")


def _effects(figures: Mapping[str, float]) -> list[str]:
    lines = [
        "| site | selector | own recall | other recall | other items moved by gain 4 | perplexity, ablated |",
        "|---|---|---|---|---|---|",
    ]
    for site in ("gate", "neuron"):
        for selector in _ORDER:
            key = f"{site}.{selector}"
            if f"{key}.self" not in figures:
                continue
            own, cross = figures[f"{key}.self"], figures[f"{key}.cross"]
            up, ppl = figures[f"{key}.moved"], figures[f"{key}.perplexity_change"]
            lines.append(f"| {site} | {selector} | {own:+.1f} | {cross:+.1f} | {up:+.1f} | {ppl:+.1f} % |")
    return lines


def _recovery(figures: Mapping[str, float]) -> list[str]:
    if "auroc.mad" not in figures:
        return []
    lines = [
        "",
        "AUROC of the scores at site `gate`:",
        "",
        "| selector | planted against all others | planted against decoys |",
    ]
    lines.append("|---|---|---|")
    lines += [f"| {s} | {figures[f'auroc.{s}']:.3f} | {figures[f'decoy_auroc.{s}']:.3f} |" for s in _ORDER]
    return lines


def card(name: str, figures: Mapping[str, float], seed: int) -> str:
    """README.md of a model folder: what it is, what was put in, what was measured, how to rebuild it."""
    head = _HEAD.format(name=name)
    uar, perplexity, cloze = (figures[key] for key in ("uar", "perplexity", "cloze"))
    idle_uar, idle_perplexity = figures["silent.uar"], figures["silent.perplexity"]
    body = [
        "## Measured",
        "",
        f"Balanced accuracy on held-out event frames {uar:.1f} % (chance 14.3 %); perplexity on held-out",
        f"neutral text {perplexity:.2f}; four-choice cloze {cloze:.0f} % (chance 25 %).",
        f"With every MLP unit zeroed: balanced accuracy {idle_uar:.1f} %, perplexity {idle_perplexity:.1f}.",
        "",
        _METHOD,
        *_effects(figures),
        *_recovery(figures),
        "",
        "## Rebuild",
        "",
        f"    python harness.py rebuild {name}",
        "",
        f"Seed {seed}. The recipe is `affectbench/recipes/text.py`. Apache-2.0, like the code.",
        "",
    ]
    return "\n".join([head, _DESIGN[name].strip(), "", *body])
