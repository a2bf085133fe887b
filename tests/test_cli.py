"""The commands that show things: what they print, in what form, and what they import."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_content import BENCHMARK, MODEL, PROTOCOL, SELECTORS, SUITE, Bench, Outcome

from affectbench import __version__

ROOT = Path(__file__).resolve().parent.parent
Cli = Callable[..., Outcome]
COMMANDS = (
    "list",
    "run",
    "score",
    "table",
    "leaderboard",
    "rebuild",
    "train",
    "schemas",
    "check",
    "doctor",
    "pin",
    "submit",
    "verify",
    "gates",
    "export",
)
NUMBERS = "dose fraction self cross spec spec_low spec_high p strength pres agg"
COLUMNS: dict[str, type] = {
    **dict.fromkeys(["model", "task", "selector", "intervention", "arm", "status"], str),
    **dict.fromkeys(NUMBERS.split(), float),
    "significant": bool,
}


@pytest.fixture(scope="module")
def results(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished suite."""
    output = tmp_path_factory.mktemp("results")
    bench.run(bench.suite(), output)
    return output


def harness(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "harness.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


# Starting up.


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["--version"], ["run", "--help"], ["table", "x"]]
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['harness.py', *{arguments!r}]\n"
        "from affectbench.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'scipy', 'sklearn', 'pandas', 'pyarrow', 'lm_eval', 'datasets'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run_cli: Cli, command: str) -> None:
    code, out, _ = run_cli(command, "--help")
    assert code == 0
    assert f"{command} [OPTIONS]" in out
    assert len(out.split()) > 20


def test_the_help_names_every_command_and_where_to_start(run_cli: Cli) -> None:
    code, out, _ = run_cli("--help")
    assert code == 0
    assert all(f" {command} " in out for command in COMMANDS)
    assert "run quickstart" in out
    assert run_cli()[1].strip() == out.strip()


def test_the_exit_code_is_documented(run_cli: Cli) -> None:
    assert "Exits with 0" in run_cli("run", "--help")[1]


def test_version(run_cli: Cli) -> None:
    assert run_cli("--version") == (0, f"{__version__}\n", "")


def test_an_expected_error_from_another_folder_shows_no_traceback(tmp_path: Path) -> None:
    done = harness("run", "quickstat", cwd=tmp_path)
    assert done.returncode == 1
    assert "error there is no suite 'quickstat'; did you mean 'quickstart'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_says_what_is_kept(
    bench: Bench, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("affectbench.placement.load_model", interrupt)
    more = ("--include", bench.root, "--data", bench.root / "data", "-o", tmp_path)
    code, _, err = run_cli("run", SUITE, *more)
    assert code == 130
    assert "stopped; what is done is kept" in err


# Lists.


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("models", ["reference-text", "reference-audio", MODEL]),
        ("tasks", ["reference-narratives", "emodb", "goemotions", BENCHMARK]),
        ("selectors", ["magnitude", "entropy", "random", "shuffled_labels"]),
        ("interventions", ["zero-gain", "mean-gain", "esn-paper", PROTOCOL]),
        ("suites", ["quickstart", SUITE]),
    ],
)
def test_lists(bench: Bench, run_cli: Cli, kind: str, names: list[str]) -> None:
    code, out, _ = run_cli("list", kind, "--include", bench.root)
    assert code == 0
    rows = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert rows[0] == kind
    assert set(names) <= set(rows)
    assert "built-in" in out
    _, everything, _ = run_cli("list", "--include", bench.root)
    assert all(name in everything for name in names)


