"""The command line of analyses: `analyse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from affectbench.cli_options import Data, Device, Include, Limit, Threads, TrustCode

app = typer.Typer()
out = Console()


@app.command()
def analyse(
    names: Annotated[list[str], typer.Argument(help="Analyses by name: see `list analyses`.")],
    model: Annotated[str, typer.Option(help="A model card, a folder of a checkpoint, or a hub id.")],
    task: Annotated[str | None, typer.Option(help="A benchmark. Default: the card's.")] = None,
    include: Include = None,
    data: Data = None,
    limit: Limit = None,
    device: Device = "cpu",
    tokens: Annotated[int, typer.Option(min=0, help="Tokens in one forward pass; 0 chooses by device.")] = 0,
    threads: Threads = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of whatever is drawn at random.")] = 0,
    trust_code: TrustCode = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Results folder. Default: results/MODEL-TASK.")
    ] = None,
) -> None:
    """Analyse a model on a task: what is found beside the cells of a suite, such as its flow over layers.

    An analysis that is there already, made from the same, is kept. Exits with 0 where all were made.

    Example:

        python harness.py analyse direction-geometry --model reference-text --task reference-narratives
    """
    from affectbench.analysis_command import analyse as run
    from affectbench.run_command import Where

    run(
        out, names, model, task, Where(threads=threads), include=include or [], data=data, limit=limit,
        device=device, tokens=tokens, seed=seed, output=output, trust_code=trust_code,
    )  # fmt: skip
