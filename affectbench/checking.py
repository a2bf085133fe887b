"""`check --baseline`: read or run results, compare them, report, and say with which code to exit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from affectbench.baseline import SUFFIX, Results, of_folder, read_results, write_baseline
from affectbench.errors import AffectbenchError, RecordError
from affectbench.registry import Registry
from affectbench.regression import compare
from affectbench.regression_report import as_junit, as_markdown, print_check
from affectbench.run_command import Where
from affectbench.store import write_atomically


@dataclass(frozen=True)
class SuiteRun:
    """A suite to run before the comparison, and how; fields as in `run`."""

    name: str
    output: Path | None
    include: Sequence[Path]
    data: Path | None
    limit: int | None
    device: str
    threads: int
    trust_code: bool = False


@dataclass(frozen=True)
class Request:
    """What to compare, how, and where reports go. Either `results` or `suite` is given."""

    baseline: Path
    results: Path | None
    suite: SuiteRun | None
    tolerance: float
    allowed: Collection[str]
    update: bool
    markdown: Path | None
    junit: Path | None


def check_baseline(console: Console, request: Request) -> int:
    """Compare and report; returns 0 (nothing got worse, or updated) or 1.

    Raises:
        AffectbenchError: there is nothing to compare: no baseline, a damaged one, an unknown suite.
    """
    path = request.baseline
    if request.update and (path.is_dir() or path.suffix != SUFFIX):
        problem = "is a folder" if path.is_dir() else f"does not end in {SUFFIX}"
        raise RecordError(
            f"--update writes one file, and {path} {problem}",
            hint=f"give a file such as baseline{SUFFIX}; a folder of results is written by `run --output`",
        )
    before = _before(console, request)
    results, failures = _results(console, request)
    passed = True
    if before is not None:
        check = compare(before, results, tolerance=request.tolerance, allowed=request.allowed)
        passed = check.passed
        print_check(console, check)
        for target, text in ((request.markdown, as_markdown), (request.junit, as_junit)):
            if target is not None:
                write_atomically(target, text(check).encode())
    if request.update:
        if failures:
            raise AffectbenchError(
                "no baseline written: the suite did not run to its end:\n" + "\n".join(failures)
            )
        size, count = write_baseline(path, results), len(results.records)
        _say(console, f"wrote {path}: {count} {'cell' if count == 1 else 'cells'}, {size / 1000:.0f} kB")
        return 0
    return 0 if passed else 1


def _before(console: Console, request: Request) -> Results | None:
    """The baseline; None where an update will replace one that is missing or damaged."""
    try:
        return read_results(request.baseline)
    except RecordError as error:
        if not request.update:
            raise
        if request.baseline.exists():
            _say(console, f"{error.message}; it is replaced")
        return None


def _results(console: Console, request: Request) -> tuple[Results, list[str]]:
    """What to compare, and the jobs of the suite that could not run: their cells will be missing."""
    if request.suite is None:
        assert request.results is not None
        return of_folder(request.results), []
    from affectbench.placement import Options
    from affectbench.plan import jobs_of_suite, trusted
    from affectbench.progress import Terminal
    from affectbench.run import Run, command_line

    suite = request.suite
    registry = Registry(suite.include)
    jobs = trusted(jobs_of_suite(registry, suite.name, None), suite.trust_code)
    executor = Where(threads=suite.threads).made(suite.device)
    name = suite.name if suite.limit is None else f"{suite.name}-limit{suite.limit}"
    folder = suite.output or Path("results") / name
    with Terminal(console) as terminal:
        options = Options(folder, suite.device, suite.data, suite.limit, 0, command_line())
        run = Run(registry, options, terminal, executor)
        records = run.run(jobs)
    return of_folder(folder, records), run.failures


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)
