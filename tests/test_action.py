"""The composite action and the workflow that shows it: their shell steps are run here as the runner would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from e2e_content import BENCHMARK, SUITE, Bench, save_model

ROOT = Path(__file__).resolve().parent.parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "affectbench.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
EXAMPLE: dict[str, str] = WORKFLOW["jobs"]["check"]["steps"][1]["with"]


@dataclass
class Workspace:
    """A team's repository with the example's folder `ci`, and a runner's folders and programs."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "repository"

    def step(self, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run the shell step `name` with these inputs, the others at their defaults."""
        step = next(step for step in STEPS if step.get("id") == name)
        values = {key: declared.get("default", "") for key, declared in ACTION["inputs"].items()} | inputs

        def given(match: re.Match[str]) -> str:
            return values[match[1]]

        variables = {
            key: re.sub(r"\${{ inputs\.([a-z-]+) }}", given, text)
            for key, text in step.get("env", {}).items()
        }
        runner = {
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_STEP_SUMMARY": str(self.root / "summary.md"),
            "GITHUB_OUTPUT": str(self.root / "output"),
            "RUNNER_TEMP": str(self.root),
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | runner | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def outputs(self) -> dict[str, str]:
        lines = (self.root / "output").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def summary(self) -> str:
        path = self.root / "summary.md"
        return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.fixture
def workspace(bench: Bench, tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    shutil.copytree(bench.root, found.folder / EXAMPLE["include"])
    suites = found.folder / EXAMPLE["include"] / "tasks" / "suites"
    text = (suites / f"{SUITE}.yaml").read_text(encoding="utf-8")
    (suites / f"{EXAMPLE['suite']}.yaml").write_text(
        text.replace(f"name: {SUITE}", f"name: {EXAMPLE['suite']}")
    )
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "affectbench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m affectbench "$@"\n')
    program.chmod(0o755)
    return found


def inputs(**changes: str) -> dict[str, str]:
    return EXAMPLE | {"data": f"{EXAMPLE['include']}/data"} | changes


def test_every_input_is_declared_used_and_explained() -> None:
    assert set(EXAMPLE) <= set(ACTION["inputs"])
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"inputs\.([a-z-]+)", text)) == set(ACTION["inputs"])
    assert all(declared["description"] for declared in ACTION["inputs"].values())
    assert [name for name, declared in ACTION["inputs"].items() if declared.get("required")] == ["baseline"]


def test_no_input_is_pasted_into_a_script() -> None:
    """An expression in a script is code of whoever chose its value."""
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert len(scripts) == 3
    assert not any("${{" in script for script in scripts)
    assert all(step["shell"] == "bash" for step in STEPS if "run" in step)


def test_finished_cells_are_kept_even_where_the_check_fails() -> None:
    restore, save = (
        next(step for step in STEPS if step.get("uses", "").startswith(f"actions/cache/{kind}"))
        for kind in ("restore", "save")
    )
    assert restore["with"]["key"] == save["with"]["key"]
    assert restore["with"]["path"] == save["with"]["path"] == "${{ inputs.output }}"
    assert save["with"]["key"].startswith(restore["with"]["restore-keys"])
    assert "always()" in save["if"]


def test_the_workflow_reads_only_and_does_not_hand_secrets_to_strangers() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW[True] == "pull_request"  # `on` is true in YAML 1.1.


def test_packages_are_installed_as_they_are_pinned(workspace: Workspace) -> None:
    recorded = workspace.root / "recorded"
    (workspace.root / "bin" / "python").write_text(f'#!/bin/sh\necho "$@" >> "{recorded}"\n')
    (workspace.root / "bin" / "python").chmod(0o755)
    assert workspace.step("install").returncode == 0
    torch = next(
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    )
    install = "-m pip install --quiet -c constraints.txt"
    assert recorded.read_text().splitlines() == [f"{install} {torch}", f"{install} ."]
    assert workspace.step("key").returncode == 0
    assert re.fullmatch(r"[0-9a-f]{16}", workspace.outputs()["constraints"])


@pytest.mark.slow
def test_the_example_runs_from_first_baseline_to_failure(workspace: Workspace) -> None:
    without = workspace.step("check", **inputs())
    assert without.returncode == 2
    assert "there is no baseline at ci/baseline.parquet" in without.stderr
    assert workspace.summary() == ""

    (said,) = re.findall(r"#   (affectbench check .*)\n", (ROOT / "examples" / "affectbench.yml").read_text())
    shell = {"PATH": f"{workspace.root / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    shell |= {"AFFECTBENCH_DATA": f"{EXAMPLE['include']}/data"}
    subprocess.run(
        said, shell=True, cwd=workspace.folder, env=os.environ | shell, check=True, capture_output=True
    )
    assert (workspace.folder / EXAMPLE["baseline"]).is_file()

    passed = workspace.step("check", **inputs())
    assert passed.returncode == 0, passed.stderr
    assert "passed: 2 cells" in workspace.summary()
    assert ElementTree.parse(workspace.outputs()["junit"]).getroot().get("failures") == "0"

    save_model(workspace.folder / "ci" / "models" / "checkpoints" / "toy", steps=8)
    failed = workspace.step("check", **inputs())
    assert failed.returncode == 1
    assert "2 regressed" in workspace.summary()
    assert "2 regressed" in failed.stdout


@pytest.mark.parametrize(("said", "given"), [("false", 0), ("", 0), ("yes", 0), ("true", 1)])
def test_a_models_own_code_is_run_only_on_consent(workspace: Workspace, said: str, given: int) -> None:
    recorded = workspace.root / "recorded"
    (workspace.root / "bin" / "affectbench").write_text(f'#!/bin/sh\necho "$@" > "{recorded}"\n')
    assert workspace.step("check", **inputs(**{"trust-code": said})).returncode == 0
    assert recorded.read_text().split().count("--trust-code") == given


@pytest.mark.slow
def test_inputs_are_data_and_not_code(workspace: Workspace) -> None:
    found = workspace.step(
        "check", **inputs(suite='x"; touch hacked; $(touch hacked)', include="ci\n$(touch hacked)")
    )
    assert found.returncode == 2
    assert not (workspace.folder / "hacked").exists()


@pytest.mark.slow
def test_a_folder_of_results_is_compared_as_it_is(workspace: Workspace, bench: Bench) -> None:
    bench.run(bench.suite(), workspace.folder / "found")
    found = workspace.step("check", baseline="found", results="found")
    assert found.returncode == 0, found.stderr
    assert BENCHMARK in workspace.summary()
