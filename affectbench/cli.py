"""The command line. Heavy libraries are imported by the commands that need them: `--help` answers at once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from affectbench import (
    __version__,
    cli_alignment,
    cli_analysis,
    cli_judges,
    cli_models,
    cli_modules,
    cli_sae,
    cli_submission,
    cli_tasks,
)
from affectbench.cli_options import Data, Device, Include, Limit, TrustCode
from affectbench.errors import AffectbenchError

app = typer.Typer(
    name="affectbench",
    help="""Put causal claims about emotion inside language and audio-language models to a fixed test.

A claim says: these units carry this emotion in this model. affectbench switches the units off, turns them up,
compares with random units, and scores specificity, steering strength and what is left of the language model.

Start here:  python harness.py run quickstart   then   python harness.py leaderboard""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(cli_models.app)
app.add_typer(cli_analysis.app)
app.add_typer(cli_tasks.app)
app.add_typer(cli_judges.app)
app.add_typer(cli_sae.app)
app.add_typer(cli_modules.app)
app.add_typer(cli_alignment.app)
app.add_typer(cli_submission.app)
out = Console()
RESULTS = Path("results/quickstart")
COMPARE, RUN_SUITE = "Compare with a baseline", "How to run --suite"

Results = Annotated[
    Path, typer.Option("--results", "-r", help="Folder of records, as `run --output` wrote it.")
]


class Change(StrEnum):
    """What `check` may be told to let change."""

    model = "model"
    selector = "selector"


def print_error(error: AffectbenchError) -> None:
    """An expected error as a person should see it."""
    console = Console(stderr=True)
    console.print(f"[bold red]error[/] {escape(error.message)}", soft_wrap=True, highlight=False)
    if error.hint:
        console.print(f"[dim]hint[/]  {escape(error.hint)}", soft_wrap=True, highlight=False)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


@app.command("list")
def list_content(
    kind: Annotated[
        str | None, typer.Argument(help="models, saes, tasks, selectors, interventions, suites or analyses.")
    ] = None,
    include: Include = None,
) -> None:
    """Show models, SAEs, tasks, selectors, interventions and suites, and where each comes from."""
    from affectbench.listing import print_lists

    print_lists(out, kind, include or [])


@app.command()
def run(
    suite: Annotated[
        str | None, typer.Argument(help="A suite, such as `quickstart`; or name the parts below.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model card, a folder of a checkpoint, or a hub id.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="A benchmark.")] = None,
    selector: Annotated[
        list[str] | None, typer.Option(help="A selector (repeatable). Default: all, with their controls.")
    ] = None,
    intervention: Annotated[
        list[str] | None, typer.Option(help="An intervention protocol (repeatable). Default: zero-gain.")
    ] = None,
    include: Include = None,
    data: Data = None,
    limit: Limit = None,
    device: Device = "cpu",
    device_map: Annotated[
        str | None,
        typer.Option(help="Spread a model that is larger than one GPU: auto, balanced or sequential."),
    ] = None,
    trust_code: TrustCode = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the suite's, or 0.")] = None,
    tokens: Annotated[int, typer.Option(min=0, help="Tokens in one forward pass; 0 chooses by device.")] = 0,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads, of each worker; 0 leaves torch's choice (workers: 1).")
    ] = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be run, and what time and memory it takes.")
    ] = False,
    format: Annotated[str, typer.Option("--format", "-f", help="Of the plan: text or json.")] = "text",
    executor: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    workers: Annotated[
        int,
        typer.Option(min=0, help="Jobs run side by side, in a process each. ray: 0 for as many as fit."),
    ] = 0,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="ray: GPUs of each worker. Default: 1 with --device cuda.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="ray: a running cluster, `auto` or HOST:PORT. Default: this machine.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for records. Default: results/NAME.")
    ] = None,
) -> None:
    """Run a suite, or one model on one task. What is done is kept: repeated, a stopped run goes on.

    Exits with 0 where every cell has a result, 1 where a cell ended in an error or could not run.

    Examples:

        python harness.py run quickstart

        python harness.py run --model reference-text --task reference-narratives --selector magnitude

        python harness.py run --model path/to/checkpoint --task goemotions --data path/to/data --limit 20
    """
    if format != "text" and not plan:
        raise AffectbenchError(
            f"--format {format} is of the plan", hint="add --plan, or see `table --format`"
        )
    from affectbench.run_command import What, Where, run_cells

    try:
        run_cells(
            out,
            What(suite, model, task, selector or (), intervention or (), seed),
            Where(executor, workers, gpus_per_worker, ray_address, threads),
            include=include or [], data=data, limit=limit, device=device, tokens=tokens, output=output,
            plan=format if plan else None, device_map=device_map, trust_code=trust_code,
        )  # fmt: skip
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what is done is kept: the same command goes on from here")
        raise typer.Exit(130) from None


@app.command()
def score(results: Results = RESULTS) -> None:
    """Compute the scores of all records again from their stored predictions; no model is loaded."""
    from affectbench.commands import rescore

    rescore(out, results)


