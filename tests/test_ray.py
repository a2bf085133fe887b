"""Scaling out: a run on Ray gives what a local run gives, whoever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e_content import (
    BENCHMARK,
    MODEL,
    PROTOCOL,
    SUITE,
    Bench,
    card,
    contents,
    write_benchmark,
    write_selector,
    write_yaml,
)

from affectbench.dataset import load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.placement import Order, planned_cells
from affectbench.ray_executor import import_ray
from affectbench.ray_worker import compare_content
from affectbench.store import Store

ROOT = Path(__file__).resolve().parent.parent
TIMES = {"cost": ("wall_s", "cpu_s", "peak_memory_mib"), "provenance": ("started", "finished", "command")}


def installed() -> bool:
    try:
        import_ray()
    except AffectbenchError:
        return False
    return True


needs_ray = pytest.mark.skipif(not installed(), reason="Ray is not installed: pip install 'affectbench[ray]'")


@pytest.fixture(scope="module")
def own(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own: a second benchmark, a model without weights, selectors that kill, two suites."""
    root = tmp_path_factory.mktemp("own")
    more = f"{BENCHMARK}-more"
    write_benchmark(root, name=more, prompt="Text : {text} feel :")
    (bench.root / "data" / more).mkdir(exist_ok=True)
    items = (bench.root / "data" / BENCHMARK / "items.jsonl").read_text()
    (bench.root / "data" / more / "items.jsonl").write_text(items)
    write_yaml(root / "models" / "hollow.yaml", card(name="hollow", checkpoint="checkpoints/hollow"))
    config = (bench.root / "models" / "checkpoints" / MODEL / "config.json").read_text()
    (root / "models" / "checkpoints" / "hollow").mkdir(parents=True)
    (root / "models" / "checkpoints" / "hollow" / "config.json").write_text(config)
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    write_selector(root, "always", kill)
    marker = root / "was-here"
    once = f"import pathlib\nseen = pathlib.Path({str(marker)!r})\nif not seen.exists():\n    seen.touch()\n"
    write_selector(root, "once", once + "\n".join(f"    {line}" for line in kill.splitlines()))
    suite = {"kind": "suite", "version": 1, "interventions": [PROTOCOL]}
    grid = suite | {
        "name": "grid",
        "models": [MODEL],
        "tasks": {"text": [BENCHMARK, more]},
        "selectors": ["magnitude", "contrast"],
        "controls": ["random"],
    }
    hard = suite | {
        "name": "hard",
        "models": [MODEL, "hollow"],
        "tasks": {"text": BENCHMARK},
        "selectors": ["always", "once", "magnitude"],
    }
    for content in (grid, hard):
        write_yaml(root / "tasks" / "suites" / f"{content['name']}.yaml", content)
    return root


def command(bench: Bench, own: Path, output: Path, *arguments: str) -> list[str]:
    parts = [sys.executable, "harness.py", "run", *arguments, "--output", str(output), "--threads", "1"]
    return [*parts, "--data", str(bench.root / "data"), "--include", str(bench.root), "--include", str(own)]


