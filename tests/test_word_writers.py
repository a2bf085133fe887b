"""The planted case: units of an emotion and writers of its word, in a model where both are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from e2e_content import Log, write_protocol

from affectbench.content import builtin_root
from affectbench.placement import Options
from affectbench.plan import job_of_names
from affectbench.record import Record
from affectbench.registry import Registry
from affectbench.run import Run

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


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Record]:
    """Emotion units and word writers on label words and on letters, by (task, set)."""
    root = tmp_path_factory.mktemp("known")
    (root / "selectors").mkdir()
    for name in ("planted", "words"):
        text = KNOWN.format(name=name, path=str(FOLDER / "planted.json"))
        (root / "selectors" / f"{name}.py").write_text(text)
    write_protocol(root, name="brief", controls={"random_draws": 0})
    registry = Registry([root], installed=False)
    jobs = [
        job_of_names(registry, MODEL, task, ["planted", "words"], ["brief"], 0) for task in (WORDS, LETTERS)
    ]
    found = Run(registry, Options(root / "out", limit=8), Log()).run(jobs)
    return {(record.cell.task, record.cell.selector): record for record in found}


def test_both_sets_look_specific_when_the_emotions_word_is_the_answer(
    records: dict[tuple[str, str], Record],
) -> None:
    for name in ("planted", "words"):
        headline = records[WORDS, name].headline
        assert headline is not None
        assert headline.spec.low is not None
        assert headline.spec.low > 0.3


def test_the_control_catches_the_word_writers_and_lets_the_emotion_units_pass(
    records: dict[tuple[str, str], Record],
) -> None:
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


def test_under_letters_the_emotion_units_act_and_the_word_writers_do_not(
    records: dict[tuple[str, str], Record],
) -> None:
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
