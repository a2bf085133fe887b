"""What `run --plan` says is what a run then does, and it is said before anything is loaded or written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e_content import (
    BENCHMARK,
    MODEL,
    SUITE,
    Bench,
    benchmark,
    card,
    suite_file,
    write_benchmark,
    write_protocol,
    write_selector,
    write_yaml,
)

from affectbench import analyses, placement
from affectbench.analysis_load import LOADS, with_analyses
from affectbench.estimate import Estimate, _Speeds
from affectbench.placement import Options, Order, Placement
from affectbench.plan_command import Listener, duration, planned
from affectbench.workload import Asked, batched, growth_of, workload

FACTOR = 2.0
"""How far an estimate may be off."""


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def loading(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(placement, "load_model", loading)


def plan(bench: Bench, jobs: Any, output: Path, *more: Path, **options: Any) -> list[Estimate]:
    settings = Options(output, data=options.pop("data", bench.root / "data"), **options)
    return planned(bench.registry(*more), jobs if isinstance(jobs, list) else [jobs], settings)


READOUTS: list[dict[str, Any]] = [
    {},
    {
        "readout": {
            "kind": "labels",
            "verbalisers": {"anger": " anger", "joy": " joy very", "sadness": " sadness very very"},
        }
    },
    {"readout": {"kind": "letters"}, "prompt": "Text : {text} Question : {options} Emotion :"},
    {"readout": {"kind": "generate", "max_new_tokens": 3}},
]


@pytest.mark.parametrize("tokens", [0, 150])
@pytest.mark.parametrize("changes", READOUTS, ids=["labels", "several tokens", "letters", "generate"])
def test_passes_and_rows_are_those_of_the_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], tokens: int
) -> None:
    monkeypatch.setattr("affectbench.cell.is_able", lambda _: True)  # So that the whole control is run.
    write_benchmark(tmp_path, name="asked", **changes)
    job = bench.job("magnitude", "attribution", "random", task="asked", more=[tmp_path])
    (told,) = plan(bench, job, tmp_path / "out", tmp_path, tokens=tokens)
    records, _ = bench.run(job, tmp_path / "out", more=[tmp_path], tokens=tokens)
    assert {record.status for record in records} <= {"ok", "collapsed"}, records[0].reason
    assert told.unknown == []
    assert (told.cells, told.kept) == (3, 0)
    assert told.items == records[0].task.n_items
    assert told.interventions == 3 * (3 + 6) * 3, "cells x (targets + draws) x doses"
    assert told.rows is not None
    assert told.passes is not None
    passes = sum(record.cost.forward_passes for record in records)
    rows = sum(record.cost.items_forwarded for record in records)
    assert passes / FACTOR <= told.passes <= passes * FACTOR
    assert rows / FACTOR <= told.rows <= rows * FACTOR


def test_a_capability_that_is_a_benchmark_is_counted(bench: Bench, tmp_path: Path) -> None:
    keeps = benchmark()["preservation"] | {"capability": {"kind": "benchmark", "task": "toy-control"}}
    write_benchmark(tmp_path, name="toy-main", preservation=keeps)
    write_benchmark(tmp_path, name="toy-control")
    job = bench.job("magnitude", task="toy-main", more=[tmp_path])
    (told,) = plan(bench, job, tmp_path / "out", tmp_path)
    records, _ = bench.run(job, tmp_path / "out", more=[tmp_path])
    rows = sum(record.cost.items_forwarded for record in records)
    assert rows / FACTOR <= (told.rows or 0) <= rows * FACTOR


@pytest.mark.usefixtures("no_model")
def test_more_to_do_is_more_work(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Speeds, "__missing__", lambda *_: 1e9)  # The same machine for both.
    write_protocol(tmp_path, name="many", controls={"random_draws": 60})
    few, many = (
        plan(bench, bench.job("magnitude", protocol=name, more=[tmp_path]), tmp_path / "out", tmp_path)[0]
        for name in ("toy-gain", "many")
    )
    assert many.interventions == (3 + 60) * 3
    assert (many.rows or 0) - (few.rows or 0) == 54 * 3 * 36, "draws x doses x test items"
    assert (many.seconds or 0) > (few.seconds or 0) > 0


SMALL = {"candidates": 6, "items": 5, "effect_draws": 50, "matched_repeats": 2, "random_draws": 4}
ITEMS = 6


def test_every_analysis_says_what_it_takes() -> None:
    assert set(LOADS) == set(analyses.ANALYSES)


@pytest.mark.parametrize("name", sorted(LOADS))
def test_passes_and_rows_of_an_analysis_are_those_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from transformers import AutoTokenizer

    from affectbench.analysing import attach_features
    from affectbench.dataset import load_benchmark
    from affectbench.plan import job_of_names
    from affectbench.registry import Registry

    whole = analyses.ANALYSES[name]
    few = {key: value for key, value in SMALL.items() if key in whole.settings}
    known: Any = analyses.ANALYSES
    monkeypatch.setitem(known, name, replace(whole, settings=whole.settings | few))
    registry, options = Registry(installed=False), Options(tmp_path, limit=ITEMS)
    job = job_of_names(registry, "reference-text", None, (), (), 0)
    asked = analyses.planned_analysis(
        name, "reference-text", job.benchmark.name, 0, {"task": "t", "model": "m"}
    )
    order = Order(job, load_benchmark(job.benchmark, None, ITEMS), (), (), (asked,))
    budget = 4096
    told = workload(registry, order, options, AutoTokenizer.from_pretrained(job.source), budget)
    assert told.total.passes == 0
    told = with_analyses(registry, order, told, budget, growth_of(options))
    at = Placement(registry, order, replace(options, tokens=budget), lambda _text: None)
    attach_features(at)
    analyses.run_analysis(asked, at.session, command="")
    spent = at.session.engine.cost
    assert spent.forward_passes / FACTOR <= told.total.passes <= spent.forward_passes * FACTOR
    assert spent.items_forwarded / FACTOR <= told.total.rows <= spent.items_forwarded * FACTOR


def test_a_plan_counts_the_analyses_that_are_left(tmp_path: Path, run_cli: Any) -> None:
    suite_file(
        tmp_path / "content", "geometry", "zero-gain", models=["reference-text"], controls=None,
        tasks={"text": "reference-narratives"}, selectors=["magnitude"], analyses=["direction-geometry"],
    )  # fmt: skip
    line = (
        "run",
        "geometry",
        "--include",
        tmp_path / "content",
        "--limit",
        3,
        "-o",
        tmp_path / "out",
        "--threads",
        1,
    )

    def told() -> Any:
        code, out, error = run_cli(*line, "--plan", "-f", "json")
        assert code == 0, error
        return json.loads(out)

    before = told()
    assert not (tmp_path / "out").exists()
    assert (before["total"]["cells"], before["total"]["analyses"]) == (1, 1)
    assert "hold those of 1 analyses, roughly" in run_cli(*line, "--plan")[1]
    made = ("analyse", "direction-geometry", "--model", "reference-text", "--limit", 3, "--threads", 1)
    assert run_cli(*made, "-o", tmp_path / "out")[0] == 0
    after = told()
    assert (after["total"]["cells"], after["total"]["analyses"]) == (1, 0)
    assert after["total"]["rows"] < before["total"]["rows"]
    assert run_cli(*line)[0] == 0
    (tmp_path / "out" / "analyses").rename(tmp_path / "gone")
    alone = told()
    assert (alone["total"]["cells"], alone["total"]["analyses"]) == (0, 1)
    assert alone["total"]["rows"] == before["total"]["rows"] - after["total"]["rows"]


def test_finished_cells_are_kept_and_lend_their_times(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    records, _ = bench.run(bench.job("magnitude"), output)
    monkeypatch.setattr(placement, "load_model", None)
    (told,) = plan(bench, bench.job("magnitude", "contrast"), output)
    assert (told.cells, told.kept) == (1, 1)
    assert told.basis == "1 finished cells of this model"
    spent = records[0].cost
    assert told.rows is not None
    assert told.seconds == pytest.approx(spent.wall_s / spent.items_forwarded * told.rows)
    (nothing,) = plan(bench, bench.job("magnitude"), output)
    assert (nothing.cells, nothing.kept, nothing.passes) == (0, 1, None)


@pytest.mark.usefixtures("no_model")
def test_weights_are_measured_unread(bench: Bench, tmp_path: Path) -> None:
    from safetensors import safe_open

    checkpoint = bench.root / "models" / "checkpoints" / MODEL
    with safe_open(checkpoint / "model.safetensors", "np") as file:
        stored = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118 - no mapping
    (whole,) = plan(bench, bench.job("magnitude"), tmp_path / "out")
    assert whole.memory_mib["weights"] == round(4 * stored / 2**20, 1)
    shutil.copytree(checkpoint, tmp_path / "models" / "checkpoints" / "hollow")
    (tmp_path / "models" / "checkpoints" / "hollow" / "model.safetensors").unlink()
    write_yaml(tmp_path / "models" / "hollow.yaml", card(name="hollow", checkpoint="checkpoints/hollow"))
    write_yaml(
        tmp_path / "models" / "half.yaml",
        card(name="half", checkpoint="checkpoints/hollow", dtype="bfloat16"),
    )
    from affectbench.plan import job_of_names

    registry = bench.registry(tmp_path)
    jobs = [job_of_names(registry, name, None, ["magnitude"], ["toy-gain"], 0) for name in ("hollow", "half")]
    hollow, half = plan(bench, jobs, tmp_path / "out", tmp_path)
    assert hollow.memory_mib["weights"] == pytest.approx(whole.memory_mib["weights"], rel=0.1, abs=0.1)
    assert half.memory_mib["activations"] == pytest.approx(hollow.memory_mib["activations"] / 2, abs=0.1)


@pytest.mark.slow
def test_memory_is_about_that_of_the_run(tmp_path: Path) -> None:
    import subprocess
    import sys

    root = Path(__file__).resolve().parent.parent
    line = [sys.executable, "harness.py", "run", "--model", "reference-text", "--selector", "attribution"]
    line += ["--limit", "20", "--output", str(tmp_path), "--threads", "1"]
    told = json.loads(subprocess.check_output([*line, "--plan", "-f", "json"], cwd=root, text=True))
    assert not list(tmp_path.iterdir())
    subprocess.run(line, cwd=root, check=True, capture_output=True)
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("records/*.json"))
    peak = record["cost"]["peak_memory_mib"]
    assert peak / FACTOR <= told["total"]["memory_mib"] <= peak * FACTOR


@pytest.mark.usefixtures("no_model")
def test_what_cannot_be_known_says_so(bench: Bench, tmp_path: Path, run_cli: Any) -> None:
    code, out, _ = run_cli(
        "run", SUITE, "--include", bench.root, "--data", tmp_path, "-o", tmp_path / "out", "--plan"
    )
    assert code == 0
    assert f"{MODEL} on {BENCHMARK}: not known: " in out
    assert str(tmp_path) in out
    assert "?" in out
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    arguments = ("--model", tmp_path / "bare", "--task", BENCHMARK, "--intervention", "toy-gain")
    included = ("--include", bench.root, "--data", bench.root / "data", "-o", tmp_path / "out")
    code, out, _ = run_cli("run", *arguments, *included, "--plan", "-f", "json")
    assert code == 0
    (job,) = json.loads(out)["jobs"]
    assert job["items"] == {"identification": 24, "validation": 12, "test": 36}
    assert job["passes"] is None
    assert job["unknown"]
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_model")
def test_a_plan_on_the_command_line(bench: Bench, tmp_path: Path, run_cli: Any) -> None:
    arguments = ("run", SUITE, "--include", bench.root, "--data", bench.root / "data", "-o", tmp_path / "out")
    code, out, _ = run_cli(*arguments, "--plan")
    assert code == 0
    row = next(line.split() for line in out.splitlines() if line.startswith(MODEL))
    assert row[:9] == [MODEL, BENCHMARK, "2", "0", "24", "+", "12", "+", "36"]
    assert "GFLOP/s, measured" in out
    code, out, _ = run_cli(*arguments, "--plan", "-f", "json")
    told = json.loads(out)
    assert told["total"]["cells"] == 2
    assert told["total"]["passes"] == told["jobs"][0]["passes"]
    assert not (tmp_path / "out").exists()
    assert run_cli(*arguments, "--plan", "-f", "yaml")[0] == 1
    code, _, said = run_cli(*arguments, "-f", "json")
    assert code == 1
    assert "add --plan" in said


def test_a_plan_leaves_damaged_files_where_they_are(done: Path, bench: Bench, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(done, tmp_path / "copy"))
    path = next(iter((copy / "records").glob("*.json")))
    path.write_text(path.read_text().replace('"status": "ok"', '"status": "collapsed"'))
    before = {each: each.read_bytes() for each in sorted(copy.rglob("*")) if each.is_file()}
    listener = Listener()
    found = planned(bench.registry(), bench.suite(), Options(copy, data=bench.root / "data"), listener)
    assert sum(each.cells for each in found) == 1
    assert any(path.name in note for note in listener.notes)
    assert {each: each.read_bytes() for each in sorted(copy.rglob("*")) if each.is_file()} == before


def test_a_selector_that_cannot_be_imported_is_planned_all_the_same(bench: Bench, tmp_path: Path) -> None:
    write_selector(tmp_path, "broken").write_text(
        "class Broken:\n    name = 'broken'\n    def select(self): 1 / 0\n"
    )
    (told,) = plan(bench, bench.job("broken", more=[tmp_path]), tmp_path / "out", tmp_path)
    assert told.cells == 1
    assert told.passes


def test_batches_are_cut_as_the_engine_cuts_them() -> None:
    assert list(batched([5, 3, 4], 100)) == [(3, 5)]
    assert list(batched([5, 3, 4], 9)) == [(2, 4), (1, 5)]
    assert list(batched([50], 9)) == [(1, 50)]
    assert list(batched([1] * 40, 1000)) == [(32, 1), (8, 1)]
    assert list(batched([5, 3, 4, 3], 9, times=3)) == [(2, 3), (1, 4), (1, 5)]
    load = Asked((4, 4), columns=2, steps=1).swept(3, budget=20, growth=1)
    assert (load.passes, load.rows) == (1 + 2 * 2, 2 + 6 * 2)
    assert (load.tokens, load.columns) == (8 * 4 + 6, 2 + 6 * 3)
    assert Asked((4, 4), columns=2, steps=1).swept(3, budget=20, growth=2).passes == 1 + 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2 h 30 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
