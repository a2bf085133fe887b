"""The command line of the module track: `modules`, `answers` and `wheels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from affectbench.cli_options import Data, Device, Include, Limit, Threads, TrustCode

app = typer.Typer()
out = Console()


@app.command()
def modules(
    model: Annotated[str, typer.Argument(help="A base to adapt, or a card that is a pair.")],
    task: Annotated[str | None, typer.Option(help="A benchmark. Default: the card's.")] = None,
    control: Annotated[
        str | None, typer.Option(help="A benchmark without emotion, to which the base is adapted as well.")
    ] = None,
    include: Include = None,
    data: Data = None,
    limit: Limit = None,
    rank: Annotated[
        int, typer.Option(min=0, help="Rank of the LoRA adaptations; 0 trains the weights themselves.")
    ] = 8,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            help="A learning rate to choose from on validation items (repeatable). Default: 0.001, 0.003."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Adaptations of each kind.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Updates of each adaptation.")] = 80,
    batch: Annotated[int, typer.Option(min=1, help="Items of an update.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    device: Device = "cpu",
    threads: Threads = 0,
    trust_code: TrustCode = False,
    mode: Annotated[
        Literal["sound", "paper"],
        typer.Option(help="paper: the tests of arXiv 2601.15906 as far as they are known, and no others."),
    ] = "sound",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Results folder. Default: results/modules-NAME.")
    ] = None,
) -> None:
    """Ask where an adaptation to emotion lives: q, k, v, o, gate, up or down, and whether gate stands out.

    A card that names a `base` or an `adapter` is a pair: changes, transfer and damage of its module types are
    measured. Any other card is a base: it is adapted with LoRA to the task and to the control task, all types
    and single ones, under one budget. Results are analyses for the site. Repeated, a stopped run goes on.

    Examples:

        python harness.py modules reference-text-base --control reference-needs

        python harness.py modules my-adapted-model --task goemotions --data path/to/data --include mine
    """
    from affectbench.module_command import Options, run_modules

    options = Options(
        task, control, include or (), data, limit, rank, tuple(rate or ()), seeds, steps, batch, seed, device,
        threads, trust_code, output, mode,
    )  # fmt: skip
    try:
        run_modules(out, model, options)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what is done is kept: the same command goes on from here")
        raise typer.Exit(130) from None


@app.command()
def answers(
    model: Annotated[str, typer.Argument(help="A model card, a folder of a checkpoint, or a hub id.")],
    task: Annotated[str | None, typer.Option(help="A benchmark. Default: the card's.")] = None,
    question: Annotated[
        str | None,
        typer.Option(
            help="Asked in place of the benchmark's prompt; {text} or {audio} is where an item belongs."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Answers drawn beside the best one.")] = 3,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of drawn answers.")] = 1.0,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Draw from the likeliest tokens of so much probability.")
    ] = 0.9,
    longest: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of drawn answers.")] = 0,
    include: Include = None,
    data: Data = None,
    limit: Limit = None,
    device: Device = "cpu",
    threads: Threads = 0,
    trust_code: TrustCode = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: results/answers/MODEL-TASK.jsonl.")
    ] = None,
) -> None:
    """Ask a model for emotions in its own words: the best answer to each test item, and some that are drawn.

    They are written as JSON lines, which `wheels` scores. Repeated, a stopped run goes on.

    Example:

        python harness.py answers my-model --task meld-text --data path/to/data --question "{text} Emotions:"
    """
    from affectbench.open_answers import Asking
    from affectbench.wheel_command import ask_openly

    asking = Asking(question, longest, samples, temperature, top_p, seed)
    try:
        ask_openly(
            out, model, task, asking, include=include or [], data=data, limit=limit, device=device,
            threads=threads, trust_code=trust_code, output=output,
        )  # fmt: skip
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what is done is kept: the same command goes on from here")
        raise typer.Exit(130) from None


@app.command()
def wheels(
    answers: Annotated[
        Path, typer.Argument(help="JSON lines with `gold` and `answer`, and `set` where several.")
    ],
    metric: Annotated[
        str, typer.Option(help="hit (one gold label), open (several) or sentiment (signed numbers).")
    ] = "hit",
    maps: Annotated[
        Path | None, typer.Option("--wheels", help="The five official wheels as JSON (docs/modules.md).")
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="text or json.")] = "text",
) -> None:
    """Score answers as MER-UniBench does, with what it leaves out: coverage, length of lists, neutral.

    An answer is a list of labels, a printed list, or free text in which known labels are looked for. Of rows
    with a number `sample`, 0 is the best answer; drawn ones are scored apart, as mean and standard deviation.

    Example:

        python harness.py wheels answers.jsonl --wheels wheel_mapping.json
    """
    from affectbench.wheel_command import score_wheels

    score_wheels(out, answers, metric, maps, format)
