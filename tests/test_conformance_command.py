"""`verify-model`: what it prints, writes and refuses, and a family from outside, as the guide shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from e2e_content import MODEL, Bench, Outcome

from affectbench.conformance import CHECKS
from affectbench.conformance_report import read_report
from affectbench.content import builtin_root

ROOT = Path(__file__).resolve().parent.parent
Cli = Callable[..., "Done"]


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


QUICK = ("--only", "sites")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(run_cli: Callable[..., Outcome]) -> Cli:
    return lambda *arguments: Done(*run_cli(*arguments))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The family and the test file of CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## A model family\n")[1]
    family, test = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[:2]
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "my_family.py").write_text(family, encoding="utf-8")
    (folder / "test_my_family.py").write_text(test, encoding="utf-8")
    return folder


def test_a_checkpoint_is_examined_whole_and_reported(bench: Bench, cli: Cli, tmp_path: Path) -> None:
    card = bench.root / "models" / f"{MODEL}.yaml"
    done = cli("verify-model", card, "--checkpoint")
    assert done.code == 0, done.out
    report = read_report(tmp_path / "results" / "conformance" / f"{MODEL}.json")
    assert [check.id for check in report.checks] == [check.id for check in CHECKS]
    assert report.passed
    assert (report.instance, report.architecture) == ("checkpoint", "Qwen2ForCausalLM")
    assert report.versions["transformers"]
    assert report.peak_memory_mib > 0
    for check in report.checks:
        assert check.id in done.out
        assert (check.status == "skipped") <= bool(check.reason)
    assert str(Path("results") / "conformance" / f"{MODEL}.json") in done.out


def test_json_goes_to_the_output_alone(cli: Cli, tmp_path: Path) -> None:
    done = cli("verify-model", "reference-audio", *QUICK, "--format", "json")
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["instance"], found["architecture"]) == (
        "tiny",
        "Qwen2_5OmniThinkerForConditionalGeneration",
    )
    assert [check["id"] for check in found["checks"]] == ["sites"]
    assert not (tmp_path / "results").exists(), "a part of the checks is no report"


def test_a_failed_check_says_where_to_look_and_ends_with_1(mine: Path, cli: Cli) -> None:
    path = mine / "my_family.py"
    path.write_text(path.read_text() + "\n    def width(self, layer):\n        return 12\n")
    done = cli("verify-model", "my_family", "--include", mine, *QUICK)
    assert done.code == 1
    assert (
        "failed sites (Sites found and sized): 12 units were found in a layer, the config has 24" in done.out
    )
    assert "look at `layers`, `activation`, `down` and `width`" in done.out


def test_what_a_wrapper_raises_is_a_finding(mine: Path, cli: Cli) -> None:
    path = mine / "my_family.py"
    path.write_text(path.read_text() + "\n    def down(self, layer):\n        return [][layer]\n")
    done = cli("verify-model", "my_family", "--include", mine, *QUICK)
    assert done.code == 1
    assert "IndexError: list index out of range" in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("reference-txt",), "did you mean 'reference-text'"),
        (("reference-text", "--only", "pading"), "did you mean 'padding'"),
        (("reference-text", "--only", "sites", "-o", "report.json"), "--only makes no report"),
        (("reference-text", "--format", "yaml"), "text or json"),
        (("reference-text", "--checkpoint", "--architecture", "GPT2LMHeadModel"), "leave out --checkpoint"),
        (("causal_lm", "--checkpoint"), "is a family, not a checkpoint"),
        (("qwen2_5_omni_thinker", "--architecture", "GPT2LMHeadModel"), "makes no tiny GPT2LMHeadModel"),
        (("causal_lm", "--architecture", "Nothing"), "no model class 'Nothing'"),
        (("reference-text", "--device", "cuda:7"), "no usable GPU"),
    ],
)
def test_what_cannot_be_examined_is_an_error(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = cli("verify-model", *arguments)
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_card_must_say_which_class_it_is_of(tmp_path: Path, cli: Cli) -> None:
    card = (builtin_root() / "models" / "llama-3.1-8b.yaml").read_text(encoding="utf-8")
    (tmp_path / "unsaid.yaml").write_text(
        card.replace("name: llama-3.1-8b\n", "name: unsaid\n").replace("architecture: LlamaForCausalLM\n", "")
    )
    done = cli("verify-model", "unsaid.yaml", *QUICK)
    assert done.code == 1
    assert "does not say which" in done.err
    assert cli("verify-model", "unsaid.yaml", *QUICK, "--architecture", "LlamaForCausalLM").code == 0


def test_the_family_of_the_guide_conforms_by_command_and_by_pytest(mine: Path, cli: Cli) -> None:
    done = cli("verify-model", "my_family", "--include", mine)
    assert done.code == 0, done.out
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(mine)]
    tested = subprocess.run(call, cwd=mine.parent, capture_output=True, text=True)
    report = read_report(mine.parent / "results" / "conformance" / "my-family.json")
    said = f"{report.count('passed')} passed, {report.count('skipped')} skipped"
    assert said in tested.stdout, tested.stdout


def test_the_page_lists_every_check_as_it_is() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert rows == [(check.id, check.title, check.proves) for check in CHECKS]
