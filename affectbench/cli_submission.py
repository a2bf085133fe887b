"""The command line of submissions: `new`, `submit`, `verify`, `gates`; and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from affectbench.cli_options import Data, Device, Include

app = typer.Typer()
new_app = typer.Typer(no_args_is_help=True, help="Write the files of something new, ready to fill in.")
app.add_typer(new_app, name="new")
out = Console()

Trust = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Run the submission's selector file, and code of checkpoints: read them first."
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder for what is written.")]


@new_app.callback()
def _new() -> None:
    """Keeps `new` a group while it has one command."""


@new_app.command("selector")
def new_selector(
    name: Annotated[str, typer.Argument(help="Lower case with underscores, such as log_odds.")],
    output: Output = None,
    include: Include = None,
) -> None:
    """Write a working selector, its test and its card (submission.yaml) into a folder of that name.

    The selector is the example of CONTRIBUTING.md: put your formula in its place.
    """
    from affectbench.submission_commands import scaffold

    scaffold(out, name, output, include or [])


@app.command()
def submit(
    folder: Annotated[Path, typer.Argument(help="A folder with submission.yaml.")],
    include: Include = None,
    data: Data = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="A first look: so many items of each label. Packs nothing.")
    ] = None,
    device: Device = "cpu",
    trust_code: Trust = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check it and say what will be judged; run nothing.")
    ] = False,
    output: Output = None,
) -> None:
    """Check a submission, say what will be judged, run its suite, and pack it with its results.

    Writes NAME-vVERSION.zip, which a maintainer verifies. A submission is data (`selections:`, no code is
    run) or a selector file (`selector:`, run only with --trust-code). So is code that comes with a
    checkpoint of its suite.

    Examples:

        python harness.py submit mine --trust-code

        python harness.py submit path/to/folder --dry-run
    """
    from affectbench.submission_commands import submit_folder

    submit_folder(
        out, folder, include=include or [], data=data, limit=limit, device=device, trust_code=trust_code,
        dry_run=dry_run, output=output,
    )  # fmt: skip


@app.command()
def verify(
    submission: Annotated[Path, typer.Argument(help="A submission's zip, or its folder.")],
    include: Include = None,
    data: Data = None,
    device: Device = "cpu",
    trust_code: Trust = False,
    against: Annotated[
        Path | None,
        typer.Option(help="Published results to find copies in. Default: leaderboard/results."),
    ] = None,
    output: Output = None,
    publish: Annotated[
        Path | None, typer.Option(help="Where accepted, write the computed records to this folder.")
    ] = None,
) -> None:
    """Evaluate a submission again, compare it with its claims cell by cell, look for copies, and decide.

    Exits with 0 where it is accepted, 1 where it is rejected. Writes verification.json and verification.md.

    Example:

        python harness.py verify results/log_odds/log_odds-v1.zip --trust-code
    """
    from affectbench.submission_commands import verify_submission

    accepted = verify_submission(
        out, submission, include=include or [], data=data, device=device, trust_code=trust_code,
        against=against, output=output, to=publish,
    )  # fmt: skip
    if not accepted:
        raise typer.Exit(1)


@app.command()
def gates(
    base: Annotated[Path, typer.Argument(help="Published results before the change.")],
    head: Annotated[Path, typer.Argument(help="Published results after it.")],
    markdown: Annotated[
        Path | None, typer.Option(help="Write the report with the table of differences here.")
    ] = None,
    include: Include = None,
    data: Data = None,
) -> None:
    """Check a change of published results before it is merged: schema, hashes, lost cells, moved scores ...

    Both folders are read as data. Exits with 0 where every gate passes, 1 where one fails.

    Example:

        python harness.py gates path/to/main/leaderboard/results leaderboard/results --markdown report.md
    """
    from affectbench.submission_commands import gate_change

    if not gate_change(out, base, head, markdown=markdown, include=include or [], data=data):
        raise typer.Exit(1)


@app.command()
def export(
    results: Annotated[Path, typer.Argument(help="Folder of records.")] = Path("results/quickstart"),
    format: Annotated[str, typer.Option("--format", "-f", help="csv, parquet or eee.")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; a folder for eee. Default: export/.")
    ] = None,
    organization: Annotated[
        str, typer.Option(help="Who publishes these results; eee asks for it.")
    ] = "affectbench contributors",
) -> None:
    """Write records for other tools: flat rows as CSV or Parquet, or the schema of Every Eval Ever.

    Examples:

        python harness.py export results/quickstart --format parquet --output quickstart.parquet

        python harness.py export results/quickstart --format eee --output interchange
    """
    from affectbench.submission_commands import export_records

    export_records(out, results, format, output, organization)
