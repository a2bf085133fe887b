"""Task files: what the shipped ones say, and what a wrong one is told."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from affectbench.task import (
    Benchmark,
    InterventionProtocol,
    ModelCard,
    Suite,
    load_as,
    load_file,
    write_task_schemas,
)
from affectbench.yaml_loading import TaskFileError

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted([*ROOT.glob("tasks/*s/*.yaml"), *ROOT.glob("models/*.yaml")])

SPLIT = "split: {by: cluster, fractions: {identification: 0.5, validation: 0.2, test: 0.3}}"
BENCHMARK = """\
kind: benchmark
name: trial
version: 1
modality: text
licence: own
data: trial
source:
  reader: table
  format: csv
  files: {all: items.csv}
  columns: {text: text, label: emotion, cluster: writer}
labels: [anger, happiness]
label_map: {joy: happiness}
cluster: writer
SPLIT
prompt: "Text: {text} Emotion:"
readout: {kind: labels}
preservation:
  neutral: {reader: file, path: neutral.jsonl}
  capability:
    kind: multiple_choice
    source: {reader: generator, module: narratives, n: 5, seed: 1}
  prompts: [Once]
""".replace("SPLIT", SPLIT)
PROTOCOL = """\
kind: intervention
name: trial
version: 1
site: gate
positions: all
statistics: {positions: answer, items: correct}
fractions: [0.02]
arms:
  suppress: {operation: scale, doses: [0]}
  amplify: {operation: scale, doses: [1.5, 2]}
