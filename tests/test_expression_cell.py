"""A cell of expression end to end: what is written, judged, scored, kept, and made again from that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from e2e_content import CUES, Bench, contents
from e2e_expression import MODEL, PROTOCOL, TASK

from affectbench.dataset import load_benchmark
from affectbench.intervention import UNTOUCHED, scale
from affectbench.journal import Journal
from affectbench.judges.judgement import Judgement
from affectbench.judges.loading import load_judge
from affectbench.outcomes import ERROR, UNPARSED, Outcomes
from affectbench.placement import load_model
from affectbench.plan import job_of_names
from affectbench.prompts import plain_prompt, prompt_text
from affectbench.record import Record, cell_id
from affectbench.replies import Replies, read_replies
from affectbench.selector import Selection
from affectbench.session import Session
from affectbench.store import Store
from affectbench.targets import Dosing, Units
from affectbench.task import ExpressionBenchmark

LABELS = tuple(CUES)


def record_of(results: Path, selector: str = "magnitude") -> Record:
    records, damaged = Store(results).read_all()
    assert not damaged
    return next(record for record in records if record.cell.selector == selector)


@pytest.fixture(scope="module")
def record(written: Path) -> Record:
    return record_of(written)


@pytest.fixture(scope="module")
def outcomes(written: Path, record: Record) -> Outcomes:
    return Store(written).read_predictions(record.cell)["test"]


@pytest.fixture(scope="module")
def replies(written: Path, record: Record) -> Replies:
    return read_replies(Store(written).replies_path(record.cell))


def session(writer: Bench, journal: Journal | None = None) -> Session:
    registry = writer.registry()
    task = registry.benchmark(TASK)
    job = job_of_names(registry, MODEL, TASK, [], [], 0)
    judge = load_judge(registry.judge("toy-judge"), task.labels)
    model = load_model(registry, job, "cpu")
    return Session(model, task, load_benchmark(task), registry.benchmark, journal=journal, judge=judge)


def generated(engine: Session, prompt: str) -> str:
    """What transformers' own generate writes, as it stands."""
    model = engine.model
    inputs = model.tokenizer(prompt, return_tensors="pt")
    rows = model.network.generate(**inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)
    text: str = model.tokenizer.decode(rows[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()


def test_the_model_replies_as_it_is_told_and_the_record_says_so(record: Record) -> None:
    assert record.status in ("ok", "collapsed"), record.reason
    assert record.expression is not None
    found = record.expression
    assert found.prompting.accuracy is not None
    assert found.prompting.accuracy.value > 0.9
    assert found.plain.rows == ["no emotion"]
    assert found.plain.none.value > 0.9
    assert (found.prompting.n, found.plain.n) == (5 * 9, 5 * 3)
    assert [(each.prompt, each.condition, each.dose) for each in found.conditions] == [
        ("elicited", "suppress", 0.0), ("plain", "amplify", 1.0), ("plain", "amplify", 2.0)
    ]  # fmt: skip
    assert found.judge == "toy-judge"
    assert 5 <= found.n_groups <= found.n_asked == 15


def test_texts_are_those_that_transformers_writes(
    writer: Bench, written: Path, record: Record, replies: Replies
) -> None:
    """Prompted, plain, and with units switched off, by weights instead of hooks, one prompt at a time."""
    here = session(writer)
    assert isinstance(here.benchmark, ExpressionBenchmark)
    examples = {each.id: each for each in here.dataset.splits["test"]}
    selection = Selection.load(Store(written).selections / f"{cell_id(record.cell)}.safetensors")
    base = replies.where(replies.condition == "base")
    for prompt, item, text in zip(base.prompt, base.item, base.text, strict=True):
        if prompt == "elicited":
            asked = prompt_text(here.benchmark, examples[item]).text
        else:
            asked = plain_prompt(here.benchmark, examples[f"{item}__anger"]).text
        assert text == generated(here, asked), item
    shape = here.model.site_shape("neuron")
    off = scale("neuron", shape, selection.units[0], 0.0, "answer")
    item = here.items("test").at([0])
    assert here.expressing is not None
    (found,) = here.expressing.judged(item, [off]).texts[:, 0]
    own = replies.where((replies.condition == "suppress") & (replies.target == LABELS[0]))
    assert found == own.text[list(own.item).index(item.ids[0])]


def test_each_arm_is_compared_with_what_it_was_asked(outcomes: Outcomes, replies: Replies) -> None:
    elicited = replies.where((replies.condition == "base") & (replies.prompt == "elicited"))
    judged = dict(zip(elicited.item, elicited.code, strict=True))
    assert outcomes.base.tolist() == [judged[item] for item in outcomes.items]
    for condition in outcomes.conditions:
        assert (condition.base is None) == (condition.arm == "suppress")
        if condition.base is not None:
            groups = np.array([item.rpartition("__")[0] for item in outcomes.items])
            for group in np.unique(groups):
                assert len(np.unique(condition.predictions[:, groups == group], axis=1).T) == 1
            assert (condition.base == UNPARSED).mean() > 0.9


def test_effects_are_rates_of_judged_texts(record: Record, replies: Replies) -> None:
    """The amplify arm's effect matrix and rates, from the texts alone."""
    assert record.scores is not None
    assert record.expression is not None
    calm = replies.where((replies.condition == "base") & (replies.prompt == "plain")).code
    for dose in record.scores.doses:
        if dose.arm == "suppress":
            continue
        matrix = np.zeros((3, 3))
        for s, label in enumerate(LABELS):
            own = replies.where(
                (replies.condition == "amplify") & (replies.dose == dose.dose) & (replies.target == label)
            ).code
            matrix[s] = [(own == e).mean() - (calm == e).mean() for e in range(3)]
        np.testing.assert_allclose(dose.effect_matrix, matrix, atol=1e-9)
        shown = next(
            each
            for each in record.expression.conditions
            if (each.condition, each.dose) == ("amplify", dose.dose)
        )
        said = np.array(shown.matrix)
        np.testing.assert_allclose(said[:, :3] - [(calm == e).mean() for e in range(3)], matrix, atol=1e-5)
        np.testing.assert_allclose(said.sum(axis=1), 1.0, atol=1e-5)
        assert not dose.collapsed, "expressing the target everywhere is what is asked for"


def test_units_are_found_on_whole_accepted_groups_and_plain_prompts_are_shown(writer: Bench) -> None:
    here = session(writer)
    assert here.expressing is not None
    items = here.items("identification")
    right = here.expressing.judged(items, [UNTOUCHED]).codes[0] == items.gold
    groups = [item.rpartition("__")[0] for item in items.ids]
    whole = {
        group for group in groups if all(ok for ok, own in zip(right, groups, strict=True) if own == group)
    }
    kept = here.usable(True)
    assert {group for group, ok in zip(groups, kept, strict=True) if ok} == whole
    assert kept.sum() == 3 * len(whole)
    neutral = here.expressing.plain(items.at(np.flatnonzero(kept).tolist()))
    assert set(neutral.ids) == whole
    text = here.model.tokenizer.decode(neutral.items[0].ids)
    assert not any(label in text for label in LABELS)


def test_a_writer_takes_what_was_written_from_the_journal(writer: Bench, tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        here = session(writer, Journal(tmp_path, "0" * 16, lambda _: None))
        assert here.expressing is not None
        before = here.engine.cost.forward_passes
        kept.append(here.expressing.judged(here.items("test"), [UNTOUCHED]).texts.tolist())
        passes = here.engine.cost.forward_passes - before
        assert passes > 0, "what is taken over is counted at the cost it had"
    assert kept[0] == kept[1]


def test_scores_are_made_again_from_what_is_stored(
    written: Path, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    results = Path(shutil.copytree(written, tmp_path / "copy"))
    before = contents(results)
    code, out, _ = run_cli("score", "--results", results)
    assert (code, "2 records scored again, 0 changed" in out) == (0, True)
    path = Store(results).records / f"{cell_id(record_of(results).cell)}.json"
    content = json.loads(path.read_text())
    content["expression"]["prompting"]["distinct_3"] = 0.5
    again = Record.model_validate(content).sealed()
    Store(results).write(again)
    code, out, _ = run_cli("score", "--results", results)
    assert "1 changed" in out
    assert contents(results) == before


def test_replies_that_are_not_those_of_the_record_make_the_cell_run_again(
    writer: Bench, written: Path, tmp_path: Path
) -> None:
    results = Path(shutil.copytree(written, tmp_path / "copy"))
    cells = {name: record_of(results, name).cell for name in ("magnitude", "random")}
    store = Store(results)
    store.write_replies(cells["magnitude"], read_replies(store.replies_path(cells["random"])))
    store.replies_path(cells["random"]).write_bytes(b"no parquet")
    before = contents(results)
    job = job_of_names(writer.registry(), MODEL, TASK, ["magnitude", "random"], [PROTOCOL], 0)
    _, log = writer.run(job, results)
    assert log.ran == ["magnitude", "random"]
    assert any("these are not the replies of its record" in note for note in log.notes)
    assert any("are damaged" in note for note in log.notes)
    assert contents(results) == before, "and it is the same again"


def test_another_judge_is_another_task(writer: Bench, tmp_path: Path) -> None:
    from affectbench.judges.loading import judge_digests

    registry = writer.registry()
    task = registry.benchmark(TASK)
    card = registry.judge("toy-judge")
    before = judge_digests(registry, task)
    assert card.folder is not None
    path = card.folder / "judge.json"
    kept = path.read_bytes()
    try:
        path.write_bytes(kept.replace(b"of a test", b"of another"))
        assert judge_digests(registry, task) != before
    finally:
        path.write_bytes(kept)
    assert judge_digests(registry, task) == before


def test_tables_tell_what_was_expressed_beside_prompting(record: Record) -> None:
    from affectbench.record_rows import rows

    assert record.expression is not None
    found = rows(record)
    shown = {(each.condition, each.dose): each for each in record.expression.conditions}
    for row in found:
        own = shown[row["arm"], row["dose"]]
        assert own.accuracy is not None
        assert (row["expressed"], row["expressed_low"]) == (own.accuracy.value, own.accuracy.low)
        assert row["expressed_none"] == own.none.value
        assert row["prompted"] == 1.0


def joyful(text: str) -> bool:
    return bool(set(CUES["joy"]) & set(text.split()))


class Stumbling:
    """A judge that cannot read joy, and says the first label of all else."""

    name, digest = "stumbling", "0" * 16

    def __init__(self) -> None:
        self.asked: list[str] = []

    def judge(self, texts: Sequence[str]) -> list[Judgement]:
        self.asked += texts
        return [Judgement(ERROR, "parse", "joy") if joyful(text) else Judgement(0) for text in texts]


def test_a_judge_that_fails_is_counted_and_asked_again_and_never_answers(writer: Bench) -> None:
    here, judge = session(writer), Stumbling()
    here.judge = judge
    assert here.expressing is not None
    items = here.items("test")
    found = here.expressing.judged(items, [UNTOUCHED])
    failed = np.array([joyful(text) for text in found.texts[0]])
    assert 0 < failed.sum() < len(items)
    assert (found.codes[0][failed] == ERROR).all()
    assert (found.codes[0][~failed] == 0).all()
    assert set(found.failures[0]) == {"parse", ""}
    asked = len(judge.asked)
    assert asked == len(set(judge.asked)), "no text is asked about twice"
    here.expressing.judged(items, [UNTOUCHED])
    again = judge.asked[asked:]
    assert set(again) == set(found.texts[0][failed]), "but failures are"
    shape = here.model.site_shape("neuron")
    protocol = writer.registry().intervention(PROTOCOL)
    target = (Units("neuron", shape, np.arange(4), np.zeros(4)),)
    texts = here.expressing.replies(items, [target] * 3, Dosing(protocol, {}), [("suppress", 0.0)])
    expression = here.expression_of(texts, 0, 0)
    assert expression.failed
    assert expression.prompting.n_parse == failed.sum()
    assert expression.prompting.judged_share == pytest.approx(1 - failed.mean())
    assert expression.prompting.accuracy_judged == pytest.approx((items.gold[~failed] == 0).mean())
