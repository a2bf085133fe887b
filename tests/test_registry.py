"""Finding content by name: built in, in included folders, in installed packages."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from affectbench.registry import Registry, RegistryError, builtin_root, source_digest

ROOT = Path(__file__).resolve().parent.parent

SELECTOR = '''"""Favours {name}.

More words.
"""

class Favourite:
    name = "{name}"

    def select(self, study, budget):
        return "{name}"
'''


def selector(folder: Path, name: str, text: str = SELECTOR) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(text.replace("{name}", name))
    return path


def names(registry: Registry, kind: str) -> list[str]:
    return [entry.name for entry in registry.entries(kind)]  # type: ignore[arg-type]


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A folder laid out like the repository, with one selector and one protocol."""
    selector(tmp_path / "selectors", "favourite")
    protocols = tmp_path / "tasks/interventions"
    protocols.mkdir(parents=True)
    base = (ROOT / "tasks/interventions/zero-gain.yaml").read_text()
    (protocols / "mine.yaml").write_text(
        base.replace("zero-gain", "mine").replace("title: Zero", "title: My zero")
    )
    return tmp_path


def test_builtin_content_is_found_and_loads() -> None:
    registry = Registry(installed=False)
    assert builtin_root() == ROOT
    assert {"esn-paper", "esn-sound", "mean-gain", "zero-gain"} <= set(names(registry, "intervention"))
    suite = registry.suite("quickstart")
    for model in suite.models:
        card = registry.model(model)
        assert card.family in names(registry, "family")
        for task in suite.tasks_for(card):
            assert registry.benchmark(task).modality == card.modality
    assert {*suite.selectors, *suite.controls} <= set(names(registry, "selector"))
    assert {registry.intervention(name).site for name in suite.interventions} == {"gate"}
    assert all(entry.summary for kind in ("model", "benchmark", "suite") for entry in registry.entries(kind))
    assert not registry.ignored


@pytest.mark.slow
def test_builtin_python_content_imports_under_its_own_prefix() -> None:
    registry = Registry(installed=False)
    for name in names(registry, "selector"):
        assert registry.selector(name).__module__ == f"_affectbench_content.selector.{name}"
    for name in names(registry, "family"):
        assert registry.family(name).__module__ == f"_affectbench_content.family.{name}"
    assert not {str(ROOT / folder) for folder in ("selectors", "models")} & set(sys.path)


def test_included_folder_with_the_same_layout(content: Path) -> None:
    registry = Registry([content], installed=False)
    entry = registry.find("selector", "favourite")
    assert (entry.summary, entry.place) == ("Favours favourite.", "--include")
    assert registry.selector("favourite")().select(None, 1) == "favourite"
    assert registry.selector("favourite") is registry.selector("favourite")
    assert registry.intervention("mine").title == "My zero and gain"
    assert registry.find("intervention", "mine").summary == "My zero and gain"


def test_files_directly_in_an_included_folder(tmp_path: Path) -> None:
    selector(tmp_path, "direct")
    selector(tmp_path, "some_family", SELECTOR.replace("select(self, study, budget)", "load(self)"))
    selector(tmp_path, "helper", '"""No class."""\n')
    selector(tmp_path, "broken", "def broken(:\n")
    (tmp_path / "odd.yaml").write_text("kind: benchmrk\n")
    (tmp_path / "notes.txt").write_text("no content")
    base = (ROOT / "tasks/interventions/zero-gain.yaml").read_text()
    (tmp_path / "loose.yaml").write_text(base.replace("name: zero-gain", "name: loose"))
    registry = Registry([tmp_path], installed=False)
    assert "direct" in names(registry, "selector")
    assert "some_family" in names(registry, "family")
    assert "loose" in names(registry, "intervention")
    ignored = "\n".join(registry.ignored)
    assert len(registry.ignored) == 3
    assert "broken.py:1: not valid Python" in ignored
    assert "did you mean 'benchmark'" in ignored
    with pytest.raises(RegistryError, match=r"no selector 'broken'.*broken\.py:1: not valid Python"):
        registry.find("selector", "broken")


