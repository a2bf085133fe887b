"""The command line of alignment with EEG: `align`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from affectbench.cli_options import Data, Include

app = typer.Typer()
out = Console()
RAY = "With --ray"


@app.command()
def align(
    task: Annotated[str, typer.Argument(help="An alignment task or suite: a file of tasks/alignments.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Model card (repeatable). Default: the suite's or the task's."),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(
            help="alignment, intervention, recovery or nulls (repeatable). Default: the suite's, else all."
        ),
    ] = None,
    selector: Annotated[
        list[str] | None,
        typer.Option(
            help="Whose units are switched off (repeatable). Default: the suite's, else attribution."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=10, help="Simulated runs of recovery and nulls.")] = 200,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Of selection, random units and simulated runs. Default: the suite's, else 0."
        ),
    ] = None,
    include: Include = None,
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of results. Default: results/TASK.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="MODELSxSUBJECTSxSENTENCESxLAYERS",
            help="Run nothing: time the steps of study alignment at that size, and say what it takes.",
        ),
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="Cores that --plan packs onto.")] = 16,
    topomaps: Annotated[
        bool, typer.Option("--topomaps", help="Write electrodes by window as SVG too, interpolated by MNE.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ... for the models.")] = "cpu",
    ray: Annotated[bool, typer.Option("--ray", help="Compare on Ray.", rich_help_panel=RAY)] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Workers at a time; 0: as many as fit.", rich_help_panel=RAY)
    ] = 0,
    ray_address: Annotated[
        str | None, typer.Option(help="A running cluster. Default: this machine.", rich_help_panel=RAY)
    ] = None,
) -> None:
    """Compare hidden states of audio models with EEG. What is done is kept: repeated, a stopped run goes on.

    Each study becomes one analysis, a page of the site: how models align by measure, layer, lag, electrode
    and affect; whether switching emotion units off changes that; whether what is planted in simulated EEG is
    found; how often each null is wrong.

    Examples:

        python harness.py align reference-eeg

        python harness.py align reference-eeg --study nulls --runs 400

        python harness.py align reference-eeg-units

        python harness.py align reference-eeg --plan 12x33x84x33

        python harness.py align alice --data path/to/data --model qwen2-audio-7b
    """
    if plan is not None:
        from affectbench.alignment.command import task_of
        from affectbench.alignment.hearing_cost import hearer
        from affectbench.alignment.planning import print_plan
        from affectbench.registry import Registry

        content = Registry(tuple(include or ()))
        hearers = [hearer(content, name, device) for name in model or ()]
        print_plan(out, task_of(task, tuple(include or ())), plan, cores, hearers, device)
        return
    from affectbench.alignment.command import Request
    from affectbench.alignment.command import align as run
    from affectbench.ray_executor import RayExecutor
    from affectbench.run import command_line

    request = Request(
        task, tuple(model or ()), tuple(study or ()), tuple(selector or ()), runs, seed,
        tuple(include or ()), data, output, device,
        RayExecutor(ray_address, workers) if ray else None, command_line(), topomaps,
    )  # fmt: skip
    try:
        run(out, request)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what is done is kept: the same command goes on from here")
        raise typer.Exit(130) from None