controls: {random_draws: 20}
"""


def write(folder: Path, text: str, name: str = "trial.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    (folder / "neutral.jsonl").touch()
    return path


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(TaskFileError) as caught:
        load_file(write(folder, text))
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_file_loads_and_names_its_schema(path: Path) -> None:
    task = load_file(path)
    assert task.name == path.stem
    assert len(task.digest) == 16
    schema = path.read_text(encoding="utf-8").splitlines()[0].partition("$schema=")[2]
    assert (path.parent / schema).resolve() == ROOT / f"tasks/schema/{task.kind}.schema.json"


def test_shipped_digests_differ() -> None:
    digests = [load_file(path).digest for path in SHIPPED]
    assert len(set(digests)) == len(digests) > 10


def test_shipped_schemas_are_current(tmp_path: Path) -> None:
    for path in write_task_schemas(tmp_path):
        shipped = (ROOT / "tasks/schema" / path.name).read_text(encoding="utf-8")
        assert shipped == path.read_text(encoding="utf-8"), "run affectbench.task.write_task_schemas"


def test_quickstart_names_what_is_shipped() -> None:
    suite = load_as(ROOT / "tasks/suites/quickstart.yaml", Suite)
    cards = [load_as(ROOT / f"models/{name}.yaml", ModelCard) for name in suite.models]
    assert [suite.tasks_for(card) for card in cards] == [(card.default_task,) for card in cards]
    assert all(card.instrument for card in cards)


def test_protocols_are_as_published_and_as_chosen() -> None:
    paper = load_as(ROOT / "tasks/interventions/esn-paper.yaml", InterventionProtocol)
    sound = load_as(ROOT / "tasks/interventions/esn-sound.yaml", InterventionProtocol)
    mean = load_as(ROOT / "tasks/interventions/mean-gain.yaml", InterventionProtocol)
    assert (paper.mode, paper.fractions, paper.arms.amplify.doses) == ("paper", (0.005,), (1.5,))
    assert [dose - 1 for dose in sound.arms.amplify.doses] == [0.25, 0.5, 1, 2]
    assert (paper.statistics.positions, sound.statistics.positions) == ("audio", "content")
    assert (mean.arms.suppress.operation, mean.arms.amplify.doses) == ("mean", (1.5, 2, 4))


@pytest.mark.parametrize(
    ("old", "new", "line", "parts"),
    [
        ("modality: text", "modalities: text", 4, ["modalities: unknown key", "did you mean 'modality'"]),
        ("reader: table", "reader: tabel", 8, ["source.reader", "'tabel'", "did you mean 'table'"]),
        ("joy: happiness", "joy: hapiness", 13, ["label_map.joy", "did you mean 'happiness'"]),
        ("{kind: labels}", "{kind: labels, verbalisers: {angr: mad}}", 17, ["verbalisers.angr", "'anger'"]),
        ("path: neutral.jsonl", "path: neutrl.jsonl", 19, ["neutral.path", "did you mean 'neutral.jsonl'"]),
        ("test: 0.3", "test: 0.4", 15, ["split.fractions", "sum to 1"]),
        ("by: cluster", "by: given", 15, ["split.fractions: unknown key"]),
        (SPLIT, "split: {by: given}", 15, ["split", "expected `by: cluster`"]),
        ("[anger, happiness]", "[anger, anger]", 12, ["labels", "'anger' is listed twice"]),
        ("[anger, happiness]", "[anger, no]", 12, ["labels.1", "put it in quotes"]),
        ("[anger, happiness]", "[anger]", 12, ["labels", "at least 2"]),
        ("version: 1", "version: 0", 3, ["version", "greater than or equal to 1"]),
        ("version: 1", "version: 1\nversion: 2", 4, ["version: given twice, first on line 3"]),
        ("{text} Emotion", "{audio} Emotion", 16, ["prompt", "{text} exactly once"]),
        ("{text: text,", "{", 11, ["source.columns", "neither a text nor an audio column"]),
        ("data: trial\n", "", 1, ["data: missing"]),
        ("licence: own\n", "", 1, ["licence: missing"]),
        ("name: trial", "name: other", 2, ["'other' is not the file's name 'trial'"]),
        ("kind: benchmark", "kind: benchmrk", 1, ["kind", "did you mean 'benchmark'"]),
        ("label_map: {joy: happiness}", "label_map: {0: anger}", 13, ['put it in quotes: "0"']),
        ("licence: own", "licence: [", 7, ["not valid YAML"]),
        ("licence: own", "licence: !!python/object:os.system x", 5, ["not valid YAML"]),
    ],
)  # fmt: skip
def test_wrong_benchmark(tmp_path: Path, old: str, new: str, line: int, parts: list[str]) -> None:
    assert old in BENCHMARK
    message = complaint(tmp_path, BENCHMARK.replace(old, new))
    assert message.startswith(f"{tmp_path / 'trial.yaml'}:{line}: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("old", "new", "line", "parts"),
    [
        ("site: gate", "site: gat", 4, ["site", "'gat'", "did you mean 'gate'"]),
        ("scale, doses: [0]", "scal, doses: [0]", 9, ["arms.suppress.operation", "did you mean 'scale'"]),
        ("doses: [0]", "doses: [1]", 9, ["arms.suppress.doses.0", "less than 1"]),
        ("doses: [0]", "doses: [.nan]", 9, ["arms.suppress.doses.0"]),
        ("[1.5, 2]", "[1.5, 1]", 10, ["arms.amplify.doses.1", "factors above 1"]),
        ("[1.5, 2]", "[2, 2.0]", 10, ["arms.amplify.doses", "twice"]),
        ("[0.02]", "[2]", 7, ["fractions.0", "less than 1"]),
        ("[0.02]", '["0.02"]', 7, ["fractions.0", "'0.02'"]),
        ("items: correct", "items: corect", 6, ["statistics.items", "did you mean 'correct'"]),
        ("random_draws: 20", "random_draws: true", 11, ["controls.random_draws", "True"]),
        (
            "suppress: {operation: scale, doses: [0]}",
            "suppress: {operation: mean, doses: [0.5]}",
            9,
            ["only dose is 0"],
        ),
    ],
)
def test_wrong_protocol(tmp_path: Path, old: str, new: str, line: int, parts: list[str]) -> None:
    assert old in PROTOCOL
    message = complaint(tmp_path, PROTOCOL.replace(old, new))
    assert message.startswith(f"{tmp_path / 'trial.yaml'}:{line}: ")
    for part in parts:
        assert part in message


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    message = complaint(tmp_path, PROTOCOL.replace("gate", "gat").replace("[0.02]", "[2]"))
    assert [line.rsplit("trial.yaml:", 1)[1].split(":")[0] for line in message.splitlines()] == ["4", "7"]


def test_alias_bomb_and_self_reference_are_refused(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 10):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert "aliases expand" in complaint(tmp_path, bomb)
    assert "aliases expand" in complaint(tmp_path, "kind: &loop [*loop]\n")
    assert "merge keys" in complaint(tmp_path, "kind: &k {a: 1}\nname: {<<: *k}\n")


def test_include_lays_one_file_over_another(tmp_path: Path) -> None:
    write(tmp_path, PROTOCOL.replace("name: trial", "name: base"), "base.yaml")
    path = write(tmp_path, "include: base.yaml\nname: trial\narms:\n  amplify: {doses: [3]}\n")
    protocol = load_as(path, InterventionProtocol)
    assert protocol.arms.amplify.doses == (3.0,)
    assert protocol.arms.amplify.operation == "scale"
    assert protocol.arms.suppress.doses == (0.0,)
    wrong = "include: base.yaml\nname: trial\narms:\n  amplify: {doses: [0.5]}\n"
    assert complaint(tmp_path, wrong).startswith(f"{tmp_path / 'trial.yaml'}:4: arms.amplify.doses.0")
    write(tmp_path, PROTOCOL.replace("site: gate", "site: gat"), "base.yaml")
    message = complaint(tmp_path, "include: base.yaml\nname: trial\n")
    assert message.startswith(f"{tmp_path / 'base.yaml'}:4: site")


def test_bad_includes(tmp_path: Path) -> None:
    write(tmp_path, "include: trial.yaml\n", "other.yaml")
    assert "trial.yaml -> other.yaml -> trial.yaml" in complaint(tmp_path, "include: other.yaml\n")
    assert "did you mean 'other.yaml'" in complaint(tmp_path, "include: othr.yaml\n")
    assert "absolute" in complaint(tmp_path, f"include: {tmp_path / 'other.yaml'}\n")


def test_digest_follows_what_can_change_a_number(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return load_file(write(tmp_path, text)).digest

    first = digest(BENCHMARK)
    assert digest(BENCHMARK) == first
    assert digest(BENCHMARK + "title: Trial\n") == first
    assert digest(BENCHMARK + "multi_label: error\n") == first
    assert digest(BENCHMARK.replace("version: 1", "version: 2")) != first
    assert digest(BENCHMARK.replace("Emotion:", "Feeling:")) != first
    path = write(tmp_path, BENCHMARK)
    (tmp_path / "neutral.jsonl").write_text('{"text": "A."}\n')
    assert load_file(path).digest != first


def test_objects_are_frozen(tmp_path: Path) -> None:
    benchmark = load_as(write(tmp_path, BENCHMARK), Benchmark)
    with pytest.raises(ValidationError):
        benchmark.version = 2  # type: ignore[misc]
    with pytest.raises(TaskFileError, match="expected 'suite', found 'benchmark'"):
        load_as(tmp_path / "trial.yaml", Suite)


def test_loading_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'scipy', 'sklearn', 'pandas', 'pyarrow', 'soundfile', 'librosa'}"
    code = f"import sys, affectbench.registry, affectbench.dataset; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
