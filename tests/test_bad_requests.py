"""What is asked for does not exist or does not fit: the error names it, and no traceback is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from e2e_content import (
    BENCHMARK,
    MODEL,
    PROTOCOL,
    SUITE,
    Bench,
    Outcome,
    contents,
    write_protocol,
    write_selector,
)


def with_content(bench: Bench, *arguments: object) -> list[object]:
    return [*arguments, "--include", bench.root, "--data", bench.root / "data"]


PARTS = {"--model": MODEL, "--task": BENCHMARK, "--selector": "magnitude", "--intervention": PROTOCOL}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--model", "tooy", "there is no model 'tooy'; did you mean 'toy'?"),
        ("--task", "toy-storys", "there is no benchmark 'toy-storys'; did you mean 'toy-stories'?"),
        ("--selector", "magnitud", "there is no selector 'magnitud'; did you mean 'magnitude'?"),
        ("--intervention", "toygain", "there is no intervention 'toygain'; did you mean 'toy-gain'?"),
        ("--device", "cpux", "model 'toy' could not be loaded from"),
        ("--data", "/nowhere", f"there is no folder /nowhere/{BENCHMARK}"),
        ("--include", "/nowhere", "--include /nowhere: there is no such folder"),
        ("--model", "/", "/ has no config.json"),
    ],
)
def test_one_wrong_part(
    bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome], option: str, value: str, said: str
) -> None:
    chosen = PARTS | {"--data": bench.root / "data", option: value}
    arguments = [part for pair in chosen.items() for part in pair]
    code, _, err = run_cli("run", "--include", bench.root, *arguments, "-o", tmp_path)
    assert code == 1
    assert said in err
    assert not contents(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "toysuite"], "there is no suite 'toysuite'; did you mean 'toy-suite'?"),
        (["run", SUITE, "--model", MODEL], "suite 'toy-suite' fixes models"),
        (["run"], "nothing to run"),
        (["run", "--task", BENCHMARK], "nothing to run"),
        (["list", "modles"], "cannot list 'modles'; did you mean 'models'?"),
        (["table", "/nowhere"], "/nowhere holds no records"),
        (["table", "/nowhere", "--format", "jsn"], "format 'jsn' is not known; did you mean 'json'?"),
        (["score", "--results", "/nowhere"], "/nowhere holds no records"),
        (["leaderboard", "--results", "/nowhere"], "/nowhere holds no records"),
        (["check", "/nowhere"], "/nowhere holds no records"),
        (["rebuild", "reference-txt"], "there is no recipe for 'reference-txt'"),
    ],
)
def test_wrong_commands(
    bench: Bench, run_cli: Callable[..., Outcome], arguments: list[str], said: str
) -> None:
    more = with_content(bench) if arguments[0] == "run" else []
    code, out, err = run_cli(*arguments, *more)
    assert code == 1
    assert said in err
    assert not out


@pytest.mark.parametrize(
    "arguments",
    [["run", SUITE, "--limit", "0"], ["run", SUITE, "--seed", "x"], ["table", "--colour"], ["rum"]],
)
def test_wrong_usage_exits_with_2(run_cli: Callable[..., Outcome], arguments: list[str]) -> None:
    code, out, err = run_cli(*arguments)
    assert code == 2
    assert not out
    assert "Usage" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
    code, _, err = run_cli(*with_content(bench, "run", SUITE, "--device", "cuda", "-o", tmp_path))
    assert code == 1
    assert "device 'cuda': this machine has no usable GPU" in err
    assert "--device cpu" in err


def test_a_model_without_a_default_task(
    bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    folder = bench.root / "models" / "checkpoints" / MODEL
    code, _, err = run_cli(*with_content(bench, "run", "--model", folder, "-o", tmp_path))
    assert code == 1
    assert "model toy has no default task" in err
    assert BENCHMARK in err


def test_an_unknown_key_is_placed_and_corrected(
    bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    path = write_protocol(tmp_path, name="typo", positons="all")
    line = next(k for k, text in enumerate(path.read_text().splitlines(), 1) if text.startswith("positons"))
    code, _, err = run_cli(
        *with_content(bench, "run", "--model", MODEL, "--intervention", "typo", "--include", tmp_path)
    )
    assert code == 1
    assert f"{path}:{line}: positons: unknown key; did you mean 'positions'?" in err


def test_a_name_in_two_places_names_both(
    bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    path = write_selector(tmp_path, "magnitude")
    code, _, err = run_cli(*with_content(bench, "run", SUITE, "--include", tmp_path, "-o", tmp_path / "out"))
    assert code == 1
    assert "selector 'magnitude' is in two places" in err
    assert str(path) in err
    assert "selectors/magnitude.py (built-in)" in err


def test_a_selector_file_that_does_not_parse(
    bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    write_selector(tmp_path, "mine").write_text("def broken(:\n")
    code, _, err = run_cli(
        *with_content(
            bench, "run", "--model", MODEL, "--selector", "mine", "--include", tmp_path, "-o", tmp_path
        )
    )
    assert code == 1
    assert f"{tmp_path}/selectors/mine.py:1: not valid Python" in err


def test_a_cell_in_error_gives_exit_code_1_after_all_cells(
    bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    write_selector(tmp_path, "mine", "raise ValueError('no [/good] [red]')")
    command = with_content(
        bench, "run", "--model", MODEL, "--selector", "mine", "--selector", "random",
        "--intervention", PROTOCOL, "--include", tmp_path, "-o", tmp_path / "out [x]",
    )  # fmt: skip
    code, out, err = run_cli(*command)
    assert code == 1
    assert "error (selector 'mine' failed: ValueError: no [/good] [red]" in out
    assert "2 cells: 1 ok, 1 error" in out
    assert str(tmp_path / "out [x]" / "records") in out
    assert "1 of 2 cells ended in an error; the first: mine: selector 'mine' failed" in err
    code, again, _ = run_cli(*command)
    assert code == 1
    assert "1 cell was finished before and kept" in again
    assert "mine" in run_cli("table", tmp_path / "out [x]")[1]