@app.command()
def table(
    results: Annotated[Path, typer.Argument(help="Folder of records.")] = RESULTS,
    format: Annotated[str, typer.Option("--format", "-f", help="text, json, csv or md.")] = "text",
    operating: Annotated[bool, typer.Option("--operating", help="Only the operating doses.")] = False,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many rows, best aggregate first.")] = None,
    readouts: Annotated[
        bool,
        typer.Option("--readouts", help="Specificity of the same units on each task, and on words alone."),
    ] = False,
    expression: Annotated[
        bool,
        typer.Option("--expression", help="Replies judged as the emotion: told to, steered, or neither."),
    ] = False,
    recognition: Annotated[
        bool, typer.Option("--recognition", help="Accuracy and macro-F1 before and after amplifying untold.")
    ] = False,
    analyses: Annotated[
        bool, typer.Option("--analyses", help="Findings of its analyses instead of its cells.")
    ] = False,
) -> None:
    """Print all cells of a results folder, one row for each arm and dose; effects are fractions."""
    from affectbench.tables import print_expression, print_readouts, print_recognition, print_table

    if analyses:
        from affectbench.analysis_command import print_analyses

        print_analyses(out, results, format)
    elif readouts:
        print_readouts(out, results, format)
    elif expression:
        print_expression(out, results, format)
    elif recognition:
        print_recognition(out, results, format)
    else:
        print_table(out, results, format, operating_only=operating, top=top)


@app.command()
def leaderboard(
    results: Annotated[
        list[Path] | None, typer.Option("--results", "-r", help="Folder of records (repeatable).")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the site.")] = Path(
        "leaderboard/site"
    ),
) -> None:
    """Build the static site from records. Open its index.html from disk."""
    from affectbench.commands import build_leaderboard

    build_leaderboard(out, results or [RESULTS], output)


@app.command()
def schemas(
    folder: Annotated[Path | None, typer.Argument(help="Default: the built-in folders.")] = None,
) -> None:
    """Write the JSON Schemas of records and task files, for validators and editors."""
    from affectbench.commands import export_schemas

    export_schemas(out, folder)


@app.command()
def check(
    results: Annotated[list[Path] | None, typer.Argument(help="Folders of records.")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="What was: a results folder, or a file of --update.", rich_help_panel=COMPARE),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Run this suite first, or the rest of it, and compare that.", rich_help_panel=COMPARE
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Make this the new baseline (.parquet).", rich_help_panel=COMPARE)
    ] = False,
    tolerance: Annotated[
        float, typer.Option(min=0, help="The smallest change that counts.", rich_help_panel=COMPARE)
    ] = 0.02,
    allow_change: Annotated[
        list[Change] | None,
        typer.Option(help="This may have changed: let the scores decide.", rich_help_panel=COMPARE),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the report as Markdown.", rich_help_panel=COMPARE)
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write the report as JUnit XML.", rich_help_panel=COMPARE)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: results/SUITE.", rich_help_panel=RUN_SUITE),
    ] = None,
    include: Annotated[
        list[Path] | None, typer.Option(help="As in `run` (repeatable).", rich_help_panel=RUN_SUITE)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="As in `run`.", envvar="AFFECTBENCH_DATA", rich_help_panel=RUN_SUITE)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="As in `run`.", rich_help_panel=RUN_SUITE)] = None,
    device: Annotated[str, typer.Option(help="As in `run`.", rich_help_panel=RUN_SUITE)] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="As in `run`.", rich_help_panel=RUN_SUITE)] = 0,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="As in `run`.", rich_help_panel=RUN_SUITE)
    ] = False,
) -> None:
    """Check what is shipped; or, with --baseline, whether results got worse.

    Without --baseline: all built-in content loads, schemas are current, and every record is valid.

    With --baseline: compares a results folder, or a suite that is run now, with an earlier state, cell by
    cell. Answers to the same items are paired and tested over clusters (speakers, documents, story frames),
    corrected for all tests.

    Exits with 0 where nothing got worse, 1 where a cell regressed, is missing or changed its identity (task,
    protocol, selector or model), 2 where there was nothing to compare.

    Examples:

        python harness.py check --suite quickstart --baseline baseline.parquet --update

        python harness.py check --suite quickstart --baseline baseline.parquet

        python harness.py check results/new --baseline results/old --allow-change model
    """
    if baseline is None:
        if suite or update or markdown or junit or allow_change:
            raise typer.BadParameter("a comparison needs --baseline")
        from affectbench.commands import check_all

        check_all(out, results or [])
        return
    if (suite is None) != (len(results or []) == 1):
        raise typer.BadParameter("give one folder of results to compare, or --suite")
    from affectbench.checking import Request, SuiteRun, check_baseline

    asked = (
        None
        if suite is None
        else SuiteRun(suite, output, include or [], data, limit, device, threads, trust_code)
    )
    allowed = [change.value for change in allow_change or []]
    given = results[0] if results else None
    try:
        code = check_baseline(
            out, Request(baseline, given, asked, tolerance, allowed, update, markdown, junit)
        )
    except AffectbenchError as error:
        print_error(error)
        code = 2
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what is done is kept: the same command goes on from here")
        code = 130
    raise typer.Exit(code)


@app.command()
def doctor() -> None:
    """Show versions, hardware, data folders and shipped models, and what is wrong with them."""
    from affectbench.doctor import examine

    examine(out)
