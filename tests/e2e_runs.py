"""Runs of a small grid in processes of their own, for tests of where cells run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e_content import BENCHMARK, MODEL, PROTOCOL, Bench, card, write_benchmark, write_selector, write_yaml

from affectbench.errors import AffectbenchError
from affectbench.ray_executor import import_ray

ROOT = Path(__file__).resolve().parent.parent
TIMES = {"cost": ("wall_s", "cpu_s", "peak_memory_mib"), "provenance": ("started", "finished", "command")}


def installed() -> bool:
    try:
        import_ray()
    except AffectbenchError:
        return False
    return True


needs_ray = pytest.mark.skipif(not installed(), reason="Ray is not installed: pip install 'affectbench[ray]'")


ON_RAY = ("--executor", "ray", "--workers", "2")
IN_PROCESSES = ("--workers", "2")


@pytest.fixture(scope="module")
def own(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own: a second benchmark, a model without weights, selectors that kill, two suites."""
    root = tmp_path_factory.mktemp("own")
    more = f"{BENCHMARK}-more"
    write_benchmark(root, name=more, prompt="Text : {text} feel :")
    (bench.root / "data" / more).mkdir(exist_ok=True)
    items = (bench.root / "data" / BENCHMARK / "items.jsonl").read_text()
    (bench.root / "data" / more / "items.jsonl").write_text(items)
    write_yaml(root / "models" / "hollow.yaml", card(name="hollow", checkpoint="checkpoints/hollow"))
    config = (bench.root / "models" / "checkpoints" / MODEL / "config.json").read_text()
    (root / "models" / "checkpoints" / "hollow").mkdir(parents=True)
    (root / "models" / "checkpoints" / "hollow" / "config.json").write_text(config)
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    write_selector(root, "always", kill)
    marker = root / "was-here"
    once = f"import pathlib\nseen = pathlib.Path({str(marker)!r})\nif not seen.exists():\n    seen.touch()\n"
    write_selector(root, "once", once + "\n".join(f"    {line}" for line in kill.splitlines()))
    suite = {"kind": "suite", "version": 1, "interventions": [PROTOCOL]}
    grid = suite | {
        "name": "grid",
        "models": [MODEL],
        "tasks": {"text": [BENCHMARK, more]},
        "selectors": ["magnitude", "contrast"],
        "controls": ["random"],
        "analyses": ["direction-geometry"],
    }
    hard = suite | {
        "name": "hard",
        "models": [MODEL, "hollow"],
        "tasks": {"text": BENCHMARK},
        "selectors": ["always", "once", "magnitude"],
    }
    for content in (grid, hard):
        write_yaml(root / "tasks" / "suites" / f"{content['name']}.yaml", content)
    return root


def command(bench: Bench, own: Path, output: Path, *arguments: str) -> list[str]:
    parts = [sys.executable, "harness.py", "run", *arguments, "--output", str(output), "--threads", "1"]
    return [*parts, "--data", str(bench.root / "data"), "--include", str(bench.root), "--include", str(own)]


def run(line: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def files(output: Path) -> dict[str, Any]:
    """Everything a run left: bytes of predictions and selections, records without their times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = str(path.relative_to(output))
        if path.suffix != ".json":
            found[name] = path.read_bytes()
            continue
        record = json.loads(path.read_text())
        for part, keys in TIMES.items():
            for key in keys:
                del record[part][key]
        found[name] = record
    return found
