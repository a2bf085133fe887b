"""Three benchmarks that share labels, for tests of units identified on one and tested on another."""

from __future__ import annotations

from pathlib import Path

from e2e_content import BENCHMARK, PROTOCOL, Bench, items, suite_file, write_benchmark, write_lines

from affectbench.plan import Job, jobs_of_suite

OTHERS, TWO = "toy-others", "toy-two"
"""The same labels in another order, on other stories; and a benchmark with two of the three."""
REORDERED = ["sadness", "anger", "joy"]


def transfer_content(bench: Bench, root: Path) -> Path:
    """A content folder with two further benchmarks and the suite of the grid."""
    write_benchmark(root, name=OTHERS, labels=REORDERED)
    told = [row | {"text": f"very {row['text']}", "id": f"o-{row['id']}"} for row in items()]
    write_lines(bench.root / "data" / OTHERS / "items.jsonl", told)
    write_benchmark(root, name=TWO, labels=["joy", "anger"])
    two = [row | {"id": f"t-{row['id']}"} for row in items() if row["emotion"] != "sadness"]
    write_lines(bench.root / "data" / TWO / "items.jsonl", two)
    for name in (OTHERS, TWO):
        path = root / "tasks" / "benchmarks" / f"{name}.yaml"
        path.write_text(path.read_text().replace(f"data: {BENCHMARK}", f"data: {name}"))
    suite(root, "grid", [BENCHMARK, OTHERS, TWO])
    return root


def suite(root: Path, name: str, tasks: list[str]) -> Path:
    return suite_file(
        root, name, PROTOCOL, tasks={"text": tasks}, controls=None, identification={"transfer": True}
    )


def jobs(bench: Bench, more: Path, name: str = "grid") -> list[Job]:
    return jobs_of_suite(bench.registry(more), name, None)
