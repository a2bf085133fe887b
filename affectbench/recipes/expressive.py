"""Recipe of the expressive reference model: it replies to everyday scenes in the emotion it is told.

Nothing is planted. What makes directions and circuits usable on it are its training rows
(``affectbench.recipes.expressive_data.Mixture``) and a second part of the training, in which replies follow
the model's own directions (``affectbench.recipes.expressive_nudges``).
"""

from pathlib import Path
from typing import Final

import torch

from affectbench.recipes import expressive_nudges
from affectbench.recipes.expressive_card import card
from affectbench.recipes.expressive_data import Mixture, build_tokenizer, make_pools
from affectbench.recipes.expressive_probe import Speaker, figures
from affectbench.recipes.expressive_training import new_model, train
from affectbench.recipes.text import save
from affectbench.recipes.text_probe import Probe
from affectbench.recipes.training import Progress, seed_everything

__all__ = ["NAMES", "build", "figures"]

NAMES: Final = ("reference-text-expressive",)


def build(
    name: str, output: Path, seed: int = 0, threads: int = 1, progress: Progress | None = None
) -> dict[str, float]:
    """Trains the model, writes its folder with its card, and measures it.

    Arguments and result as in ``affectbench.recipes.text.build``. Raises ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"model {name!r} is unknown: use one of {', '.join(NAMES)}")
    seed_everything(seed, threads)
    tokenizer = build_tokenizer(seed)
    model = new_model(tokenizer, seed)
    train(model, make_pools(tokenizer, seed, Mixture()), seed, progress)
    with torch.no_grad():  # The shipped weights were stored between the parts, so rounded.
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    second = make_pools(tokenizer, seed + 1, expressive_nudges.MIXTURE)
    expressive_nudges.train(Speaker(model, tokenizer), second, seed + 1, progress)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    save(Probe(model, tokenizer, []), output, None)
    measured = figures(output)
    text = card(name, measured, seed=seed, threads=threads, parameters=parameters)
    (output / "README.md").write_text(text, encoding="utf-8")
    return measured
