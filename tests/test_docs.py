"""What the guides say is true: commands parse, examples work when pasted, links and rooms exist."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
GUIDES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/alignment.md",
    "docs/analyses.md",
    "docs/circuits.md",
    "docs/conformance.md",
    "docs/expression.md",
    "docs/judges.md",
    "docs/corpora.md",
    "docs/large-runs.md",
    "docs/models.md",
    "docs/modules.md",
    "docs/real.md",
    "docs/regression.md",
    "docs/sae.md",
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KIND_FOLDERS = {
    "benchmark": "tasks/benchmarks",
    "intervention": "tasks/interventions",
    "suite": "tasks/suites",
}
PAPERS = {"2601.03115", "2604.25866", "2510.11328", "2601.15906", "2601.16540"}


@dataclass(frozen=True)
class Block:
    """A fenced block: the page it is on, its language and text."""

    page: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    found = []
    for page in GUIDES:
        for name, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
            if name == language:
                found.append(Block(page, name, text))
    return found


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.text.splitlines() if line.strip()]


def of_program(program: str) -> list[list[str]]:
    """Arguments of every command of that program, by the end of its name."""
    split = [shlex.split(command) for command in commands()]
    return [parts[1:] for parts in split if parts[0].endswith(program)]


HARNESS = [arguments[1:] for arguments in of_program("python") if arguments[0] == "harness.py"]


def test_every_command_is_of_a_kind_that_is_checked_here() -> None:
    known = [*of_program("make"), *of_program("pip"), *of_program("python")]
    assert len(known) == len(commands())
    others = [arguments for arguments in of_program("python") if arguments[0] != "harness.py"]
    assert all(arguments[:2] == ["-m", "pytest"] for arguments in others)
    assert len(HARNESS) > 8


@pytest.mark.parametrize("arguments", HARNESS, ids=" ".join)
def test_harness_commands_parse(arguments: list[str]) -> None:
    from typer.main import get_command

    from affectbench.cli import app

    group: Any = get_command(app)
    command = group.commands[arguments[0]]
    command.make_context(
        arguments[0], list(arguments[1:])
    )  # Raises for an unknown option or a missing value.


@pytest.mark.parametrize("arguments", HARNESS, ids=" ".join)
def test_names_in_harness_commands_exist(arguments: list[str], own: Path) -> None:
    from affectbench.analyses import known
    from affectbench.registry import Registry

    registry = Registry([own], installed=False)
    for option, kind in (("--task", "benchmark"), ("--selector", "selector"), ("--model", "model")):
        for place in (i for i, argument in enumerate(arguments) if argument == option):
            if not arguments[place + 1].startswith("path/"):
                registry.find(kind, arguments[place + 1])  # type: ignore[arg-type]
    if arguments[0] == "analyse":
        for name in arguments[1 : arguments.index("--model")]:
            known(name)
    if arguments[0] == "verify-task":
        registry.find("benchmark", arguments[1])
    if arguments[0] == "run" and not arguments[1].startswith("--"):
        registry.find("suite", arguments[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "tasks"], ["doctor"], ["list", "selectors", "--include", "mine"]]
)
def test_cheap_commands_run(arguments: list[str], own: Path) -> None:
    assert arguments in HARNESS
    done = subprocess.run(
        [sys.executable, str(ROOT / "harness.py"), *arguments], cwd=own.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert ("log_odds" in done.stdout) == ("--include" in arguments)


def test_make_targets_exist() -> None:
    targets = {name for arguments in of_program("make") for name in arguments}
    assert {"demo", "test", "check"} <= targets
    defined = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert targets <= defined


def test_pip_commands_install_what_is_pinned_and_declared() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for arguments in of_program("pip"):
        assert arguments[:3] == ["install", "-c", "constraints.txt"]
        assert arguments[3] in ("-e", *pins)
        assert arguments[4:] in ([], ["."], [".[ray]"], [".[eeg]"])


def test_paths_given_to_pytest_exist() -> None:
    for arguments in of_program("python"):
        assert all((ROOT / part).exists() for part in arguments if part.endswith(".py"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder `mine` of CONTRIBUTING with its selector, and its task files beside copies of ours."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (python,) = [block for block in blocks("python") if "Selector" in block.text]
    (folder / "log_odds.py").write_text(python.text, encoding="utf-8")
    for name in ("tasks/data", "tasks/interventions"):
        shutil.copytree(ROOT / name, folder / name)
    for copied in (folder / "tasks/interventions").glob("*.yaml"):
        if copied.stem != "zero-gain":
            copied.unlink()
    for block in blocks("yaml"):
        content = yaml.safe_load(block.text)
        kind = content.get("kind", "intervention")
        path = folder / KIND_FOLDERS.get(kind, "models") / f"{content['name']}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    return folder


def test_yaml_examples_load_and_only_name_what_exists(own: Path) -> None:
    from affectbench.registry import Registry
    from affectbench.task import (
        InterventionProtocol,
        JudgeCard,
        ModelCard,
        RecognitionBenchmark,
        Suite,
        load_file,
    )

    known = Registry(installed=False)
    loaded = [load_file(path) for path in sorted(own.rglob("*.yaml")) if path.parent.name != "data"]
    by_kind = {type(task): task for task in loaded if task.name != "zero-gain"}
    assert set(by_kind) == {RecognitionBenchmark, InterventionProtocol, ModelCard, Suite, JudgeCard}
    card, suite = by_kind[ModelCard], by_kind[Suite]
    assert isinstance(card, ModelCard)
    assert isinstance(suite, Suite)
    known.find("family", card.family)
    for model in suite.models:
        assert all(known.benchmark(task) for task in suite.tasks_for(known.model(model)))
    assert all(known.find("selector", name) for name in (*suite.selectors, *suite.controls))
    assert all(known.find("intervention", name) for name in suite.interventions)
    strong = by_kind[InterventionProtocol]
    assert isinstance(strong, InterventionProtocol)
    assert strong.arms.amplify.doses == (2, 4, 8)
    assert strong.arms.suppress.doses == (0,)


def test_the_example_benchmark_reads_a_table_of_that_shape(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    from affectbench.dataset import load_benchmark
    from affectbench.task import RecognitionBenchmark, load_as

    benchmark = load_as(own / "tasks/benchmarks/my-corpus.yaml", RecognitionBenchmark)
    rows = ["line,emotion,id,speaker"]
    for place in range(120):
        label = ("anger", "joy", "sadness", "other")[(place + place // 20) % 4]
        rows.append(f'"Line {place}, as said",{label},row-{place},speaker-{place % 20}')
    data = tmp_path / "data" / "my-corpus"
    data.mkdir(parents=True)
    (data / "items.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    dataset = load_benchmark(benchmark, tmp_path / "data", None)
    speakers = [{example.cluster for example in examples} for examples in dataset.splits.values()]
    assert sum(len(examples) for examples in dataset.splits.values()) == 90
    assert sum(map(len, speakers)) == len(set().union(*speakers))
    monkeypatch.chdir(tmp_path)
    shown = [arguments for arguments in HARNESS if arguments[:2] == ["verify-task", "my-corpus"]]
    assert len(shown) == 3
    for arguments in shown:
        code, out, err = run_cli(*[{"path/to/data": "data"}.get(part, part) for part in arguments])
        assert (code, err) == (0, ""), out


@pytest.mark.slow
def test_the_pasted_selector_selects_on_a_real_model(own: Path) -> None:
    from tiny_models import LABELS, items, readout, tiny_qwen2

    from affectbench.engine import Engine
    from affectbench.evidence import EvidencePass, requests_of
    from affectbench.registry import Registry
    from affectbench.study import Study

    (python,) = [block for block in blocks("python") if "Selector" in block.text]
    assert 20 <= len(python.text.splitlines()) <= 40
    model = tiny_qwen2()
    engine, asked = Engine(model, 0), items(model, 24)
    selector = Registry([own], installed=False).selector("log_odds")()
    requests = requests_of(set(selector.needs), "gate", "all")
    found = EvidencePass(engine, asked, readout(model), requests, correct_only=False).run()
    study = Study(
        evidence=found.evidence("gate", "all"),
        shuffled=found.evidence("gate", "all", shuffled=True),
        items=asked,
        readout=readout(model),
        seed=0,
        ask=lambda edits: engine.predict(asked, readout(model), edits),
    )
    selection = selector.select(study, 5)
    assert [units.size for units in selection.units] == [5] * len(LABELS)
    rate = np.clip(study.evidence.rate, 0.001, 0.999)
    odds = [np.log(share / (1 - share)).ravel() for share in rate]
    best = max(range(model.shape.units), key=lambda unit: odds[0][unit] - (odds[1][unit] + odds[2][unit]) / 2)
    assert selection.units[0][0] == best


def test_links_in_the_guides_lead_to_files() -> None:
    for page in (*GUIDES, "docs/architecture.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), (page, target)
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_citation_names_the_papers_and_the_version() -> None:
    from affectbench import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {reference["url"].rsplit("/", 1)[1] for reference in citation["references"]} == PAPERS
    assert citation["version"] == __version__
    named = re.findall(r"\d{4}\.\d{5}", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(named) >= PAPERS


def rooms() -> dict[str, int]:
    """Row of every module in the table of docs/architecture.md."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = [line.split("|")[2] for line in text.splitlines() if re.fullmatch(r"\|[^|]+\|[^|]+\|", line)]
    return {name: row for row, cell in enumerate(table) for name in re.findall(r"`([a-z_]+)`", cell)}


def test_the_engine_imports_upwards_only() -> None:
    place = rooms()
    modules = {path.stem: path for path in (ROOT / "affectbench").glob("[a-z]*.py")}
    assert set(modules) == set(place), "docs/architecture.md lists every module of the engine in one row"
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("affectbench."):
                other = (node.module or "").split(".")[1]
                assert place.get(other, 0) <= place[name], f"{name} imports {other}, which is below it"
