"""Options that several commands share: one name, one meaning, one sentence of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Include = Annotated[
    list[Path] | None,
    typer.Option("--include", help="Folder with selectors, models or tasks of your own (repeatable)."),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Directory that holds the benchmarks' data folders.", envvar="AFFECTBENCH_DATA"),
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many items of each label in each split.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice.")]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run the code that comes with a checkpoint: read it first.")
]
