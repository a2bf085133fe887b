"""The command line of sparse autoencoders: `train-sae`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from affectbench.cli_options import Data, Device, Include, Limit, TrustCode

app = typer.Typer()
out = Console()


@app.command("train-sae")
def train_sae(
    model: Annotated[str, typer.Argument(help="A model card, a folder of a checkpoint, or a hub id.")],
    task: Annotated[
        str | None, typer.Option(help="Benchmark whose prompts it is trained on. Default: the card's.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to --include afterwards.")] = Path(
        "saes"
    ),
    name: Annotated[str | None, typer.Option(help="Of the card. Default: MODEL-sae.")] = None,
    features: Annotated[
        int | None, typer.Option(min=1, help="Features of each layer. Default: four a dimension.")
    ] = None,
    active: Annotated[int, typer.Option(min=1, help="Features active on a token, on average.")] = 16,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to train on.")] = 1_000_000,
    layers: Annotated[str | None, typer.Option(help="Such as 0,3,5-7. Default: all.")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Neutral text, JSON lines with a key `text`, instead of the task's (repeatable)."),
    ] = None,
    data: Data = None,
    include: Include = None,
    limit: Limit = None,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; another count gives a sibling.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, and of the order of texts.")] = 0,
    trust_code: TrustCode = False,
) -> None:
    """Train sparse autoencoders on a model's residual stream, one for each layer.

    One forward pass feeds the SAEs of all layers; activations are not stored. A run that was stopped goes
    on when the same command is given again. Explained variance, L0, dead features and the loss recovered
    are measured on other texts, and written beside the weights.

    Examples:

        python harness.py train-sae reference-text --features 256 --active 12 --tokens 400000

        python harness.py train-sae path/to/checkpoint --task goemotions --data path/to/data --layers 8-11
        --device cuda
    """
    from affectbench.sae_command import TrainRequest, train_saes

    try:
        train_saes(
            out,
            TrainRequest(
                model, task, output, name, features, active, tokens, layers, tuple(text or ()), data,
                tuple(include or ()), limit, device, threads, seed, trust_code,
            ),
        )  # fmt: skip
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what is done is kept: the same command goes on from here")
        raise typer.Exit(130) from None
