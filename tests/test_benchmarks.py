"""The benchmarks run, agree with what they time, and say when they do not."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import items, readout, tiny_qwen2

from affectbench.engine import Engine
from affectbench.intervention import UNTOUCHED, Intervention, scale
from affectbench.model import Model
from affectbench.score import score_outcomes
from affectbench.store import Store
from benchmarks import __main__ as command
from benchmarks import gpu, growth, leaderboard_size, results
from benchmarks.measuring import BenchmarkError, agree, compared, in_turn
from benchmarks.one_at_a_time import answers, inputs_of
from benchmarks.ways import Hooks, NNsight, Pyvene, installed_peers

ROOT = Path(__file__).resolve().parent.parent
KEYS = {"name", "ours", "other", "ratio", "spread", "unit"}


def some_interventions(model: Model) -> list[Intervention]:
    rng = np.random.default_rng(0)
    chosen = [rng.choice(model.shape.units, size=9, replace=False) for _ in range(3)]
    return [UNTOUCHED, *(scale("gate", model.shape, np.sort(units), 3.0) for units in chosen)]


def check_rows(rows: list[dict]) -> None:
    assert rows
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == KEYS
        assert all(math.isfinite(row[key]) for key in ("ours", "other", "ratio"))
        low, high = row["spread"]
        assert low <= row["ratio"] <= high
        assert row["unit"]


class TestWays:
    """The others answer as the engine does: otherwise their time means nothing."""

    @pytest.mark.parametrize("way", [Hooks, NNsight, Pyvene])
    def test_answers_equal_the_engines(self, way: type) -> None:
        if way is not Hooks and importlib.util.find_spec(way.name) is None:
            pytest.skip(f"{way.name} is not installed; the extra `bench` brings it")
        model = tiny_qwen2()
        asked, read, edits = items(model), readout(model), some_interventions(model)
        ours = Engine(model).predict(asked, read, edits).scores
        theirs = answers(way(model), inputs_of(model, asked), asked, read, edits)
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
        assert np.abs(theirs[0] - theirs[1]).max() > 1e-3  # The edits do something.

    def test_hooks_are_gone_afterwards(self) -> None:
        model = tiny_qwen2()
        with Hooks(model).edited(some_interventions(model)[1]):
            assert any(model.activation(layer)._forward_hooks for layer in range(model.shape.layers))
        assert not any(model.activation(layer)._forward_hooks for layer in range(model.shape.layers))

    def test_an_edit_that_the_others_do_not_know_is_refused(self) -> None:
        model = tiny_qwen2()
        edit = scale("neuron", model.shape, np.array([3]), 2.0)
        with pytest.raises(BenchmarkError, match="not written for"), Hooks(model).edited(edit):
            pass

    def test_a_missing_peer_is_named_with_the_way_to_get_it(self) -> None:
        found, missing = installed_peers()
        assert len(found) + len(missing) == 2
        assert all("[bench]" in line for line in missing)


class TestMeasuring:
    def test_the_ratio_is_the_median_of_the_pairs_and_the_spread_their_range(self) -> None:
        result = compared("a", [1.0, 2.0, 4.0], [4.0, 4.0, 4.0], "s")
        assert (result.ours, result.other, result.ratio, result.spread) == (2.0, 4.0, 2.0, (1.0, 4.0))

    def test_sides_are_taken_in_turn(self) -> None:
        called: list[str] = []
        times = in_turn({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
        assert "".join(called) == "ababab"
        assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}

    def test_disagreement_is_an_error(self) -> None:
        with pytest.raises(BenchmarkError, match="disagree: labels"):
            agree(False, "labels")

    def test_the_exponent_of_a_square_is_two(self) -> None:
        assert growth._slope([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0]) == pytest.approx(2.0)

    def test_the_plain_loop_gives_the_interval_that_the_scores_give(self) -> None:
        outcomes = results.made_up(140)
        loop = results.PlainLoop(outcomes, 2000)
        loop.run()
        for place, dose in enumerate(score_outcomes(outcomes, seed=0, bootstrap_draws=2000).doses):
            low, high = loop.interval(place)
            assert dose.spec.low == pytest.approx(low, abs=0.01)
            assert dose.spec.high == pytest.approx(high, abs=0.01)


def shown_commands() -> list[list[str]]:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    fenced = "".join(re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    inline = re.findall(r"`(python -m benchmarks[^`]*)`", page)
    return [shlex.split(line) for line in [*fenced.splitlines(), *inline] if line.startswith("python")]


@pytest.mark.parametrize("arguments", shown_commands(), ids=" ".join)
def test_commands_of_the_page_parse(arguments: list[str]) -> None:
    parsers = {
        "benchmarks": command.parser,
        "benchmarks.gpu": gpu.parser,
        "benchmarks.leaderboard_size": leaderboard_size.parser,
    }
    assert arguments[:2] == ["python", "-m"]
    parsers[arguments[2]]().parse_args(arguments[3:])


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_the_quick_form_runs_and_writes_the_file(tmp_path: Path) -> None:
    shown = run("benchmarks", "--quick", "--output", str(tmp_path / "latest.json"))
    rows = json.loads((tmp_path / "latest.json").read_text())
    check_rows(rows)
    names = " ".join(row["name"] for row in rows)
    for part in ("whole cells", "answers", "no-op", "evidence", "exponent", "draws", "leaderboard"):
        assert part in names
    assert all(row["name"] in shown for row in rows)
    assert "peers are left out" in shown


@pytest.mark.slow
def test_the_gpu_script_runs_small_on_a_cpu(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    shown = run(
        "benchmarks.gpu", "--size", "tiny", "--device", "cpu", "--repeats", "1", "--output", str(output)
    )
    check_rows(json.loads(output.read_text()))
    assert "tokens/s" in shown


def test_the_last_results_are_well_formed() -> None:
    latest = ROOT / "benchmarks" / "latest.json"
    if not latest.is_file():
        pytest.skip("benchmarks/latest.json is written by `make bench`")
    check_rows(json.loads(latest.read_text(encoding="utf-8")))


def test_generated_records_are_valid_and_fill_a_leaderboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        leaderboard_size.main(["--entries", "3", "--cells", "5", "--records", str(tmp_path / "results")]) == 0
    )
    records, damaged = Store(tmp_path / "results").read_all()
    assert not damaged
    assert len(records) == len({record.hashes.record for record in records}) == 15
    assert len({(record.cell.model, record.cell.task) for record in records}) == 5
    found = capsys.readouterr().out
    assert [line.split()[0] for line in found.splitlines() if "entry pages made" in line] == ["15", "0", "1"]


def test_boards_can_be_used_without_entry_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert leaderboard_size.main(["--entries", "3", "--cells", "5", "--boards"]) == 0
    found = capsys.readouterr().out
    assert "15 records" in found
    assert "entry pages" not in found
