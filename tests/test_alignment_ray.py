"""Alignment on Ray: the records of a plain run, whoever dies on the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_runs import needs_ray
from test_alignment_run import own_task

from affectbench.alignment.work import Task, Workshop, closing
from affectbench.errors import AffectbenchError
from affectbench.ray_executor import RayExecutor

pytestmark = [needs_ray, pytest.mark.slow]


def fragile() -> Any:
    """A function of work whose worker dies, or that raises. Made here, so that it travels by value."""

    def root(shared: Path, number: int, fate: str) -> dict[str, np.ndarray]:
        mark = shared / f"started {number} {os.getpid()}"
        mark.touch()
        first = len(list(shared.glob(f"started {number} *"))) == 1
        if fate == "dies" or (fate == "dies once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "raises":
            from affectbench.errors import AffectbenchError

            raise AffectbenchError(f"recording {number} is damaged", hint="fetch it again")
        return {"root": np.sqrt(np.array([float(number)]))}

    return root


def done(marks: Path, fates: list[str], ray: RayExecutor | None) -> list[float]:
    workshop = Workshop(marks.parent, "roots", "one", lambda *_: None, lambda _: None, ray)
    tasks = [Task(f"root {number}", (number, fate)) for number, fate in enumerate(fates)]
    with closing(workshop):
        return [float(each["root"][0]) for each in workshop.each("roots", fragile(), marks, tasks)]


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def started(marks: Path, number: int) -> int:
    return len(list(marks.glob(f"started {number} *")))


def test_a_worker_that_dies_is_replaced(marks: Path) -> None:
    fates = ["", "dies once", "", ""]
    assert done(marks, fates, RayExecutor(workers=2)) == pytest.approx([0, 1, 2**0.5, 3**0.5])
    assert started(marks, 1) == 2


def test_what_was_finished_before_the_last_death_is_kept(marks: Path) -> None:
    with pytest.raises(AffectbenchError, match="roots, root 3: its worker died 3 times") as caught:
        done(marks, ["", "", "", "dies"], RayExecutor(workers=1))
    assert "--workers" in (caught.value.hint or "")
    assert started(marks, 3) == 3
    assert done(marks, [""] * 4, None) == pytest.approx([0, 1, 2**0.5, 3**0.5])
    assert [started(marks, number) for number in range(3)] == [1, 1, 1]


def test_an_error_of_the_work_is_told_as_in_a_plain_run(marks: Path) -> None:
    with pytest.raises(AffectbenchError) as caught:
        done(marks, ["", "raises"], RayExecutor(workers=1))
    assert (caught.value.message, caught.value.hint) == ("recording 1 is damaged", "fetch it again")


def contents(folder: Path) -> dict[str, Any]:
    """Records by name, without what a run took."""
    found = {}
    for path in (folder / "analyses").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[path.name] = {key: value for key, value in record.items() if key not in ("cost", "provenance")}
    return found


def test_the_command_writes_the_records_of_a_plain_run(run_cli: Any, tmp_path: Path) -> None:
    source = {"reader": "simulated", "model": "reference-audio", "point": 3, "lag": 0.3, "snr": 2.0,
              "sentences": 10, "subjects": 3}  # fmt: skip
    own_task(tmp_path, {"source": source, "metrics": ["rsa_spearman", "tau_b"], "seconds": [1.0, 15.0]})
    ask = ("align", "mine", "--include", tmp_path, "--study", "alignment", "--study", "nulls", "--runs", 10)
    for name, how in (("plain", ()), ("ray", ("--ray", "--workers", 2))):
        code, _, complaint = run_cli(*ask, *how, "--output", tmp_path / name)
        assert code == 0, complaint
    plain = contents(tmp_path / "plain")
    assert len(plain) == 2
    assert contents(tmp_path / "ray") == plain