def run(line: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


ON_RAY = ("--executor", "ray", "--workers", "2")


def files(output: Path) -> dict[str, Any]:
    """Everything a run left: bytes of predictions and selections, records without their times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = str(path.relative_to(output))
        if path.suffix != ".json":
            found[name] = path.read_bytes()
            continue
        record = json.loads(path.read_text())
        for part, keys in TIMES.items():
            for key in keys:
                del record[part][key]
        found[name] = record
    return found


@needs_ray
@pytest.mark.slow
def test_results_equal_those_of_a_local_run(bench: Bench, own: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run(command(bench, own, here, "grid"))
    done = run(command(bench, own, there, "grid", *ON_RAY))
    assert files(here) == files(there)
    assert len(contents(there)) == 6
    assert done.stdout.count(f"{MODEL} · {BENCHMARK}") == 6, "one line a cell, as in a local run"
    again = run(command(bench, own, there, "grid", *ON_RAY))
    assert "6 cells were finished before and kept" in again.stdout


@needs_ray
@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_cell_tried_again(
    bench: Bench, own: Path, tmp_path: Path
) -> None:
    done = run(command(bench, own, tmp_path, "hard", *ON_RAY), code=1)
    found = {record.cell.selector: record for record in Store(tmp_path).read_all()[0]}
    assert {name: record.status for name, record in found.items()} == {
        "always": "error", "once": "ok", "magnitude": "ok"
    }  # fmt: skip
    assert "its worker died 3 times" in found["always"].reason
    notes = [line for line in done.stdout.splitlines() if "it is tried again" in line]
    assert sorted(line.split()[1] for line in notes) == ["always", "always", "once"]
    assert "3 cells: 2 ok, 1 error" in done.stdout
    assert "1 of 2 jobs could not run" in done.stderr
    assert "'hollow' could not be loaded" in done.stderr
    job = bench.job("once", "magnitude", more=[own])
    bench.run(job, tmp_path / "local", more=[own])  # The marker is there: nobody is killed now.
    assert contents(tmp_path / "local").items() <= contents(tmp_path).items()


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_leaves_finished_cells_and_no_process(
    bench: Bench, own: Path, tmp_path: Path, how: signal.Signals
) -> None:
    import psutil

    line = command(bench, own, tmp_path, "grid", *ON_RAY)
    driver = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while driver.poll() is None and not list(tmp_path.glob("records/*.json")):
        time.sleep(0.02)
    started = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, how)
    _, said = driver.communicate(timeout=60)
    if how == signal.SIGINT:
        assert driver.returncode == 130
        assert "finished cells are kept" in said
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left
    kept = contents(tmp_path)
    assert kept
    assert not Store(tmp_path).read_all()[1]
    done = run(command(bench, own, tmp_path, "grid"))
    assert "finished before and kept" in done.stdout
    assert kept.items() <= contents(tmp_path).items()
    assert len(contents(tmp_path)) == 6


# What is said before anything starts.


def test_without_ray_the_command_to_install_it_is_named(
    bench: Bench, tmp_path: Path, run_cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, said = run_cli("run", SUITE, "--include", bench.root, "-o", tmp_path, "--executor", "ray")
    assert code == 1
    assert "needs Ray" in said
    assert "pip install 'affectbench[ray]'" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--executor", "rey"), "did you mean 'ray'"),
        (("--workers", "2"), "add --executor ray"),
        (("--executor", "ray", "--device", "cuda:1"), "--device cuda"),
    ],
)
def test_options_that_do_not_fit_are_named(
    bench: Bench, tmp_path: Path, run_cli: Any, arguments: tuple[str, ...], message: str
) -> None:
    code, _, said = run_cli("run", SUITE, "--include", bench.root, "-o", tmp_path, *arguments)
    assert code == 1
    assert message in said


def test_a_node_whose_files_differ_is_refused(bench: Bench, tmp_path: Path) -> None:
    write_selector(tmp_path, "mine")
    registry = bench.registry(tmp_path)
    job = bench.job("magnitude", "mine", more=[tmp_path])
    dataset = load_benchmark(job.benchmark, bench.root / "data", None)
    order = Order(job, dataset, planned_cells(registry, job, dataset))
    compare_content(registry, order)
    write_selector(tmp_path, "mine", "units = units[::-1]")
    with pytest.raises(AffectbenchError, match="has another version of the selector of cell mine"):
        compare_content(bench.registry(tmp_path), order)
    changed = replace(order.cells[0], hashes=order.cells[0].hashes.model_copy(update={"model": "another"}))
    with pytest.raises(AffectbenchError, match=r"has another version of the model .*at the same paths"):
        compare_content(bench.registry(tmp_path), replace(order, cells=(changed,)))
    with pytest.raises(AffectbenchError, match="there is no selector 'mine'"):
        compare_content(bench.registry(), order)
