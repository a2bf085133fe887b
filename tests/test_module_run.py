"""The whole module track on a tiny base: analyses that hold, that resume, and that say what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_module_edit import pair_cards  # noqa: F401
from tiny_models import family
from typer.testing import CliRunner

from affectbench import module_evidence, module_experiments, module_report
from affectbench.analysis import Analysis, AnalysisStore
from affectbench.cli import app
from affectbench.errors import AffectbenchError
from affectbench.module_adapt import Adaptation, Budget, Plan, adapt
from affectbench.module_experiments import Recipe
from affectbench.module_run import KINDS, ModuleRun, Request
from affectbench.module_store import Adaptations
from affectbench.module_types import TYPES
from affectbench.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
FEW = {
    "DAMAGED": ("gate", "up"),
    "TRANSFERS": ("gate", "up", "gate+down", "attn+gate", "all"),
    "TRAINED": ("gate", "up", "k", "all"),
}


@pytest.fixture(autouse=True, scope="module")
def few() -> Iterator[None]:
    """Fewer conditions than there are."""
    patch = pytest.MonkeyPatch()
    for name, values in FEW.items():
        for module in (module_experiments, module_report, module_evidence):
            if hasattr(module, name):
                patch.setattr(module, name, values)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base with its card, and two small tasks."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "models").mkdir()
    family("causal_lm").write_tiny(folder / "models/base", seed=0)
    card = {
        "kind": "model", "name": "tiny-base", "version": 1, "family": "causal_lm", "checkpoint": "base",
        "modality": "text", "licence": "own", "default_task": "few-stories",
    }  # fmt: skip
    (folder / "models/tiny-base.yaml").write_text(yaml.safe_dump(card))
    tasks = folder / "tasks/benchmarks"
    tasks.mkdir(parents=True)
    for name, full in (("few-stories", "reference-narratives"), ("few-errands", "reference-errands")):
        content: dict[str, Any] = yaml.safe_load((ROOT / f"tasks/benchmarks/{full}.yaml").read_text())
        content |= {"name": name}
        content["source"]["per_emotion"] = {"identification": 4, "validation": 2, "test": 3}
        content["preservation"]["capability"]["source"]["n"] = 5
        content["preservation"]["neutral"]["n"] = 2
        (tasks / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def request_of(folder: Path, output: Path, **changed: Any) -> Request:
    registry = Registry([folder], installed=False)
    settings: dict[str, Any] = {
        "control": "few-errands",
        "recipe": Recipe(2, (0.01, 0.02), 2, Budget(steps=2, batch=3, every=1)),
    }
    return Request(registry.model("tiny-base"), "few-stories", output, **(settings | changed))


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of one whole run."""
    output = tmp_path_factory.mktemp("done")
    ModuleRun(Registry([folder], installed=False), request_of(folder, output)).run()
    return output


def analyses(output: Path) -> dict[str, Analysis]:
    found, damaged = AnalysisStore(output).read_all()
    assert not damaged
    return {each.kind: each for each in found}


def rows(analysis: Analysis, name: str) -> dict[str, dict[str, Any]]:
    """A table by the first cell of its rows and the names of its columns."""
    (table,) = [each for each in analysis.tables if each.name == name]
    titles = [column.name for column in table.columns]
    return {str(row[0]): dict(zip(titles, row, strict=True)) for row in table.rows}


def test_a_base_makes_every_analysis_of_task_and_control(done: Path) -> None:
    found = analyses(done)
    assert set(found) == set(KINDS)
    for each in found.values():
        assert each.hashes.inputs.keys() == {"model", "task", "control"}
        assert each.n == {"seeds": 2, "items": 21, "clusters": each.n["clusters"], "control_items": 21,
                          "control_clusters": each.n["control_clusters"]}  # fmt: skip
    change = found["module-change"]
    assert {table.name for table in change.tables} == {"change", "change-control"}
    shares = {name: row["share of weights, %"] for name, row in rows(change, "change").items()}
    assert sum(shares[kind] for kind in TYPES) == pytest.approx(100)
    assert shares["attn"] + shares["mlp"] == pytest.approx(100)
    transfer = rows(found["module-transfer"], "transfer")
    assert transfer["all"]["UAR"] == transfer["adapted"]["UAR"]
    adaptation = rows(found["module-adaptation"], "adaptation")
    assert set(adaptation) == {
        "gate", "up", "k", "all", "all, labels shuffled",
        *(f"{name}, equal parameters" for name in ("gate", "up", "k", "all")),
    }  # fmt: skip
    assert adaptation["gate"] | {"adapted": ""} == adaptation["gate, equal parameters"] | {"adapted": ""}
    gate = adaptation["gate"]["parameters"]
    assert adaptation["k, equal parameters"]["parameters"] == pytest.approx(gate, rel=0.2)
    assert adaptation["all, equal parameters"]["parameters"] < adaptation["all"]["parameters"]
    (verdict,) = [each for each in found["module-verdict"].findings if each.name == "verdict"]
    assert verdict.text.startswith("gate_proj does not stand out here")


def test_damage_is_measured_on_the_task_and_on_what_must_stay(done: Path) -> None:
    damage = rows(analyses(done)["module-necessity"], "damage")
    assert len(damage) == 2 * 4
    for row in damage.values():
        parts = [row[name].value for name in ("drop in UAR", "drop in capability", "specificity")]
        assert parts[2] == pytest.approx(parts[0] - parts[1])


