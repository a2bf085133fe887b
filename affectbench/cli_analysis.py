"""The command line of analyses: `analyse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer()
out = Console()


@app.command()
def analyse(
    names: Annotated[list[str], typer.Argument(help="Analyses by name: see `list analyses`.")],
    model: Annotated[str, typer.Option(help="A model card, a folder of a checkpoint, or a hub id.")],
    task: Annotated[str | None, typer.Option(help="A benchmark. Default: the card's.")] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option("--include", help="Folder with model cards or tasks of your own (repeatable)."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Directory that holds the benchmark's data folder.", envvar="AFFECTBENCH_DATA"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many items of each label in each split.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    tokens: Annotated[int, typer.Option(min=0, help="Tokens in one forward pass; 0 chooses by device.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of whatever is drawn at random.")] = 0,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the code that comes with a checkpoint: read it first.")
    ] = False,
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
