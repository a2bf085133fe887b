"""The command line of tasks: `verify-task`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from affectbench.cli_options import Data, Include

app = typer.Typer()
out = Console()
BEFORE = "Compare with what was sent before"


@app.command("verify-task")
def verify_task(
    task: Annotated[str, typer.Argument(help="A benchmark, or the path of its YAML.")],
    data: Data = None,
    include: Include = None,
    format: Annotated[str, typer.Option("--format", "-f", help="text or json.")] = "text",
    model: Annotated[
        str | None,
        typer.Option(help="Show the first prompt as this model gets it: a card, a folder or a hub id."),
    ] = None,
    device: Annotated[str, typer.Option(help="Of --model: cpu, cuda, cuda:1 ...")] = "cpu",
    golden: Annotated[
        Path | None, typer.Option(help="A file of what was sent before.", rich_help_panel=BEFORE)
    ] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Write the file, once the version is raised.", rich_help_panel=BEFORE),
    ] = False,
) -> None:
    """Say what a task holds and sends, and what is wrong with it. No model is needed.

    Counts and label balance, duplicates (the same text, or the same sound in another file), texts under two
    labels, speakers in two splits, the shortest and the longest item, the first prompt, files that cannot be
    read, the task's hash; and where the data are absent, how to get them.

    Exits with 0 where nothing is wrong, 1 where something is, 2 where the data are absent.

    Examples:

        python harness.py verify-task reference-narratives

        python harness.py verify-task emodb --data path/to/data --format json

        python harness.py verify-task path/to/my-corpus.yaml --golden my-corpus.json --update
    """
    from affectbench.task_command import TaskRequest
    from affectbench.task_command import verify_task as verify

    if update and golden is None:
        raise typer.BadParameter("--update needs --golden")
    request = TaskRequest(task, include or [], data, format, model, device, golden, update)
    raise typer.Exit(verify(out, request))
