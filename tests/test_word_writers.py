"""The planted case: units of an emotion and writers of its word, in a model where both are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from e2e_content import Log, write_protocol, write_yaml

from affectbench.content import builtin_root
from affectbench.placement import Options
from affectbench.plan import jobs_of_suite
from affectbench.readouts import CONTROL, RATIO, readout_rows
from affectbench.record import Record
from affectbench.registry import Registry
from affectbench.run import Run
from affectbench.site_readouts import readouts_board
from affectbench.site_summary import summary_of

MODEL = "reference-text-words"
FOLDER = builtin_root() / "models" / "reference" / MODEL
WORDS, LETTERS = "reference-narratives", "reference-narratives-letters"
KNOWN = '''"""Units that the model's own list names."""

import json
from pathlib import Path

import numpy as np

from affectbench.selector import Selection, Selector


class Known(Selector):
    name = "{name}"
    needs = frozenset({{"mean"}})

    def select(self, study, budget):
        truth = json.loads(Path({path!r}).read_text())["{name}"]
        units = tuple(np.array(sorted(truth[label])) for label in study.labels)
        return Selection(study.site, study.shape, study.labels, units)
'''


@dataclass(frozen=True)
class Known:
    """Records of emotion units and word writers by (task, task of identification, set), in a folder."""

    output: Path
    found: dict[tuple[str, str, str], Record]

    def __getitem__(self, place: tuple[str, str]) -> Record:
        task, name = place
        return self.found[task, task, name]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Both sets on label words and on letters, each also with the units of the other."""
    root = tmp_path_factory.mktemp("known")
    (root / "selectors").mkdir()
    for name in ("planted", "words"):
        text = KNOWN.format(name=name, path=str(FOLDER / "planted.json"))
        (root / "selectors" / f"{name}.py").write_text(text)
    write_protocol(root, name="brief", controls={"random_draws": 0})
    suite = {
        "kind": "suite", "name": "known", "version": 1, "models": [MODEL], "interventions": ["brief"],
        "tasks": {"text": [WORDS, LETTERS]}, "selectors": ["planted", "words"],
        "identification": {"transfer": True},
    }  # fmt: skip
    write_yaml(root / "tasks" / "suites" / "known.yaml", suite)
    registry = Registry([root], installed=False)
    found = Run(registry, Options(root / "out", limit=8), Log()).run(jobs_of_suite(registry, "known", 0))
    assert {record.status for record in found} == {"ok"}, [record.reason for record in found]
    return Known(root / "out", {(r.cell.task, r.cell.origin, r.cell.selector): r for r in found})


def test_both_sets_look_specific_when_the_emotions_word_is_the_answer(records: Known) -> None:
    for name in ("planted", "words"):
        headline = records[WORDS, name].headline
        assert headline is not None
        assert headline.spec.low is not None
        assert headline.spec.low > 0.3


def test_the_control_catches_the_word_writers_and_lets_the_emotion_units_pass(records: Known) -> None:
    emotion, writers = (records[WORDS, name].word_confound for name in ("planted", "words"))
    assert emotion is not None
    assert writers is not None
    assert emotion.uar is not None
    assert emotion.uar > 0.95
    assert emotion.suppress is not None
    assert writers.suppress is not None
    assert emotion.suppress.high is not None
    assert writers.suppress.low is not None
    assert emotion.suppress.high < 0.2
    assert writers.suppress.low > 0.9


def test_under_letters_the_emotion_units_act_and_the_word_writers_do_not(records: Known) -> None:
    emotion, writers = (records[LETTERS, name] for name in ("planted", "words"))
    assert emotion.headline is not None
    assert writers.headline is not None
    assert emotion.headline.spec.low is not None
    assert emotion.headline.spec.low > 0.3
    assert abs(writers.headline.spec.value) < 0.05
    assert writers.word_confound is not None
    assert writers.word_confound.suppress is None
    assert "nothing to divide by" in writers.word_confound.reason
    assert emotion.word_confound is not None
    assert emotion.word_confound.suppress is not None
    assert emotion.word_confound.suppress.high is not None
    assert emotion.word_confound.suppress.high < 0.2


def test_the_list_names_each_unit_once_in_its_layer() -> None:
    truth = json.loads((FOLDER / "planted.json").read_text())
    layers = {key: {unit // truth["width"] for own in truth[key].values() for unit in own}
              for key in ("planted", "decoys", "words")}  # fmt: skip
    assert layers == {"planted": {2}, "decoys": {2}, "words": {4}}
    everything = np.concatenate([own for key in layers for own in truth[key].values()])
    assert len(np.unique(everything)) == len(everything) == 3 * 7 * 8


def test_three_readouts_of_the_same_units_stand_in_one_row(
    records: Known, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    rows = {
        (row["identified on"], row["selector"]): row
        for row in readout_rows([summary_of(each) for each in records.found.values()])
    }
    assert len(rows) == 4
    for name in ("planted", "words"):
        row = rows[WORDS, name]
        home, away = records[WORDS, name], records.found[LETTERS, WORDS, name]
        assert home.headline is not None
        assert away.headline is not None
        assert home.answer_words is not None
        assert home.word_confound is not None
        assert (row[WORDS], row[LETTERS]) == (home.headline.spec, away.headline.spec)
        assert row[CONTROL] == home.answer_words.doses[0].spec
        assert row[RATIO] == home.word_confound.suppress
        assert away.word_confound is not None
        assert away.word_confound.uar is not None
    kinds = {record.cell.task: record.task.readout for record in records.found.values()}
    assert kinds == {WORDS: "labels", LETTERS: "letters"}
    (table,) = readouts_board([summary_of(each) for each in records.found.values()])
    assert [column.readout for column in table.columns] == ["label words", "lettered options"]
    assert len(table.rows) == 4
    code, printed, _ = run_cli("table", records.output, "--readouts", "--format", "json")
    assert code == 0
    told = {(row["identified on"], row["selector"]): row for row in json.loads(printed)}
    assert told[WORDS, "words"][CONTROL] == pytest.approx(1.0)
    assert abs(told[WORDS, "words"][LETTERS]) < 0.05
    assert told[WORDS, "planted"][LETTERS] > 0.3
    for form in ("text", "md", "csv"):
        code, printed, _ = run_cli("table", records.output, "--readouts", "--format", form)
        assert code == 0
        assert LETTERS in printed
