"""The command line of judges: `train-judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from affectbench.cli_options import Data

app = typer.Typer()
out = Console()
KEYS = "Keys of the files"


@app.command("train-judge")
def train_judge(
    name: Annotated[str, typer.Argument(help="What the judge is to be called.")],
    texts: Annotated[
        Path | None,
        typer.Option(help="JSON lines, each with a text and its label. Default: generated replies."),
    ] = None,
    test: Annotated[
        list[Path] | None, typer.Option(help="Such a file to measure it on (repeatable).")
    ] = None,
    on: Annotated[
        list[str] | None, typer.Option(help="A task whose test texts it is measured on (repeatable).")
    ] = None,
    data: Data = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to --include afterwards.")] = Path(
        "judges"
    ),
    licence: Annotated[str, typer.Option(help="Of the judge: that of the texts binds it.")] = "not stated",
    text_key: Annotated[str, typer.Option(rich_help_panel=KEYS)] = "gen_text",
    label_key: Annotated[str, typer.Option(rich_help_panel=KEYS)] = "emotion",
    group_key: Annotated[
        str, typer.Option(help="Texts that share it are kept together.", rich_help_panel=KEYS)
    ] = "skeleton_id",
) -> None:
    """Train a judge of expressed emotion, say how often it is right, and write it with its card.

    TF-IDF and logistic regression, seconds on one core, no pickle. It learns each text also without its
    emotion words, and sentences without emotion as none.

    Examples:

        python harness.py train-judge replies

        python harness.py train-judge sev --texts replies.jsonl --test others.jsonl --on goemotions
    """
    from affectbench.judge_command import JudgeRequest
    from affectbench.judge_command import train_judge as train

    request = JudgeRequest(
        name, output, texts, test or [], on or [], data, text_key, label_key, group_key, licence
    )
    train(out, request)
