"""The pytest plug-in in a team's own tests: what they can assert, what is kept, what it costs others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from e2e_content import BENCHMARK, MODEL, PROTOCOL, Bench

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parent.parent
INSTALLED = any(point.value == "affectbench.pytest_plugin" for point in entry_points(group="pytest11"))
LOADED = [] if INSTALLED else ["-p", "affectbench.pytest_plugin"]
HEADER = """
import pytest
from affectbench.errors import AffectbenchError

def cell(run, model={model!r}, selector="magnitude", **changes):
    wanted = dict(task={task!r}, intervention={protocol!r}, include=[{root!r}], data={root!r} + "/data")
    return run(model, selector, **(wanted | changes))
"""


@pytest.fixture(autouse=True, scope="module")
def _engine() -> None:
    """Imported before: a run within this process forgets what it imported, and these bear it once only."""
    import affectbench.preservation
    import affectbench.session
    import affectbench.submitted  # noqa: F401


def run(pytester: pytest.Pytester, bench: Bench, tests: str, *arguments: str) -> pytest.RunResult:
    names = {"model": MODEL, "task": BENCHMARK, "protocol": PROTOCOL, "root": str(bench.root)}
    pytester.makepyfile(HEADER.format(**names) + tests)
    return pytester.runpytest_inprocess(*LOADED, "-q", *arguments)


def test_a_team_asserts_what_its_model_keeps(pytester: pytest.Pytester, bench: Bench) -> None:
    tests = """
def test_it_keeps(affectbench_run):
    found = cell(affectbench_run)
    assert found.base_uar == 1.0
    assert found.specificity.low <= found.specificity.value <= found.specificity.high
    assert found.strength.value < 1
    assert 0 <= found.preservation.low <= found.preservation.high <= 1
    assert found.significant in (True, False)
    assert found.record.cell.selector == "magnitude"

def test_it_fails_where_it_should(affectbench_run):
    assert cell(affectbench_run).specificity.low > 1.0
"""
    done = run(pytester, bench, tests)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*low > 1.0*", "*affectbench: ok, from the cache*"])


def test_results_are_kept_until_something_changes(pytester: pytest.Pytester, bench: Bench) -> None:
    tests = "\ndef test_it(affectbench_run):\n    cell(affectbench_run, limit={limit})\n"
    first = run(pytester, bench, tests.format(limit=3), "-s")
    first.stdout.fnmatch_lines(["*loading toy*"])
    kept = next(pytester.path.rglob(".pytest_cache")) / "d" / "affectbench"
    assert len(list(kept.rglob("records/*.json"))) == 1
    second = run(pytester, bench, tests.format(limit=3), "-s")
    second.stdout.no_fnmatch_line("*loading toy*")
    third = run(pytester, bench, tests.format(limit=4), "-s")
    third.stdout.fnmatch_lines(["*loading toy*"])


def test_a_folder_and_a_model_in_memory_give_the_same(pytester: pytest.Pytester, bench: Bench) -> None:
    tests = f"""
FOLDER = {str(bench.root / "models" / "checkpoints" / MODEL)!r}

def test_it(affectbench_run):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    network = AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    by_folder = cell(affectbench_run, FOLDER)
    in_memory = cell(affectbench_run, network, tokenizer=tokenizer)
    assert in_memory.record.cell.model == "qwen2forcausallm"
    assert in_memory.record.scores == by_folder.record.scores
    with pytest.raises(AffectbenchError, match="needs its tokenizer"):
        cell(affectbench_run, network)
"""
    run(pytester, bench, tests).assert_outcomes(passed=1)


def test_units_from_a_file_are_a_selection(pytester: pytest.Pytester, bench: Bench, tmp_path: Path) -> None:
    bench.run(bench.job("magnitude"), tmp_path)
    (units,) = (tmp_path / "selections").iterdir()
    tests = f"""
def test_it(affectbench_run):
    by_rule, by_file = cell(affectbench_run), cell(affectbench_run, selector={str(units)!r})
    assert by_file.record.scores == by_rule.record.scores
    assert by_file.record.hashes.selection == by_rule.record.hashes.selection
"""
    run(pytester, bench, tests).assert_outcomes(passed=1)


def test_what_has_no_result_says_why(pytester: pytest.Pytester, bench: Bench) -> None:
    tests = """
def test_a_name(affectbench_run):
    with pytest.raises(AffectbenchError, match="magnitud"):
        cell(affectbench_run, selector="magnitud")

def test_a_job(affectbench_run):
    with pytest.raises(AffectbenchError, match="toy on toy-stories"):
        cell(affectbench_run, data="nowhere")

def test_a_cell(affectbench_run):
    found = cell(affectbench_run, limit=1)
    with pytest.raises(AffectbenchError, match="magnitude on toy has no result: insufficient: "):
        found.specificity

def test_a_fraction(affectbench_run):
    assert cell(affectbench_run, fraction=0.05).record.cell.fraction == 0.05
    with pytest.raises(AffectbenchError, match="has fractions 0.05"):
        cell(affectbench_run, fraction=0.5)
"""
    run(pytester, bench, tests).assert_outcomes(passed=4)


def test_tests_that_run_a_model_bear_a_marker(pytester: pytest.Pytester, bench: Bench) -> None:
    tests = """
def test_light():
    pass

def test_heavy(affectbench_run):
    cell(affectbench_run)

@pytest.mark.affectbench
def test_marked():
    pass
"""
    light = run(pytester, bench, tests, "-m", "not affectbench", "--strict-markers")
    light.assert_outcomes(passed=1, deselected=2)
    run(pytester, bench, tests, "-m", "affectbench", "-p", "no:cacheprovider").assert_outcomes(
        passed=2, deselected=1
    )


def test_it_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    """Loaded in every pytest of an environment: it must not import the engine, let alone torch."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    ours = {name for name in sys.modules if name.startswith('affectbench')}\n"
        "    assert ours <= {'affectbench', 'affectbench.pytest_plugin'}\n"
        "    assert not {'torch', 'numpy', 'pydantic', 'transformers'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", *LOADED, "-q", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_example_passes_as_it_stands(pytester: pytest.Pytester) -> None:
    shutil.copy(ROOT / "examples" / "test_my_model.py", pytester.path)
    pytester.runpytest_inprocess(*LOADED, "-q").assert_outcomes(passed=2)