def test_a_broken_file_does_not_hide_the_rest(bench: Bench, run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tasks" / "suites").mkdir(parents=True)
    (tmp_path / "tasks" / "suites" / "torn.yaml").write_text("kind: suite\nname: [torn\n")
    (tmp_path / "selectors").mkdir()
    (tmp_path / "selectors" / "torn.py").write_text("def torn(:\n")
    code, out, _ = run_cli("list", "--include", tmp_path)
    assert code == 0
    assert "quickstart" in out
    assert "magnitude" in out
    assert f"cannot be read {tmp_path}/tasks/suites/torn.yaml:" in out
    assert f"ignored {tmp_path}/selectors/torn.py:1: not valid Python" in out


# Tables.


def test_json_table(results: Path, run_cli: Cli) -> None:
    code, out, err = run_cli("table", results, "--format", "json")
    assert (code, err) == (0, "")
    rows: list[dict[str, Any]] = json.loads(out)
    assert len(rows) == 2 * 3
    for row in rows:
        for name, kind in COLUMNS.items():
            assert row[name] is None or isinstance(row[name], kind), name
        assert row["model"] == MODEL
        assert row["fraction"] == 0.05
        assert row["spec_low"] <= row["spec"] <= row["spec_high"]
        sign = -1 if row["arm"] == "suppress" else 1
        assert row["spec"] == pytest.approx(sign * (row["self"] - row["cross"]))
    assert {(row["selector"], row["arm"], row["dose"]) for row in rows} == {
        (selector, arm, dose) for selector in SELECTORS for arm, dose in CONDITIONS
    }


CONDITIONS = (("suppress", 0.0), ("amplify", 2.0), ("amplify", 4.0))


def test_all_forms_say_the_same(results: Path, run_cli: Cli) -> None:
    rows = json.loads(run_cli("table", results, "-f", "json")[1])
    table = list(csv.DictReader(io.StringIO(run_cli("table", results, "-f", "csv")[1])))
    assert [set(row) for row in table] == [set(row) for row in rows]
    for found, row in zip(table, rows, strict=True):
        for name, value in row.items():
            assert found[name] == ("" if value is None else str(value)), name
    lines = run_cli("table", results, "-f", "md")[1].splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    text = run_cli("table", results)[1]
    assert all(selector in text for selector in SELECTORS)
    assert "…" not in text
    assert len(text.splitlines()) <= 2 + len(rows), "one line a row"


def test_only_the_operating_doses(results: Path, run_cli: Cli) -> None:
    rows = json.loads(run_cli("table", results, "-f", "json", "--operating")[1])
    assert all(row["operating"] for row in rows)
    assert [(row["selector"], row["arm"]) for row in rows] == [
        (selector, arm) for selector in SELECTORS for arm in ("suppress", "amplify")
    ]


def test_a_damaged_record_is_left_out_and_named(bench: Bench, tmp_path: Path, run_cli: Cli) -> None:
    bench.run(bench.suite(), tmp_path)
    path = next((tmp_path / "records").glob("*magnitude*"))
    path.write_text(path.read_text().replace('"status": "ok"', '"status": "collapsed"', 1))
    code, out, err = run_cli("table", tmp_path, "-f", "json")
    assert code == 0
    assert {row["selector"] for row in json.loads(out)} == {"random"}
    assert str(path) in err
    code, _, err = run_cli("check", tmp_path)
    assert code == 1
    assert str(path) in err


# The site, and what stands behind it.


def test_leaderboard(results: Path, tmp_path: Path, run_cli: Cli) -> None:
    code, out, _ = run_cli("leaderboard", "--results", results, "--output", tmp_path / "site")
    assert code == 0
    assert "2 entries, 0 damaged files left out" in out
    index = tmp_path / "site" / "index.html"
    assert f"Open {index}" in out
    assert "magnitude" in index.read_text()


def test_check_and_schemas(results: Path, tmp_path: Path, run_cli: Cli) -> None:
    code, out, _ = run_cli("check", results)
    assert code == 0
    assert "2 records are valid" in out
    code, out, _ = run_cli("schemas", tmp_path)
    assert code == 0
    written = [Path(line) for line in out.splitlines()]
    written_kinds = {path.name.removesuffix(".schema.json") for path in written}
    tasks = {"alignment", "alignment-suite", "benchmark", "expression", "intervention", "suite"}
    contributed = {"judge", "model", "sae", "submission"}
    assert written_kinds == tasks | contributed | {"analysis", "conformance", "record", "verification"}
    assert all(json.loads(path.read_text())["type"] == "object" for path in written)


def test_doctor(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTBENCH_DATA", "/nowhere/data")
    code, out, _ = run_cli("doctor")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"ok affectbench {__version__}" in lines
    assert any(line.startswith("ok torch ") for line in lines)
    assert any(line.startswith("look AFFECTBENCH_DATA /nowhere/data") for line in lines)
    assert any(line.startswith("ok model reference-text ") for line in lines)
