"""The guide to submissions is true: its lines run, its examples are accepted, its numbers are the code's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_content import SUITE, Bench, Outcome

from affectbench import copies, gates, published, submission, submission_archive, verify
from affectbench.selector import Selection
from affectbench.submission import read_card
from affectbench.verification import RESULTS

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "submissions.md").read_text(encoding="utf-8")
Cli = Callable[..., Outcome]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_lines_for_contributors_run(
    bench: Bench, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are written, but for the suite: the toy model stands in for the quick start."""
    monkeypatch.chdir(tmp_path)
    lines = blocks(section("A selector"), "bash")[0] + blocks(section("Submit a method"), "bash")[0]
    commands = [shlex.split(line) for line in lines.splitlines()]
    assert [command[1:3] for command in commands] == [
        ["harness.py", "new"], ["-m", "pytest"], ["harness.py", "submit"], ["harness.py", "submit"],
        ["harness.py", "verify"],
    ]  # fmt: skip
    own = ("--include", bench.root, "--data", bench.root / "data")
    for command in commands:
        if command[1] == "-m":
            call = [sys.executable, *command[1:], "-p", "no:cacheprovider"]
            done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout
            continue
        status, out, err = run_cli(*command[2:], *(() if command[2] == "new" else own))
        assert status == 0, out + err
        if command[2] == "new":
            card = tmp_path / "mine" / "submission.yaml"
            card.write_text(card.read_text().replace("suite: quickstart", f"suite: {SUITE}"))
    assert (tmp_path / "results" / "verified-log_odds-v1" / "verification.json").is_file()


def test_the_example_card_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(GUIDE, "yaml")
    (tmp_path / "submission.yaml").write_text(text)
    found = read_card(tmp_path / "submission.yaml")
    assert found.selections[0].model == "reference-text"


def test_the_example_selection_is_written_and_read(tmp_path: Path) -> None:
    (text,) = blocks(GUIDE, "python")
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = Selection.load(tmp_path / "text.safetensors")
    assert [units.size for units in found.units] == [5, 5, 5]
    assert found.items == ("item-1", "item-2")


def test_the_commands_parse() -> None:
    from typer.main import get_command

    from affectbench.cli import app

    group: Any = get_command(app)
    lines = [line for block in blocks(GUIDE, "bash") for line in block.splitlines()]
    assert len(lines) == 4
    for line in lines:
        program, script, name, *arguments = shlex.split(line)
        assert (program, script) == ("python", "harness.py")
        group.commands[name].make_context(name, arguments)


def test_limits_and_tolerances_are_those_of_the_code() -> None:
    assert f"{submission.MAX_FILE_BYTES >> 20} MiB a file" in GUIDE
    assert f"{submission.MAX_TOTAL_BYTES >> 20} MiB in all" in GUIDE
    assert f"more than {submission_archive.MAX_RATIO} times its size" in GUIDE
    assert (
        f"headline scores within {verify.TOLERANCE} and at most {verify.CHANGED:.0%}".replace("1%", "1 %")
        in GUIDE
    )
    assert f"{copies.COPY:.0%}".replace("%", " %") + " or more, in any" in GUIDE
    assert f"moved by more than {published.PRECISION}" in GUIDE
    assert {"same", "close", "differs"} <= set(RESULTS)


def test_every_gate_is_listed_once(bench: Bench, tmp_path: Path) -> None:
    found = gates.run_gates(gates.Change(tmp_path, tmp_path, bench.registry()))
    assert len(re.findall(r"^\d+\. ", GUIDE, re.MULTILINE)) == len(found)
