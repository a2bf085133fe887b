"""Consent to a checkpoint's own code, given to every command that runs models: submit, verify, check."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e_content import BENCHMARK, PROTOCOL, Bench, Outcome, card, suite_file, write_yaml
from remote_standins import WRITERS
from submissions import folder, selection

from affectbench import tiny
from affectbench.errors import AffectbenchError
from affectbench.pytest_plugin import Runner
from affectbench.sites import SiteShape

Cli = Callable[..., Outcome]
FAMILY, NAME, SUITE_NAME = "ultravox", "standin", "standin-suite"


@dataclass(frozen=True)
class Standin:
    """A card whose checkpoint brings code, a suite that runs it, and what is left where the code was run."""

    content: Path
    witness: Path
    places: tuple[object, ...]


@pytest.fixture
def standin(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standin:
    monkeypatch.setenv("AFFECTBENCH_WITNESS", str(tmp_path / "witness"))
    WRITERS[FAMILY](tmp_path / "made")
    # Under a name of its own: code is imported once for each place that it comes from.
    checkpoint = Path(shutil.move(tmp_path / "made", tmp_path / f"{FAMILY}-{tmp_path.name}"))
    (tmp_path / "witness").unlink(missing_ok=True)
    content = tmp_path / "content"
    told = {"name": NAME, "family": FAMILY, "checkpoint": str(checkpoint), "remote_code": True}
    write_yaml(content / "models" / f"{NAME}.yaml", card(**told))
    suite_file(content, SUITE_NAME, PROTOCOL, models=[NAME], controls=None)
    places = ("--include", bench.root, "--include", content, "--data", bench.root / "data")
    return Standin(content, tmp_path / "witness", places)


def submission(root: Path) -> Path:
    """Units as data, for the stand-in."""
    entry = {"model": NAME, "task": BENCHMARK, "file": "selections/toy.safetensors"}
    made = folder(root, suite=SUITE_NAME, selections=[entry])
    shape = SiteShape(tiny.SIZES["num_hidden_layers"], tiny.SIZES["intermediate_size"])
    selection([0, 1], [2, 3], [4, 5], shape=shape).save(made / "selections" / "toy.safetensors")
    return made


def test_submitting_and_verifying_ask_for_it(standin: Standin, run_cli: Cli, tmp_path: Path) -> None:
    """Units as data, which are no code: it is the model's that is run."""
    mine, out = submission(tmp_path / "mine"), tmp_path / "out"
    submit = ("submit", mine, *standin.places, "-o", out)
    code, _, err = run_cli(*submit)
    assert code == 1
    assert f"code that comes with the checkpoint of {NAME}" in err
    assert "--trust-code" in err
    assert not standin.witness.exists()
    code, said, err = run_cli(*submit, "--trust-code")
    assert code == 0, err
    assert standin.witness.exists()
    packed = out / "mine-v1.zip"
    assert f"verify {packed} --trust-code" in said
    standin.witness.unlink()

    verify = ("verify", packed, *standin.places, "-o", tmp_path / "verified")
    code, _, err = run_cli(*verify)
    assert code == 1
    assert f"code that comes with the checkpoint of {NAME}" in err
    assert not (tmp_path / "verified").exists()
    code, said, err = run_cli(*verify, "--trust-code")
    assert code == 0, said + err
    assert " same " in said


def test_cells_that_are_not_covered_ask_for_nothing(
    standin: Standin, run_cli: Cli, tmp_path: Path, bench: Bench
) -> None:
    """The suite has another model too, and the submission has units for that one alone."""
    path = standin.content / "tasks" / "suites" / f"{SUITE_NAME}.yaml"
    path.write_text(path.read_text().replace(f"- {NAME}", f"- {NAME}\n- toy"))
    mine = folder(tmp_path / "mine", suite=SUITE_NAME)
    code, said, err = run_cli("submit", mine, *standin.places, "-o", tmp_path / "out")
    assert code == 0, err
    assert "1 of 2 cells" in said
    assert not standin.witness.exists()


def test_a_regression_check_asks_for_it(standin: Standin, run_cli: Cli, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.parquet"
    places = ("--suite", SUITE_NAME, *standin.places, "-o", tmp_path / "out", "--baseline", baseline)
    code, _, err = run_cli("check", *places, "--update")
    assert code == 2
    assert "--trust-code" in err
    assert not baseline.exists()
    assert not standin.witness.exists()
    code, said, err = run_cli("check", *places, "--update", "--trust-code")
    assert code == 0, err
    assert "1 cell" in said
    assert standin.witness.exists()
    assert run_cli("check", *places, "--trust-code")[0] == 0


def test_a_test_of_ones_own_asks_for_it(standin: Standin, bench: Bench, tmp_path: Path) -> None:
    run = Runner(tmp_path / "cache")
    asked = {"include": [bench.root, standin.content], "data": bench.root / "data", "limit": 2}

    def measure(**consent: bool) -> None:
        run(NAME, "magnitude", task=BENCHMARK, intervention=PROTOCOL, **asked, **consent)  # type: ignore[arg-type]

    with pytest.raises(AffectbenchError, match="--trust-code"):
        measure()
    assert not standin.witness.exists()
    measure(trust_code=True)
    assert standin.witness.exists()
