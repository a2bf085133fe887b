"""What the commands do once their arguments are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from affectbench.content import builtin_root
from affectbench.errors import AffectbenchError, RecordError
from affectbench.record import Record, cell_id
from affectbench.registry import Registry
from affectbench.store import Store

REFERENCE_RECIPES = {
    "reference-text": "text",
    "reference-text-plain": "text",
    "reference-text-emergent": "text",
    "reference-text-words": "words",
    "reference-text-base": "text_base",
    "reference-text-adapted": "text_adapted",
    "reference-text-expressive": "expressive",
    "reference-audio": "audio",
}
CORPUS_RECIPES = {"text": "text_corpus", "audio": "speech_corpus"}
"""By modality of the benchmark."""


def rescore(console: Console, results: Path) -> None:
    """Score every record again from its predictions and write those that change.

    Raises `AffectbenchError` at the end where a record or its predictions are damaged.
    """
    from affectbench.expression_score import rescored
    from affectbench.module_cell import module_findings
    from affectbench.operating import judged
    from affectbench.outcomes import content_digest
    from affectbench.replies import read_replies
    from affectbench.tables import read_records
    from affectbench.transfer import with_ratio

    store = Store(results)
    records, damaged = read_records(results)
    scored: dict[str, Record] = {}
    for record in records:
        if record.scores is None:
            continue
        try:
            outcomes = store.read_predictions(record.cell)
        except RecordError as error:
            damaged.append(error.message)
            continue
        if content_digest(outcomes) != record.hashes.predictions:
            damaged.append(f"{store.predictions_path(record.cell)}: these are not the answers of its record")
            continue
        parts = judged(outcomes, record.preservation, record.cell.seed, record.operating)
        if record.modules is not None:
            parts["modules"] = module_findings(
                record.modules, outcomes, record.preservation, seed=record.cell.seed
            )
        if record.expression is not None:
            path = store.replies_path(record.cell)
            try:
                replies = read_replies(path)
            except RecordError as error:
                damaged.append(error.message)
                continue
            if replies.digest != record.hashes.replies:
                damaged.append(f"{path}: these are not the replies of its record")
                continue
            parts["expression"] = rescored(record.expression, replies, record.cell.seed)
        again = Record.model_validate(dict(record) | parts | {"transfer": None})
        scored[cell_id(record.cell)] = again
    changed = 0
    for record in records:
        found = scored.get(cell_id(record.cell))
        again = with_ratio(found, store, scored.get).sealed() if found is not None else record
        if again.hashes.record != record.hashes.record:
            store.write(again)
            changed += 1
    console.print(f"{len(scored)} records scored again, {changed} changed")
    if damaged:
        raise AffectbenchError(
            f"{len(damaged)} could not be scored:\n" + "\n".join(damaged), hint="run these cells again"
        )


def build_leaderboard(console: Console, results: Sequence[Path], output: Path) -> None:
    """Build the site from one or more results folders."""
    from affectbench.analysis import FOLDER
    from affectbench.leaderboard import build_site_of

    for folder in results:
        if not any((folder / name).is_dir() for name in ("records", FOLDER)):
            raise AffectbenchError(
                f"{folder} holds no records", hint="run a suite first: python harness.py run quickstart"
            )
    with console.status("reading records") as status:
        site = build_site_of(
            results, output, progress=lambda done, total: status.update(f"entry pages: {done} of {total}")
        )
    for item in site.damaged:
        console.print(escape(f"left out {item.path}: {item.reason}"), highlight=False, soft_wrap=True)
    made = "" if site.n_made == len(site.entries) else f", {site.n_made} of their pages made again"
    console.print(f"{len(site.entries)} entries{made}, {len(site.damaged)} damaged files left out")
    console.print(escape(f"Open {site.index}"), highlight=False, soft_wrap=True)


def rebuild_reference(console: Console, name: str, output: Path, seed: int, threads: int) -> None:
    """Train a reference model again and print its figures beside the shipped one's."""
    import importlib

    if name not in REFERENCE_RECIPES:
        raise AffectbenchError(
            f"there is no recipe for {name!r}", hint=f"recipes: {', '.join(REFERENCE_RECIPES)}"
        )
    from transformers.utils import logging

    logging.disable_progress_bar()  # One status line is enough.
    recipe = importlib.import_module(f"affectbench.recipes.{REFERENCE_RECIPES[name]}")
    with console.status(f"building {name}") as status:
        rebuilt = recipe.build(
            name, output, seed, threads, lambda text: status.update(f"building {name}: {text}")
        )
        status.update("measuring the shipped model")
        shipped = recipe.figures(builtin_root() / "models" / "reference" / name)
    table = Table("figure", "rebuilt", "shipped", box=None, padding=(0, 2, 0, 0))
    for key in sorted(rebuilt | shipped):
        table.add_row(key, *(f"{found[key]:.3f}" if key in found else "–" for found in (rebuilt, shipped)))
    console.print(table)
    console.print(escape(f"Written to {output}"), highlight=False, soft_wrap=True)


