"""The built wheel works outside the checkout, and the folders of content shadow nothing."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CONTENT = ("tasks", "models", "selectors", "leaderboard")
HEAVY = {"torch", "transformers", "scipy", "sklearn", "pandas", "pyarrow", "librosa", "lm_eval", "datasets"}


def python(*arguments: str, cwd: Path = ROOT, path: Path | None = None) -> str:
    """Output of a fresh Python; `path` comes before the installed packages."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"COLUMNS": "200", "OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("arguments", [["harness.py", "--help"], ["-c", "import asyncio, subprocess"]])
def test_the_root_of_the_checkout_shadows_no_module(arguments: list[str]) -> None:
    python(*arguments)


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["list"], ["run", "--help"]])
def test_quick_commands_import_no_heavy_library(command: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["harness.py", *{command!r}]
from affectbench.__main__ import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("IMPORTED", *sys.modules)
"""
    imported = set(python("-c", code).split("IMPORTED", 1)[1].split())
    assert "affectbench.cli" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("folder", [*CONTENT, "affectbench"])
def test_no_file_is_named_like_a_module_of_the_standard_library(folder: str) -> None:
    names = {path.stem for path in (ROOT / folder).rglob("*.py")} - {"__init__", "__main__"}
    assert not names & sys.stdlib_module_names


def test_content_folders_are_no_packages() -> None:
    assert [path for folder in CONTENT for path in (ROOT / folder).rglob("__init__.py")] == []


def test_every_declared_requirement_is_pinned_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(pin.url is None and str(pin.specifier).startswith("==") for pin in pinned)
    assert not any("+" in str(pin.specifier) for pin in pinned), "a local build is not to be had elsewhere"
    versions = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pinned}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), line


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(ROOT), cwd=output)
    (built,) = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone in a folder; its dependencies are those of this environment."""
    target = tmp_path_factory.mktemp("installed")
    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    return target


def shipped() -> set[str]:
    """Paths in the wheel of all content that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", *CONTENT], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = {path for path in listed if not path.startswith("leaderboard/results/")}
    return {f"affectbench/_content/{path}" for path in wanted}


@pytest.mark.slow
def test_the_wheel_carries_all_content_and_no_leftovers(wheel: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is nothing to compare the wheel with")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert shipped() <= names
    assert any(name.endswith("reference-text/model.safetensors") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    leftovers = [name for name in names if name.endswith(".pyc") or name.startswith(("tests/", "results/"))]
    assert leftovers == []


@pytest.mark.slow
def test_the_wheel_lists_its_content_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = python("-c", "import affectbench; print(affectbench.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    listed = python("-m", "affectbench", "list", cwd=tmp_path, path=installed)
    for name in ("reference-text", "reference-narratives", "magnitude", "zero-gain", "quickstart"):
        assert name in listed
    python("-m", "affectbench", "check", cwd=tmp_path, path=installed)


@pytest.mark.slow
def test_the_wheel_runs_a_cell_and_builds_the_site_outside_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    parts = ["--model", "reference-text", "--task", "reference-narratives", "--selector", "magnitude"]
    python("-m", "affectbench", "run", *parts, "--limit", "3", "-o", "found", cwd=tmp_path, path=installed)
    assert len(list((tmp_path / "found" / "records").glob("*.json"))) == 1
    site = ["leaderboard", "--results", "found", "--output", "site"]
    python("-m", "affectbench", *site, cwd=tmp_path, path=installed)
    assert "reference-text" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_wheel_brings_its_fixture_to_every_pytest(installed: Path, tmp_path: Path) -> None:
    said = python("-m", "pytest", "--fixtures", "-q", cwd=tmp_path, path=installed)
    assert "affectbench_run [session scope]" in said
