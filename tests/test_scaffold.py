"""`new selector`: what it writes works as it stands, and is the example of the guide."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_content import Bench, Outcome

from affectbench.registry import Registry
from affectbench.submission import read_folder

ROOT = Path(__file__).resolve().parent.parent
Cli = Callable[..., Outcome]


def test_the_files_work_as_they_are(run_cli: Cli, bench: Bench, tmp_path: Path) -> None:
    mine = tmp_path / "my_idea"
    status, out, _ = run_cli("new", "selector", "my_idea", "--output", mine)
    assert status == 0
    assert sorted(path.name for path in mine.iterdir()) == [
        "my_idea.py",
        "submission.yaml",
        "test_my_idea.py",
    ]
    assert f"python -m pytest {mine}" in out
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(mine)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert "2 passed" in tested.stdout, tested.stdout
    found = read_folder(mine)
    assert (found.submission.name, found.submission.title) == ("my_idea", "My idea")
    Registry(installed=False).suite(found.submission.suite)
    registry = bench.registry(mine)
    assert registry.selector("my_idea").__name__ == "MyIdea"
    assert registry.ignored == []
    (record,), _ = bench.run(bench.job("my_idea", more=[mine]), tmp_path / "out", more=[mine])
    assert record.status == "ok", record.reason


def test_the_guide_shows_what_is_written(run_cli: Cli, tmp_path: Path) -> None:
    run_cli("new", "selector", "log_odds", "--output", tmp_path)
    written = (tmp_path / "log_odds.py").read_text()
    assert f"```python\n{written}```" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Log-Odds", "cannot name a selector"),
        ("../evil", "cannot name a selector"),
        ("class", "cannot name a selector"),
        ("random", "is a module of Python's library"),
        ("magnitude", "there is a selector 'magnitude' already"),
    ],
)
def test_names_that_do_not_work_are_refused(run_cli: Cli, tmp_path: Path, name: str, told: str) -> None:
    status, _, err = run_cli("new", "selector", name, "--output", tmp_path / "x")
    assert status == 1
    assert told in err
    assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "submission.yaml").write_text("mine")
    status, _, err = run_cli("new", "selector", "my_idea", "--output", tmp_path)
    assert status == 1
    assert "is there already" in err
    assert [path.name for path in tmp_path.iterdir()] == ["submission.yaml"]