def test_mode_paper_asks_what_the_paper_is_known_to_ask(folder: Path, done: Path, tmp_path: Path) -> None:
    registry = Registry([folder], installed=False)
    recipe = Recipe(2, (0.01,), 2, Budget(steps=2, batch=3, every=1))
    request = request_of(folder, tmp_path, mode="paper", recipe=recipe)
    ModuleRun(registry, request).run()
    found = analyses(tmp_path)
    assert not {each.name for each in found.values()} & {each.name for each in analyses(done).values()}
    assert all(each.settings["mode"] == "paper" for each in found.values())
    assert set(rows(found["module-necessity"], "damage")) == {"gate, zero", "up, zero"}
    assert set(rows(found["module-transfer"], "transfer")) == {"none", "gate", "up", "adapted"}
    adapted = set(rows(found["module-adaptation"], "adaptation"))
    assert adapted == {"gate", "up", "k", "all", "all, labels shuffled"}  # None with equal parameters.
    change = next(each for each in found["module-change"].tables if each.name == "change")
    assert [column.name for column in change.columns][2] == "absolute"
    leads = [each.name for each in found["module-verdict"].findings]
    assert "matched" not in leads
    assert "specificity" not in leads
    assert "breaks the language model" in " ".join(found["module-verdict"].notes)


def test_weights_themselves_are_adapted_at_rank_0(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(0, (0.01,), 1, Budget(steps=1, batch=3, every=1))
    ModuleRun(
        Registry([folder], installed=False), request_of(folder, tmp_path, control=None, recipe=recipe)
    ).run()
    found = analyses(tmp_path)
    table = rows(found["module-adaptation"], "adaptation")
    assert set(table) == {"gate", "up", "k", "all", "all, labels shuffled"}
    assert table["gate"]["parameters"] == 3 * 24 * 32
    assert table["gate"]["of all, %"] == pytest.approx(
        rows(found["module-change"], "change")["gate"]["share of weights, %"]
    )
    assert "Not tested, or nothing to test" in found["module-verdict"].findings[0].text


def test_a_finished_run_is_not_made_again(done: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affectbench.module_run.load_from", lambda *_: pytest.fail("the model was loaded"))
    registry = Registry([folder], installed=False)
    paths = ModuleRun(registry, request_of(folder, done)).run()
    assert [path.is_file() for path in paths] == [True] * 5
    with pytest.raises(pytest.fail.Exception, match="the model was loaded"):
        ModuleRun(registry, request_of(folder, done, limit=2)).run()


def test_a_stopped_run_goes_on_and_says_the_same(
    done: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, request = Registry([folder], installed=False), request_of(folder, tmp_path)
    trained: list[Plan] = []

    def adapting(session: Any, plan: Plan, budget: Budget, told: Any) -> Adaptation:
        trained.append(plan)
        if len(trained) == 8:
            raise KeyboardInterrupt
        return adapt(session, plan, budget, told)

    monkeypatch.setattr("affectbench.module_run.Adaptations", partial(Adaptations, train=adapting))
    with pytest.raises(KeyboardInterrupt):
        ModuleRun(registry, request).run()
    assert "module-adaptation" not in analyses(tmp_path)
    before = list(trained)
    ModuleRun(registry, request).run()
    assert not set(before[:7]) & set(trained[8:])
    for kind, each in analyses(tmp_path).items():
        assert each.content_hash() == analyses(done)[kind].content_hash()


def test_a_pair_is_measured_as_it_is(pair_cards: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    registry = Registry([pair_cards, folder], installed=False)
    request = Request(registry.model("pair-lora"), "few-stories", tmp_path)
    ModuleRun(registry, request).run()
    found = analyses(tmp_path)
    assert set(found) == set(KINDS) - {"module-adaptation"}
    change = rows(found["module-change"], "change")
    assert {kind for kind in TYPES if change[kind]["relative"].value > 0} == {"gate", "o"}
    assert change["gate"]["relative"].low is None
    assert found["module-change"].n["seeds"] == 1
    assert "no interval from one adaptation" in found["module-change"].findings[0].text


def test_the_command_prints_what_was_found_and_refuses_what_does_not_fit(
    done: Path,
    folder: Path,
    pair_cards: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    include = ["--include", str(folder), "--include", str(pair_cards)]
    asked = [
        "--rank",
        "2",
        "--rate",
        "0.01",
        "--rate",
        "0.02",
        "--seeds",
        "2",
        "--steps",
        "2",
        "--batch",
        "3",
    ]
    result = CliRunner().invoke(
        app, ["modules", "tiny-base", "--control", "few-errands", *asked, *include, "--output", str(done)]
    )
    assert result.exit_code == 0, result.output
    assert "gate_proj does not stand out here" in result.output
    for arguments, message in (
        (["pair-lora", "--task", "few-stories", "--control", "few-errands"], "pair-lora is a pair"),
        (["pair-base"], "pair-base has no default task"),
        (["tiny-base", "--mode", "paper", "--rate", "0.1", "--rate", "0.2"], "one learning rate for all"),
    ):
        result = CliRunner().invoke(app, ["modules", *arguments, *include, "--output", str(tmp_path)])
        assert isinstance(result.exception, AffectbenchError)
        assert message in result.exception.message
