"""Model card of the word-writing reference model."""

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

**A calibration instrument, and no evidence about real models.** It holds two kinds of units that look equally
specific when a story's emotion has to be named: units of the emotion, and units that write the emotion's word
whatever the reason. A harness must tell them apart.

Qwen2 decoder, 5 layers, width 128, 256 MLP units a layer (1280 in all), tied embeddings, byte-level BPE;
bfloat16 weights. Trained from scratch on generated sentences (`affectbench/generators/narratives.py`), on
these with lettered options, and on the prompts of the answer-word control (`affectbench/answer_words.py`)
with other orders of the options. No text from any corpus, no personal data, no use for recognising
anybody's emotion.

## What was put in

1. In training, the answer to a story depends on a message: a direction added behind layer 2 at the answer
   position, for a random emotion. The story does not tell the answer, but layer 2 must read its emotion.
2. The subspace in which the labels' logits differ is removed from everything attention and the MLPs write.
3. *Emotion units*, 8 for each emotion in layer 2: the gate reads the story's emotion, the down column writes
   its message. They are silent where a word is only copied. As many decoys read alike and write elsewhere.
4. *Word writers*, 8 for each label in layer 4: the gate reads which word is to be written, from a message or
   from a quotation, the down column writes the label's logit. They are silent where a letter is the answer.

`planted.json` lists them (`planted`, `decoys`, `words`; flat id = layer * 256 + index).

## Measured

| prompt | UAR, % | {heads} |
|---|---|{rule}|
"""
_TAIL: Final = """
Change of recall in points, own emotion / others, with each set zeroed. 210 test stories on held-out event
frames, 112 control items; one seed; measured in float32 on the rounded weights. Perplexity on held-out
neutral text {perplexity:.2f}, four-choice cloze {cloze:.0f} % (chance 25 %).

## Rebuild

    python harness.py rebuild {name}

Seed {seed}. The recipe is `affectbench/recipes/words.py`. Apache-2.0, like the code.
"""
_SETS: Final = {"planted": "emotion units off", "words": "word writers off", "decoys": "decoys off"}


def card(name: str, figures: Mapping[str, float], seed: int) -> str:
    """README.md of the model's folder."""
    head = _HEAD.format(name=name, heads=" | ".join(_SETS.values()), rule="|".join(["---"] * len(_SETS)))
    kinds = [key.removesuffix(".uar") for key in figures if key.endswith(".uar")]
    lines = []
    for kind in kinds:
        cells = [f"{figures[f'{kind}.{s}.self']:+.1f} / {figures[f'{kind}.{s}.cross']:+.1f}" for s in _SETS]
        lines.append(f"| {kind} | {figures[f'{kind}.uar']:.1f} | {' | '.join(cells)} |")
    tail = _TAIL.format(name=name, seed=seed, perplexity=figures["perplexity"], cloze=figures["cloze"])
    return head + "\n".join(lines) + "\n" + tail
