"""Adaptations as chores beside the cells of a suite: the same in any process, and nothing lost where one
fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from test_module_run import analyses, few, folder, request_of  # noqa: F401
from typer.testing import CliRunner

from affectbench.analysis import AnalysisStore
from affectbench.cli import app
from affectbench.errors import AffectbenchError
from affectbench.executor import Chore, Executor, LocalExecutor
from affectbench.module_chores import Preparing, adaptations_of, chores_of
from affectbench.module_chores import request_of as asked_for
from affectbench.module_run import KINDS, ModuleRun, Request
from affectbench.placement import Options
from affectbench.plan_command import Listener
from affectbench.process_executor import ProcessExecutor
from affectbench.registry import Registry
from affectbench.run import Run


def run(request: Request, executor: Executor, folder: Path, chores: Any = None) -> tuple[Run, list[str]]:  # noqa: F811
    """All chores of a request, in a run without cells; what was noted."""
    registry, listener = Registry([folder], installed=False), Listener()
    found = Run(registry, Options(request.output), listener, executor)
    found.run([], chores_of(registry, request) if chores is None else chores)
    return found, listener.notes


def adapted(output: Path) -> dict[str, str]:
    """The files of all adaptations, by their place, with their hashes."""
    root = output / "adaptations"
    return {
        path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def here(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A results folder whose chores were done one by one in this process."""
    output = tmp_path_factory.mktemp("here")
    _, notes = run(request_of(folder, output), LocalExecutor(), folder)
    assert notes == []
    return output


def test_chores_give_what_the_command_gives(here: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    ModuleRun(Registry([folder], installed=False), request_of(folder, tmp_path)).run()
    assert adapted(here) == adapted(tmp_path)
    found, expected = analyses(here), analyses(tmp_path)
    assert set(found) == set(KINDS)
    for kind, each in expected.items():
        assert found[kind].content_hash() == each.content_hash()


def test_the_plan_knows_how_many_adaptations_there_will_be(here: Path, folder: Path) -> None:  # noqa: F811
    made = {Path(name).parent for name in adapted(here)}
    assert len(made) == adaptations_of(request_of(folder, here))
    registry = Registry([folder], installed=False)
    assert chores_of(registry, request_of(folder, here)) == []
    assert chores_of(registry, request_of(folder, here, seed=1)) != []


@pytest.mark.slow
def test_processes_side_by_side_make_the_same_adaptations(
    here: Path,
    folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    request = request_of(folder, tmp_path)
    adapting, comparing = chores_of(Registry([folder], installed=False), request)
    _, notes = run(request, ProcessExecutor(2, threads=1), folder, [adapting])
    assert notes == []
    assert adapted(tmp_path) == adapted(here)
    run(request, LocalExecutor(), folder, [comparing])
    assert (
        analyses(tmp_path)["module-verdict"].content_hash() == analyses(here)["module-verdict"].content_hash()
    )


@dataclass(frozen=True)
class Failing:
    """A chore that cannot be done."""

    name: str = "sweeping the stairs"

    def run(self, registry: Registry, told: Callable[[str], None]) -> None:
        raise AffectbenchError("there is no broom")


@dataclass(frozen=True)
class Marking:
    """A chore that leaves a mark."""

    path: Path
    name: str = "marking"

    def run(self, registry: Registry, told: Callable[[str], None]) -> None:
        self.path.touch()


@pytest.mark.parametrize("executor", [LocalExecutor(), ProcessExecutor(2, threads=1)])
def test_a_chore_that_fails_stops_later_groups_and_no_other_chore(
    executor: Executor,
    folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    groups: list[list[Chore]] = [[Failing(), Marking(first)], [Marking(second)]]
    found, notes = run(request_of(folder, tmp_path), executor, folder, groups)
    assert found.failures == notes == ["sweeping the stairs: there is no broom"]
    assert first.exists()
    assert not second.exists()


def test_what_a_suite_asks_for_is_a_request(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    registry = Registry()
    asked = registry.suite("adapted-modules").adaptation
    assert asked is not None
    request = asked_for(registry, asked, Options(tmp_path, limit=3), 7)
    assert (request.card.name, request.task, request.control) == (
        "reference-text-base", "reference-narratives", "reference-needs",
    )  # fmt: skip
    assert (request.recipe.seeds, request.recipe.rates, request.limit, request.seed) == (
        3,
        (0.001, 0.003),
        3,
        7,
    )
    with pytest.raises(AffectbenchError, match="reference-nads"):
        asked_for(registry, asked.model_copy(update={"control": "reference-nads"}), Options(tmp_path), 0)


def test_a_model_without_the_types_is_passed_over(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    registry = Registry([folder], installed=False)
    request = replace(request_of(folder, tmp_path), control=None)
    Preparing(request, "few-stories", "gate", matched=True).run(registry, lambda _: None)
    assert adapted(tmp_path) == {}  # Gate has as many parameters as gate: nothing is trained twice.


def test_the_plan_of_the_suite_tells_of_adaptations(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", "adapted-modules", "--plan", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    text = r"[1-9]\d adaptations of reference-text-base, each of 80 updates of 16 items with 8 looks"
    assert re.search(text, result.output)
    assert AnalysisStore(tmp_path).read_all() == ([], [])
