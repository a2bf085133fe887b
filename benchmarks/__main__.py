"""``python -m benchmarks``: ratios of ours to the others, side by side in one process."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

LATEST = Path(__file__).parent / "latest.json"
NAMES = ("grid", "no-op", "evidence", "growth", "results")
LIBRARIES = ("torch", "transformers", "lm_eval", "numpy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, print a table, write the results."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(options.threads)
    from affectbench.errors import AffectbenchError
    from benchmarks import growth, overhead, results
    from benchmarks.grid import grid
    from benchmarks.measuring import Report, Result, Settings
    from benchmarks.ways import peer_versions

    benchmarks: dict[str, Callable[[Settings], Report]] = dict(
        zip(NAMES, (grid, overhead.no_op, overhead.evidence, growth.growth, results.results), strict=True)
    )
    settings = Settings(options.quick, options.full, 1 if options.quick else options.repeats)
    found: list[Result] = []
    skipped: list[str] = []
    try:
        for name in options.only or NAMES:
            settings.say(f"{name} ...")
            report = benchmarks[name](settings)
            found += report.results
            skipped += report.skipped
    except AffectbenchError as error:
        print(f"benchmark {name} failed: {error}", file=sys.stderr)
        return 1
    rows = [result.as_json() for result in found]
    conditions = {
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
        **peer_versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "threads": options.threads,
        "size": "quick" if options.quick else "full" if options.full else "share",
        "repeats": settings.repeats,
        "skipped": skipped,
    }
    options.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    _show(rows, conditions)
    print(f"\nwritten: {options.output}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Ratios of the cost of others to ours, side by side in one process, in CPU time. Above 1 "
        "means that ours is cheaper. Every comparison first checks that both sides give the same answers.",
    )
    found.add_argument("--only", action="append", choices=NAMES, help="run this benchmark; may be repeated")
    size = found.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny sizes, no peers: does it run at all?")
    size.add_argument("--full", action="store_true", help="the whole quick start: takes hours")
    found.add_argument(
        "--repeats",
        type=_positive,
        default=3,
        help="how often the sides of `grid` and `results` take turns (default 3; the others take 5 to 15)",
    )
    found.add_argument("--threads", type=_positive, default=1, help="threads of the numerics (default 1)")
    found.add_argument("--output", type=Path, default=LATEST, help=f"JSON to write (default {LATEST.name})")
    return found


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _show(rows: Sequence[dict[str, Any]], conditions: dict[str, Any]) -> None:
    """A Markdown table, ready for the README, and what it was measured with."""
    print("\n| what | ours | other | ratio (min to max) | unit |\n|---|---:|---:|---:|---|")
    for row in rows:
        low, high = row["spread"]
        print(
            f"| {row['name']} | {row['ours']:.4g} | {row['other']:.4g} | "
            f"**{row['ratio']:.3g}** ({low:.3g} to {high:.3g}) | {row['unit']} |"
        )
    print()
    for key, value in conditions.items():
        print(f"{key}: {'; '.join(value) or 'nothing' if isinstance(value, list) else value}")


if __name__ == "__main__":
    sys.exit(main())
