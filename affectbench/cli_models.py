"""The command line of models: `train`, `rebuild`, `verify-model`, `pin`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from affectbench.cli_options import Device, Include, TrustCode

app = typer.Typer()
out = Console()


@app.command()
def rebuild(
    name: Annotated[
        str,
        typer.Argument(
            help="reference-text, reference-text-plain, reference-text-emergent, reference-text-words, "
            "reference-text-expressive, reference-text-base, reference-text-adapted or reference-audio."
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: rebuilt/NAME.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the recipe.")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads. The shipped models had 1; another count gives a sibling.")
    ] = 1,
) -> None:
    """Train a reference model again from its seed, and show its figures beside the shipped one's."""
    from affectbench.commands import rebuild_reference

    rebuild_reference(out, name, output or Path("rebuilt") / name, seed, threads)


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="Benchmark whose labels are among the reference tasks' seven.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to --include afterwards.")] = Path(
        "real"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Directory with the data; default: $AFFECTBENCH_DATA.")
    ] = None,
    include: Include = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and their variants.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; another count gives a sibling.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates; default: the recipe's.")] = None,
) -> None:
    """Train a small model on a corpus that is not shipped, on its identification split alone.

    Sounds get a thinker of Qwen2.5-Omni, texts a Qwen2 decoder, of 1 to 2 million parameters. Weights and
    cards stay in --output: they derive from the data, and are bound by its licence.
    """
    from affectbench.commands import train_on_corpus

    train_on_corpus(out, task, include or [], data, output, seed, threads, steps)


@app.command("verify-model")
def verify_model(
    model: Annotated[
        str, typer.Argument(help="A model card, a card's file, a family, a checkpoint's folder, or a hub id.")
    ],
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Examine the card's weights, not a tiny instance.")
    ] = False,
    architecture: Annotated[
        str | None,
        typer.Option(help="Class of the tiny instance, such as LlamaForCausalLM. Default: the card's."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this check, after those it needs (repeatable).")
    ] = None,
    include: Include = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the tiny instance's weights.")] = 0,
    trust_code: TrustCode = False,
    format: Annotated[str, typer.Option("--format", "-f", help="text or json.")] = "text",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File of the report. Default: results/conformance/NAME.json."),
    ] = None,
) -> None:
    """Check that a model's wrapper measures what it says, and write a report for its page on the site.

    Runs on a tiny instance of the real class with random weights, or with --checkpoint on the card's own.
    The public forward of the class, hooks of its own, zeroed weights, nnsight and pyvene are what it is
    compared with. Exits with 0 where no check failed, 1 where one did.

    Examples:

        python harness.py verify-model reference-text --checkpoint

        python harness.py verify-model causal_lm --architecture LlamaForCausalLM

        python harness.py verify-model my_family --include mine --only padding
    """
    from affectbench.conformance_command import verify_model as verify

    passed = verify(
        out, model, checkpoint=checkpoint, architecture=architecture, only=only or (), include=include or [],
        device=device, seed=seed, trust_code=trust_code, format=format, output=output,
    )  # fmt: skip
    if not passed:
        raise typer.Exit(1)


@app.command()
def pin(
    models: Annotated[
        list[str] | None, typer.Argument(help="Model cards. Default: all whose revision is not pinned.")
    ] = None,
    include: Include = None,
) -> None:
    """Ask the hub which commit a model card's revision stands for, and print the line to write into the card.

    A card with a commit always loads the same weights; one without takes what the hub has today. Records
    name the commit in either case.
    """
    from affectbench.readiness import print_pins

    print_pins(out, models or [], include or [])