def test_listing_runs_no_content(content: Path) -> None:
    path = selector(content / "selectors", "loud", SELECTOR + '\nraise RuntimeError("imported")\n')
    registry = Registry([content], installed=False)
    assert registry.find("selector", "loud").summary == "Favours loud."
    with pytest.raises(RegistryError, match=r"loud.*could not be imported: RuntimeError: imported") as caught:
        registry.selector("loud")
    assert str(path) in str(caught.value)
    assert "_affectbench_content.selector.loud" not in sys.modules


def test_unknown_name_gets_a_suggestion_and_the_places(content: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        Registry([content], installed=False).find("selector", "favorite")
    message = str(caught.value)
    for part in ("did you mean 'favourite'", str(content), str(ROOT), "entropy"):
        assert part in message
    with pytest.raises(RegistryError, match="no such folder"):
        Registry([content / "nowhere"])


def test_a_name_in_two_places_is_an_error_that_names_both(content: Path) -> None:
    path = selector(content / "selectors", "entropy")
    registry = Registry([content], installed=False)
    with pytest.raises(RegistryError) as caught:
        registry.find("selector", "entropy")
    assert str(path) in str(caught.value)
    assert str(ROOT / "selectors/entropy.py") in str(caught.value)
    assert "mine" in names(registry, "intervention")


def test_the_same_file_reached_twice_is_one_entry(content: Path) -> None:
    registry = Registry([ROOT, content, content / "selectors", content], installed=False)
    assert names(registry, "selector").count("favourite") == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SELECTOR.replace('"{name}"\n\n', '"other"\n\n'), "has the name 'other', expected 'sub'"),
        (SELECTOR + SELECTOR.replace("Favourite", "Second"), "found Favourite, Second"),
        (SELECTOR.replace("select", "choose"), "found none"),
    ],
)
def test_a_selector_file_holds_one_class_of_its_name(tmp_path: Path, text: str, problem: str) -> None:
    selector(tmp_path / "selectors", "sub", text)
    with pytest.raises(RegistryError, match=problem):
        Registry([tmp_path], installed=False).selector("sub")


def test_two_registries_do_not_mix_files_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        path = selector(tmp_path / folder / "selectors", "twin")
        path.write_text(path.read_text().replace('return "twin"', f'return "{folder}"'))
    answers = [
        Registry([tmp_path / f], installed=False).selector("twin")().select(None, 1) for f in ("a", "b")
    ]
    assert answers == ["a", "b"]


def test_source_digest_is_the_file(tmp_path: Path) -> None:
    path = selector(tmp_path, "one")
    assert source_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    before = source_digest(path)
    path.write_text(path.read_text() + "# changed\n")
    assert source_digest(path) != before


def test_installed_packages_announce_content(
    tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    package = site / "affect_extra"
    selector(package, "packaged")
    (package / "__init__.py").write_text('raise RuntimeError("listing must not import this")\n')
    selector(site, "affect_selector", SELECTOR.replace("{name}", "announced"))
    info = site / "affect_extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: affect-extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[affectbench.tasks]\nextra = affect_extra\n"
        "[affectbench.selectors]\nannounced = affect_selector:Favourite\ngone = affect_selector:Nobody\n"
    )
    monkeypatch.syspath_prepend(str(site))
    registry = Registry()
    assert {"packaged", "announced"} <= set(names(registry, "selector"))
    assert registry.find("selector", "packaged").place == "package affect-extra"
    assert registry.find("selector", "announced").summary == "Favours announced."
    assert "affect_selector" not in sys.modules
    assert registry.selector("announced")().select(None, 1) == "announced"
    with pytest.raises(RegistryError, match="affect_selector:Nobody"):
        registry.selector("gone")
    assert "packaged" not in names(Registry(installed=False), "selector")


def test_content_folders_shadow_no_standard_module() -> None:
    code = "import asyncio, subprocess, selectors; print(selectors.DefaultSelector.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "selectors"
    for folder in ("tasks", "models", "selectors", "leaderboard"):
        assert not (ROOT / folder / "__init__.py").exists()
    files = [*ROOT.glob("selectors/*.py"), *ROOT.glob("models/*.py"), *ROOT.glob("affectbench/*.py")]
    assert not {path.stem for path in files} & set(sys.stdlib_module_names)
