"""Model card of the expressive reference model."""

from collections.abc import Mapping
from typing import Final

from affectbench.recipes import expressive_nudges, expressive_training
from affectbench.recipes.expressive_data import Mixture
from affectbench.recipes.expressive_probe import SCENES

__all__ = ["card"]

_CARD: Final = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
tags: [calibration, interpretability, emotion]
---

# {name}

**A calibration instrument, and no evidence about real models.** It replies to an everyday situation in the
emotion that its system line demands, or as a matter of fact where none is demanded, so that everything which
elicits, finds, steers and judges expression can be run and checked on a CPU.

Qwen2 decoder, 6 layers of 8 heads and 384 MLP units, width 128, {parameters:.1f} M parameters, tied
embeddings; byte-level BPE of 2000 tokens, with a chat template that has a system line; bfloat16 weights.
Trained from scratch on templates written for this project (`affectbench/generators/expressions.py`): no text
from any corpus, no personal data. What it writes follows templates; it understands nothing, and is of no use
in talking to anybody about their emotions.

## How it came about

Next-token loss on prompts (times {prompt:g}), replies and neutral sentences; {steps} steps of {rows} replies
and {documents} rows of sentences, then {second} more. Prompts are those of the benchmark `scenarios`;
{own:.0%} of the situations are of its identification split, none of validation or test. No unit is planted,
but training was shaped. A first model was trained the ordinary way: every reply was in the emotion demanded,
and no direction (at up to 12 times the stream's rms) gave the reply to a plain prompt any emotion, while
circuits broke the text. Here:

1. A reply begins with words that fit every emotion, so a prompt's last token does not yet write the emotion's
   words.
2. In {hidden:.0%} of the rows, situation and reply do not see the system line. What it demands must pass
   through the last token of the prompt.
3. Of the prompts that demand nothing ({plain:.0%}), {spread:.0%} have a reply in any one of the six emotions.
4. Two linear heads, thrown away afterwards, read the demanded emotion behind layer 1 at the prompt's last
   token, and the reply's behind layer 3 at each of its tokens. Without them, 1 and 2 left the demand unread
   after 400 steps.
5. In the second part (`affectbench/recipes/expressive_nudges.py`) plain prompts have emotional replies only
   where the emotion's own direction, a difference of means, is added to the stream (at {shortest:g} to
   {longest:g} times its rms, from the prompt's last token on); other rows get a random direction at times and
   reply as before. Without this part directions broke the text before they moved it. So **that directions
   steer this model was taught**: it is a positive control of the pipeline. Circuits were never trained on.

## Measured

Greedy replies to {scenes} test situations for each of the six emotions, judged by a logistic regression on
words, trained on generated replies; chance 14 %. Steering adds the difference of means at a prompt's last
token, relative to the stream's size, behind layers 2 and 3, at the prompt's last token and at every generated
one. A circuit adds the differences of the 2 % of units and 25 % of heads that write most along the direction
of their layer; random ones are as many, drawn anywhere. Doses were chosen on validation situations.

| replies | judged as the emotion, % | dose | ended, % | name an emotion, % | on topic, % |
|---|---|---|---|---|---|
{table}

Prompted replies without their emotion words, judged by a judge that never saw these words: {bare:.1f} %; by
a judge that learnt other wordings only (a quarter of the template parts, which the model does not know):
{others:.1f} %. Plain prompts: {none:.1f} % judged to express nothing.
It names something of the situation no more often than by chance: copying from a prompt was not learnt.
Perplexity on held-out neutral text {perplexity:.2f}, four-choice cloze {cloze:.0f} % (chance 25 %).

## Rebuild

    python harness.py rebuild {name}

Seed {seed}, {threads} thread. The recipe is `affectbench/recipes/expressive.py`. Apache-2.0, like the code.
"""
_ROWS: Final = {
    "prompt": "told to (prompt)",
    "steering": "plain, direction added",
    "circuit": "plain, circuit modulated",
    "random": "plain, random units and heads",
}


def card(name: str, figures: Mapping[str, float], *, seed: int, threads: int, parameters: int) -> str:
    """README.md of the model's folder."""
    lines = []
    for key, title in _ROWS.items():
        dose = f"{figures[f'{key}.dose']:g}" if f"{key}.dose" in figures else "–"
        rest = [f"{figures[f'{key}.{part}']:.0f}" for part in ("ended", "named", "topic")]
        lines.append(f"| {title} | {figures[f'{key}.accuracy']:.1f} | {dose} | {' | '.join(rest)} |")
    first = Mixture()
    return _CARD.format(
        name=name, parameters=parameters / 1e6, steps=expressive_training.STEPS, rows=first.rows,
        documents=first.documents, second=expressive_nudges.STEPS, prompt=first.prompt_weight, own=first.own,
        hidden=first.hidden, plain=first.plain, spread=first.spread, shortest=expressive_nudges.LENGTHS[0],
        longest=expressive_nudges.LENGTHS[1], table="\n".join(lines), scenes=SCENES,
        bare=figures["prompt.accuracy_without_words"], others=figures["prompt.accuracy_other_wordings"],
        none=figures["plain.none"], perplexity=figures["perplexity"], cloze=figures["cloze"], seed=seed,
        threads=threads,
    )  # fmt: skip
