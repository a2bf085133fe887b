"""`check --baseline` as a person or a build meets it: commands, exit codes, reports."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from e2e_content import MODEL, SUITE, Bench, Outcome, save_model, write_selector
from rich.console import Console
from test_regression import record_of, results, world

from affectbench.regression import Check, compare
from affectbench.regression_report import as_junit, as_markdown, headline, print_check

ROOT = Path(__file__).resolve().parent.parent
Cli = Callable[..., Outcome]


@pytest.fixture
def content(bench: Bench, tmp_path: Path) -> Path:
    """A copy of the content, to be changed."""
    return Path(shutil.copytree(bench.root, tmp_path / "content"))


@pytest.fixture
def check(run_cli: Cli, content: Path, tmp_path: Path) -> Cli:
    """The command on the toy suite and its baseline file, which exists already."""

    def run(*arguments: object) -> Outcome:
        return run_cli(
            "check", "--suite", SUITE, "--include", content, "--data", content / "data",
            "--output", tmp_path / "out", "--baseline", tmp_path / "baseline.parquet", *arguments,
        )  # fmt: skip

    code, out, _ = run("--update")
    assert code == 0
    assert f"wrote {tmp_path / 'baseline.parquet'}: 2 cells" in out
    return run


def test_an_unchanged_suite_passes_without_running(check: Cli) -> None:
    code, out, _ = check()
    assert code == 0
    assert "2 cells were finished before and kept" in out
    assert "passed: 2 cells against" in out
    assert "2 same" in out


def test_a_worse_checkpoint_is_named_then_judged_then_taken(
    check: Cli, content: Path, tmp_path: Path
) -> None:
    """The way of a new checkpoint: told, allowed, found worse, taken on purpose."""
    save_model(content / "models" / "checkpoints" / MODEL, steps=8)
    code, out, _ = check()
    assert code == 1
    assert "identity changed: model" in out
    assert "--allow-change model" in out
    reports = ["--markdown", tmp_path / "report.md", "--junit", tmp_path / "report.xml"]
    code, out, _ = check("--allow-change", "model", *reports)
    assert code == 1
    assert "FAILED: 2 cells" in out
    assert "2 regressed" in out
    assert "base UAR" in out
    assert "base UAR" in (tmp_path / "report.md").read_text()
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    code, out, _ = check("--allow-change", "model", "--update")
    assert code == 0
    assert "2 regressed" in out
    assert "wrote" in out
    assert check()[0] == 0


def test_a_selector_that_breaks_is_a_regression(check: Cli, content: Path) -> None:
    suite = content / "tasks" / "suites" / f"{SUITE}.yaml"
    suite.write_text(suite.read_text().replace("magnitude", "mine"))
    write_selector(content, "mine")
    assert check("--update")[0] == 0
    write_selector(content, "mine", "raise ValueError('not today')")
    for name in [name for name in sys.modules if name.endswith("mine")]:  # As in a process of its own.
        del sys.modules[name]
    code, out, _ = check("--allow-change", "selector")
    assert code == 1
    assert "not today" in out
    assert "1 regressed" in out
    code, _, said = check("--update")
    assert code == 2
    assert "no baseline written" in said


def test_a_cell_that_left_the_suite_is_missing_though_its_record_is_there(check: Cli, content: Path) -> None:
    suite = content / "tasks" / "suites" / f"{SUITE}.yaml"
    suite.write_text(suite.read_text().replace("magnitude", "contrast"))
    code, out, _ = check()
    assert code == 1
    assert "1 missing, 1 new, 1 same" in out


def test_a_job_that_cannot_run_is_missing_and_makes_no_baseline(check: Cli, content: Path) -> None:
    shutil.rmtree(content / "data")
    code, out, _ = check()
    assert code == 1
    assert "note" in out
    assert "2 missing" in out
    code, _, said = check("--update")
    assert code == 2
    assert "the suite did not run to its end" in said


def test_the_commands_of_the_readme_do_what_it_says(
    run_cli: Cli, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    write, compare_again = re.findall(r"^python harness.py (check .*--baseline.*)$", text, re.MULTILINE)
    own = ["--include", bench.root, "--data", bench.root / "data"]
    for command, said in ((write, "wrote baseline.parquet: 2 cells"), (compare_again, "passed: 2 cells")):
        code, out, _ = run_cli(*shlex.split(command.replace("quickstart", SUITE)), *own)
        assert code == 0
        assert said in out


def test_two_folders_compare(check: Cli, run_cli: Cli, tmp_path: Path) -> None:
    code, out, _ = run_cli("check", tmp_path / "out", "--baseline", tmp_path / "out")
    assert (code, "2 same" in out) == (0, True)
    next((tmp_path / "out" / "records").glob("*magnitude*")).unlink()
    code, out, _ = run_cli("check", tmp_path / "out", "--baseline", tmp_path / "baseline.parquet")
    assert code == 1
    assert "1 missing, 1 same" in out


def test_a_damaged_baseline_stops_the_check_and_can_be_replaced(check: Cli, tmp_path: Path) -> None:
    path = tmp_path / "baseline.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    code, _, said = check()
    assert code == 2
    assert f"the baseline {path} is damaged" in said
    code, out, _ = check("--update")
    assert code == 0
    assert "it is replaced" in out
    assert check()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "quickstart"], "needs --baseline"),
        (["--update"], "needs --baseline"),
        (["--baseline", "x.parquet"], "give one folder of results"),
        (["--baseline", "x.parquet", "a", "b"], "give one folder of results"),
        (["a", "--baseline", "x.parquet", "--suite", "quickstart"], "give one folder of results"),
        (["--baseline", "x.parquet", "a"], "there is no baseline at x.parquet"),
        (["--baseline", "x.parquet", "--suite", "quickstar"], "there is no baseline at x.parquet"),
        (["--baseline", "x.parquet", "--suite", "quickstar", "--update"], "quickstart"),
        (["--baseline", "x.json", "a", "--update"], "does not end in .parquet"),
        (["--baseline", "tests", "a", "--update"], "is a folder"),
        (["--baseline", "x.parquet", "a", "--allow-change", "task"], "task"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_requests_that_make_no_sense_exit_with_2(run_cli: Cli, arguments: list[str], said: str) -> None:
    code, out, error = run_cli("check", *arguments)
    assert code == 2, out
    assert said in " ".join(error.replace("│", " ").split())


def test_the_help_teaches_both_uses_and_the_codes(run_cli: Cli) -> None:
    _, out, _ = run_cli("check", "--help")
    assert "Without --baseline" in out
    assert "Exits with 0" in out
    assert "--update" in out


# Reports.


@pytest.fixture
def mixed() -> Check:
    """One cell of each kind: regressed, improved, identity changed, missing, new, same."""
    answers = world(3, n_per_label=60)
    good, bad = answers(1, effect=0.6), answers(2, effect=0.2)
    before = results(
        *(
            (record_of(o, name), o)
            for o, name in ((good, "mad"), (bad, "cas"), (good, "lap"), (good, "lape"))
        ),
        (record_of(good, "probe"), good),
        name="base|line",
    )
    after = results(
        *((record_of(o, name), o) for o, name in ((bad, "mad"), (good, "cas"), (good, "lape"))),
        (record_of(good, "probe", hashes={"protocol": "0" * 16}), good),
        (record_of(good, "planted"), good),
    )
    return compare(before, after, draws=500)


def test_the_headline_counts_the_worst_first(mixed: Check) -> None:
    assert headline(mixed) == (
        "FAILED: 6 cells against base|line: "
        "1 identity changed, 1 missing, 1 regressed, 1 improved, 1 new, 1 same"
    )


def test_a_narrow_terminal_cuts_nothing(mixed: Check) -> None:
    stream = io.StringIO()
    print_check(Console(file=stream, width=60, force_terminal=True, color_system=None), mixed)
    lines = stream.getvalue().splitlines()
    assert "regressed  reference-text · reference-text · mad · gain 1.00%" in lines
    (spec,) = [line for line in lines if line.split()[:3] == ["specificity", "0.431", "0.136"]]
    assert spec.split()[3] == "-0.295"
    assert "missing  reference-text · reference-text · lap · gain 1.00%" in lines
    assert lines.index(headline(mixed)) == len(lines) - 2
    assert not any("lape" in line for line in lines), "what is the same is counted, not listed"


def test_junit_has_a_case_a_cell_and_a_failure_each_that_failed(mixed: Check) -> None:
    root = ElementTree.fromstring(as_junit(mixed))
    suite = root[0]
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "3", "errors": "0", "skipped": "1"}
    cases = suite.findall("testcase")
    assert len(cases) == 6
    found = {case.get("name", "").split()[0]: case for case in cases}
    failures = {name: case.find("failure") for name, case in found.items()}
    assert {name for name, failure in failures.items() if failure is not None} == {"mad", "lap", "probe"}
    assert failures["mad"] is not None
    assert "specificity 0.431 → 0.136" in failures["mad"].get("message", "")
    assert failures["probe"] is not None
    assert failures["probe"].get("message") == "protocol changed"
    assert found["planted"].find("skipped") is not None


def test_markdown_is_a_table_that_names_cannot_break(mixed: Check) -> None:
    text = as_markdown(mixed)
    assert "❌ affectbench check FAILED: 6 cells against base&#124;line" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {8}
    assert text.count("<details>") == text.count("</details>") == 1
    fold = text.index("<details>")
    assert "lape" not in text[:fold]
    assert "lape" in text[fold:]
