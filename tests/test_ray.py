"""Scaling out: a run on Ray gives what a local run gives, whoever dies on the way."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e_content import (
    SUITE,
    Bench,
    contents,
    write_selector,
)
from e2e_runs import ON_RAY, command, needs_ray, run

from affectbench.analysing import inputs_of, planned
from affectbench.dataset import load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.placement import Order, planned_cells
from affectbench.ray_worker import compare_content
from affectbench.store import Store


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
    # Ray may write something of its own into the same line.
    notes = re.findall(r"note (\w+) of .*it is tried again", done.stdout)
    assert sorted(notes) == ["always", "always", "once"]
    assert "3 cells: 2 ok, 1 error" in done.stdout
    assert "1 of 2 jobs could not run" in done.stderr
    assert "'hollow' could not be loaded" in done.stderr
    job = bench.job("once", "magnitude", more=[own])
    bench.run(job, tmp_path / "local", more=[own])  # The marker is there: nobody is killed now.
    assert contents(tmp_path / "local").items() <= contents(tmp_path).items()


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
        (("--gpus-per-worker", "1"), "add --executor ray"),
        (("--workers", "2", "--device", "cuda"), "add --executor ray"),
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
    cells = planned_cells(registry, job, dataset)
    order = Order(job, dataset, cells, cells)
    compare_content(registry, order)
    write_selector(tmp_path, "mine", "units = units[::-1]")
    with pytest.raises(AffectbenchError, match="has another version of the selector of cell mine"):
        compare_content(bench.registry(tmp_path), order)
    changed = replace(order.cells[0], hashes=order.cells[0].hashes.model_copy(update={"model": "another"}))
    with pytest.raises(AffectbenchError, match=r"has another version of the model .*at the same paths"):
        compare_content(bench.registry(tmp_path), replace(order, cells=(changed,)))
    with pytest.raises(AffectbenchError, match="there is no selector 'mine'"):
        compare_content(bench.registry(), order)


def test_a_node_that_would_analyse_something_else_is_refused(bench: Bench) -> None:
    registry, job = bench.registry(), bench.job("magnitude")
    dataset = load_benchmark(job.benchmark, bench.root / "data", None)
    inputs = inputs_of(registry, job, dataset, ())
    asked = planned(registry, job, "direction-geometry", inputs)
    compare_content(registry, Order(job, dataset, (), (), (asked,)))
    code = asked.hashes.model_copy(update={"code": "another"})
    other = Order(job, dataset, (), (), (replace(asked, hashes=code),))
    with pytest.raises(AffectbenchError, match="would make the analysis direction-geometry of"):
        compare_content(registry, other)