def train_on_corpus(
    console: Console, task: str, include: Sequence[Path], data: Path | None, output: Path, seed: int,
    threads: int, steps: int | None,
) -> None:  # fmt: skip
    """Train a small model on a benchmark's data, and write it with its card below `output`."""
    import importlib

    from affectbench.recipes.corpus import Wanted

    benchmark = Registry(include).benchmark(task)
    from transformers.utils import logging

    logging.disable_progress_bar()  # One status line is enough.
    recipe = importlib.import_module(f"affectbench.recipes.{CORPUS_RECIPES[benchmark.modality]}")
    with console.status(f"training on {task}: reading") as status:
        wanted = Wanted(benchmark, data, output, seed, threads, steps)
        card = recipe.build(wanted, lambda text: status.update(f"training on {task}: {text}"))
    folder = card.with_suffix("")
    console.print(escape((folder / "README.md").read_text(encoding="utf-8")), highlight=False, soft_wrap=True)
    console.print(escape(f"Written to {folder}; card {card}"), highlight=False, soft_wrap=True)
    console.print(
        escape(f"Next: run --include {output} --model {card.stem} --data ..."),
        highlight=False,
        soft_wrap=True,
    )


def export_schemas(console: Console, folder: Path | None) -> None:
    """Write record and task schemas to `folder`, or to their places in the checkout."""
    from affectbench.task import write_task_schemas

    root = builtin_root()
    written = _result_schemas(folder or root / "leaderboard" / "schema")
    written += write_task_schemas(folder or root / "tasks" / "schema")
    for path in written:
        console.print(escape(str(path)), highlight=False, soft_wrap=True)


def _result_schemas(folder: Path) -> list[Path]:
    """Write the schemas of records, analyses, submissions, verifications and conformance reports."""
    from affectbench.analysis import write_analysis_schema
    from affectbench.conformance_report import write_conformance_schema
    from affectbench.store import write_schemas
    from affectbench.verification import write_submission_schemas

    results = [*write_schemas(folder), *write_analysis_schema(folder)]
    return [*results, *write_submission_schemas(folder), *write_conformance_schema(folder)]


def check_all(console: Console, results: Sequence[Path]) -> None:
    """Load all content, compare schemas with the shipped ones, validate records; raises on a defect."""
    import tempfile

    from affectbench.analyses import known
    from affectbench.analysis import AnalysisStore
    from affectbench.tables import read_records
    from affectbench.task import write_task_schemas

    registry = Registry()
    for kind, load in {
        "benchmark": registry.benchmark, "intervention": registry.intervention, "suite": registry.suite,
        "model": registry.model, "sae": registry.sae, "selector": registry.selector,
        "family": registry.family,
    }.items():  # fmt: skip
        for entry in registry.entries(kind):  # type: ignore[arg-type]
            load(entry.name)
    for entry in registry.entries("suite"):
        suite = registry.suite(entry.name)
        for analysis in suite.analyses:
            known(analysis)
        if suite.adaptation is not None:
            registry.model(suite.adaptation.base)
            for task in filter(None, (suite.adaptation.task, suite.adaptation.control)):
                registry.benchmark(task)
    root = builtin_root()
    with tempfile.TemporaryDirectory() as scratch:
        here = _result_schemas(Path(scratch))
        for path in [*here, *write_task_schemas(Path(scratch))]:
            shipped = root / ("leaderboard" if path in here else "tasks") / "schema" / path.name
            if not shipped.is_file() or shipped.read_bytes() != path.read_bytes():
                raise AffectbenchError(f"{shipped} is out of date", hint="run: python harness.py schemas")
    count, n_analyses, damaged = 0, 0, []
    shipped_results = root / "leaderboard" / "results"
    shipped_folders = [shipped_results] if (shipped_results / "records").is_dir() else []
    for folder in [*results, *shipped_folders]:
        records, bad = read_records(folder)
        count += len(records)
        analyses, unread = AnalysisStore(folder).read_all()
        n_analyses += len(analyses)
        damaged += bad + [f"{item.path}: {item.reason}" for item in unread]
    if damaged:
        raise AffectbenchError(
            f"{len(damaged)} damaged records:\n" + "\n".join(damaged),
            hint="run these cells again, or restore the files",
        )
    more = f", {n_analyses} analyses too" if n_analyses else ""
    console.print(f"content loads, schemas are current, {count} records are valid{more}")
