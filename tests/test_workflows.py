"""The GitHub workflows: what may write runs nothing of a pull request, what runs something may not write."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
Workflow = dict[Any, Any]


def load(name: str) -> Workflow:
    content: Workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    return content


def steps(workflow: Workflow) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def events(workflow: Workflow) -> dict[str, Any]:
    found: dict[str, Any] = workflow[True]  # YAML 1.1 reads the word `on` as true.
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_workflow_is_bounded_and_pins_its_actions(path: Path) -> None:
    workflow = load(path.stem)
    assert "permissions" in workflow
    assert "pull_request_target" not in events(workflow)
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
    for step in steps(workflow):
        if "uses" in step:
            assert step["uses"].startswith("./") or re.fullmatch(
                r"[\w./-]+@(v\d+(\.\d+)*|[0-9a-f]{40})", step["uses"]
            )


def test_the_gates_may_only_read() -> None:
    workflow = load("records")
    assert set(events(workflow)) == {"pull_request"}
    assert events(workflow)["pull_request"]["paths"] == ["leaderboard/results/**"]
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    assert "secrets." not in (ROOT / ".github/workflows/records.yml").read_text()


def test_the_gates_are_those_of_the_target_branch() -> None:
    found = steps(load("records"))
    checkouts = {step["with"]["path"]: step["with"] for step in found if "checkout" in step.get("uses", "")}
    assert "base.sha" in checkouts["base"]["ref"]
    assert all(each["persist-credentials"] is False for each in checkouts.values())
    assert all(re.fullmatch(r"[\w./-]+@v\d+\.\d+\.\d+", step["uses"]) for step in found if "uses" in step)
    for step in found:
        if "run" in step:
            assert step.get("working-directory", "base") == "base"
            assert not re.search(r"(python|pip|make|bash|\.) +\S*head/", step["run"]), (
                "nothing of the head is run"
            )
            for value in re.findall(r"\$\{\{(.*?)\}\}", step["run"]):
                assert value.strip() == "github.event.pull_request.number", (
                    "text of the request is no shell code"
                )


def test_the_command_in_the_workflow_is_one_of_ours() -> None:
    from typer.main import get_command

    from affectbench.cli import app

    lines = [line for step in steps(load("records")) for line in step.get("run", "").splitlines()]
    (command,) = [shlex.split(line) for line in lines if "harness.py" in line]
    assert command[:3] == ["python", "base/harness.py", "gates"]
    group: Any = get_command(app)
    assert group.commands["gates"].make_context("gates", command[3:]).params["markdown"] == Path(
        "report/report.md"
    )


def test_what_writes_runs_nothing_of_the_request() -> None:
    workflow = load("records-comment")
    assert set(events(workflow)) == {"workflow_run"}
    assert events(workflow)["workflow_run"]["workflows"] == [load("records")["name"]]
    assert workflow["permissions"] == {}
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
    used = [step["uses"].split("@")[0] for step in job["steps"]]
    assert used == ["actions/download-artifact", "actions/github-script"]
    assert all("run" not in step for step in job["steps"])
    script = job["steps"][1]["with"]["script"]
    assert "${{" not in script
    assert "head_sha" in script, "a report is posted only where the tested commit is the request's"
