"""Jobs side by side, on Ray or in processes of this machine, give what one after another gives."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from e2e_content import BENCHMARK, MODEL, Bench, contents
from e2e_runs import IN_PROCESSES, ON_RAY, ROOT, command, files, needs_ray, run

from affectbench.store import Store

EXECUTORS = [pytest.param(ON_RAY, marks=needs_ray, id="ray"), pytest.param(IN_PROCESSES, id="processes")]


@pytest.mark.slow
@pytest.mark.parametrize("side_by_side", EXECUTORS)
def test_results_equal_those_of_one_after_another(
    bench: Bench, own: Path, tmp_path: Path, side_by_side: tuple[str, ...]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run(command(bench, own, here, "grid"))
    done = run(command(bench, own, there, "grid", *side_by_side))
    assert files(here) == files(there)
    assert len(contents(there)) == 6
    told = [line for line in done.stdout.splitlines() if line.startswith(f"{MODEL} · {BENCHMARK}")]
    assert len([line for line in told if ": specificity " in line]) == 6, "one line a cell, as in a local run"
    again = run(command(bench, own, there, "grid", *side_by_side))
    assert "6 cells were finished before and kept" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("side_by_side", EXECUTORS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_leaves_finished_cells_and_no_process(
    bench: Bench, own: Path, tmp_path: Path, how: signal.Signals, side_by_side: tuple[str, ...]
) -> None:
    import psutil

    line = command(bench, own, tmp_path, "grid", *side_by_side)
    driver = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # Whoever runs the tests in the background may have told them to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while driver.poll() is None and not list(tmp_path.glob("records/*.json")):
        time.sleep(0.02)
    started = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, how)
    _, said = driver.communicate(timeout=60)
    if how == signal.SIGINT:
        assert driver.returncode == 130
        assert "kept: the same command goes on from here" in said
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left
    kept = contents(tmp_path)
    assert kept
    assert not Store(tmp_path).read_all()[1]
    done = run(command(bench, own, tmp_path, "grid"))
    assert "finished before and kept" in done.stdout
    assert kept.items() <= contents(tmp_path).items()
    assert len(contents(tmp_path)) == 6


@pytest.mark.slow
def test_a_process_that_dies_ends_its_job_alone(bench: Bench, own: Path, tmp_path: Path) -> None:
    done = run(command(bench, own, tmp_path, "hard", *IN_PROCESSES), code=1)
    assert "the process that ran it died: killed by SIGKILL" in done.stderr
    assert "'hollow' could not be loaded" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
