"""The transfer ratio: value and interval against plain loops, and its way into records, tables and pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_records import LABELS, example_outcomes, example_record, transferred

from affectbench.errors import ScoreError
from affectbench.leaderboard import build_site
from affectbench.operating import judged
from affectbench.outcomes import Outcomes, content_digest, of_labels
from affectbench.record import Operating, Record
from affectbench.score_models import Estimate
from affectbench.site_summary import summary_of
from affectbench.site_transfer import transfer_board
from affectbench.store import Store
from affectbench.transfer import with_ratio
from affectbench.transfer_score import transfer_ratio

SHARED = ("sadness", "anger", "fear", "neutral")
DOSES = (0.0, 0.0)


def own(quality: float = 0.8, **changes: Any) -> Outcomes:
    return example_outcomes(quality, seed=3, **changes)


def moved(quality: float = 0.4, labels: tuple[str, ...] = SHARED, **changes: Any) -> Outcomes:
    """Other answers to the same items, of the shared labels in another order."""
    return of_labels(example_outcomes(quality, seed=3, **changes), labels)


def spec(outcomes: Outcomes, labels: tuple[str, ...], rows: np.ndarray) -> float:
    """Of the suppress arm over some of its labels, counted item by item."""
    condition = next(c for c in outcomes.conditions if c.arm == "suppress")
    codes = [outcomes.labels.index(label) for label in labels]
    loss = []
    for target in codes:
        change = []
        for gold in codes:
            items = [i for i in rows if outcomes.gold[i] == gold]
            hits = [
                int(condition.predictions[target, i] == gold) - int(outcomes.base[i] == gold) for i in items
            ]
            change.append(sum(hits) / len(items))
        others = [value for value, gold in zip(change, codes, strict=True) if gold != target]
        loss.append(np.mean(others) - change[codes.index(target)])
    return float(np.mean(loss))


def test_the_ratio_is_of_two_specificities_on_the_shared_labels_and_items() -> None:
    one, two = moved(), own()
    found = transfer_ratio(one, two, DOSES, seed=0, draws=500)
    assert found.ratio is not None
    assert found.own is not None
    above = spec(one, SHARED, np.arange(len(one.items)))
    below = spec(two, SHARED, np.arange(len(two.items)))
    assert found.own.value == pytest.approx(below)
    assert found.ratio.value == pytest.approx(above / below)
    assert found.ratio.se is None


def test_the_interval_is_that_of_clusters_resampled_for_both_at_once() -> None:
    """Against a loop that draws speakers by name, the same for both results, and counts item by item."""
    one, two = moved(n_per_label=12, n_clusters=14), own(n_per_label=12, n_clusters=14)
    found = transfer_ratio(one, two, DOSES, seed=0, draws=4000)
    rng = np.random.default_rng(8)
    rows = [{c: np.flatnonzero(each.clusters == c) for c in np.unique(each.clusters)} for each in (one, two)]
    ratios = []
    for _ in range(300):
        drawn = rng.choice(sorted(rows[0]), len(rows[0]))
        above, below = (
            spec(each, SHARED, np.concatenate([own_rows[c] for c in drawn]))
            for each, own_rows in zip((one, two), rows, strict=True)
        )
        ratios.append(above / below)
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert found.ratio is not None
    assert found.ratio.low == pytest.approx(low, abs=0.08)
    assert found.ratio.high == pytest.approx(high, abs=0.08)
    assert high - low > 0.3


def test_pairing_takes_out_what_both_share() -> None:
    """Units that do exactly what the benchmark's own do have a ratio of 1, without any doubt."""
    found = transfer_ratio(moved(0.8), own(0.8), DOSES, seed=0, draws=500)
    assert found.ratio == Estimate(value=1.0, low=1.0, high=1.0)
    assert found.own is not None
    assert found.own.low is not None
    assert found.own.high is not None
    assert found.own.high - found.own.low > 0.05


def test_the_order_of_items_and_labels_does_not_matter() -> None:
    one, two = moved(), own()
    order = np.random.default_rng(0).permutation(len(two.items))
    names = ("items", "gold", "clusters", "base", "base_margin")
    mixed = replace(
        two,
        conditions=tuple(c.items_at(order) for c in two.conditions),
        **{name: getattr(two, name)[order] for name in names},
    )
    expected = transfer_ratio(one, two, DOSES, seed=0, draws=500)
    assert transfer_ratio(one, mixed, DOSES, seed=0, draws=500) == expected


def test_where_there_is_little_to_divide_by_there_is_no_interval() -> None:
    weak = transfer_ratio(moved(), own(0.03), DOSES, seed=0, draws=500)
    assert weak.own is not None
    assert weak.own.low is not None
    assert weak.own.low < 0 < weak.own.value
    assert weak.ratio is not None
    assert (weak.ratio.low, weak.ratio.high) == (None, None)
    inert = replace(own(), conditions=tuple(_undone(c, own()) for c in own().conditions))
    none = transfer_ratio(moved(), inert, DOSES, seed=0, draws=500)
    assert none.ratio is None
    assert "specificity 0.000" in none.reason


def _undone(condition: Any, outcomes: Outcomes) -> Any:
    return replace(condition, predictions=np.tile(outcomes.base, (len(LABELS), 1)))


def test_one_cluster_has_no_interval() -> None:
    one, two = moved(n_clusters=1), own(n_clusters=1)
    found = transfer_ratio(one, two, DOSES, seed=0, draws=500)
    assert found.ratio is not None
    assert found.ratio.low is None


def test_what_cannot_be_paired_is_an_error() -> None:
    with pytest.raises(ScoreError, match="different items"):
        transfer_ratio(moved(n_per_label=12), own(), DOSES, seed=0, draws=500)
    with pytest.raises(ScoreError, match=r"no answers at suppress dose 0\.5"):
        transfer_ratio(moved(), own(), (0.0, 0.5), seed=0, draws=500)


# Records.


class Grid:
    """A store with two results on one task: of its own units, and of units from another one."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        template, other = (example_record("small-text", task=task) for task in ("stories", "letters"))
        self.own = self.kept(template, own(0.8))
        task = template.task.model_copy(update={"labels": list(SHARED)})
        units = {
            name: getattr(template.selection, name)[: len(SHARED)]
            for name in ("units_per_emotion", "units", "layer_histogram")
        }
        selection = template.selection.model_copy(update=units)  # type: ignore[union-attr]
        few = template.model_copy(update={"task": task, "selection": selection, "calibration": None})
        moved_record = transferred(few, other)
        self.moved = self.kept(moved_record, moved(0.4))

    def kept(self, template: Record, outcomes: Outcomes) -> Record:
        operating = Operating(suppress_dose=0.0, amplify_dose=2.0, reason="")
        parts = judged({"test": outcomes}, template.preservation, 0, operating)
        digest = content_digest({"test": outcomes})
        hashes = template.hashes.model_copy(update={"predictions": digest})
        changes = {"hashes": hashes, "validation": [], "answer_words": None, "word_confound": None}
        record = Record.model_validate(dict(template) | parts | changes).sealed()
        self.store.write_predictions(record.cell, {"test": outcomes})
        self.store.write(record)
        return record

    def compared(self, record: Record | None = None) -> Record:
        return with_ratio(record or self.moved, self.store, lambda name: None)


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path / "results")


def test_a_transferred_record_is_compared_with_the_tested_benchmarks_own(grid: Grid) -> None:
    found = grid.compared().transfer
    assert found is not None
    assert found.answers == grid.own.hashes.predictions
    expected = transfer_ratio(moved(0.4), own(0.8), DOSES, seed=0)
    assert (found.ratio, found.own) == (expected.ratio, expected.own)
    assert grid.compared(grid.own) is grid.own


def test_a_comparison_is_made_again_only_where_the_other_result_changed(grid: Grid) -> None:
    done = grid.compared()
    assert grid.compared(done) is done
    again = grid.kept(grid.own, own(0.6))
    changed = grid.compared(done).transfer
    assert changed is not None
    assert changed.answers == again.hashes.predictions != grid.own.hashes.predictions
    assert changed.ratio != done.transfer.ratio  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hashes": {"task": "0" * 16}}, "of another version"),
        ({"hashes": {"protocol": "0" * 16}}, "of another version"),
        ({"headline": {"significant": False}}, "no significant effect"),
        ({"operating": {"suppress_dose": None}}, "no operating dose"),
        ({"operating": {"suppress_dose": 0.5}}, "no answers at suppress dose 0.5"),
        ({"status": "collapsed", "reason": "it did", "headline": {"agg": None}}, "collapses"),
    ],
)
def test_without_a_ratio_the_record_says_why(grid: Grid, change: dict[str, Any], reason: str) -> None:
    parts = {
        name: getattr(grid.own, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in change.items()
    }
    grid.store.write(grid.own.model_copy(update=parts))
    found = grid.compared().transfer
    assert found is not None
    assert found.ratio is None
    assert reason in found.reason


def test_without_the_other_result_or_its_answers_there_is_none(grid: Grid) -> None:
    grid.store.predictions_path(grid.own.cell).unlink()
    missing = grid.compared().transfer
    assert missing is not None
    assert "no predictions are stored" in missing.reason
    grid.store.record_path(grid.own.cell).unlink()
    assert "no result of units" in grid.compared().transfer.reason  # type: ignore[union-attr]


def test_scoring_again_compares_again(grid: Grid, run_cli: Callable[..., Any]) -> None:
    """Also records from before ratios were kept."""
    code, out, _ = run_cli("score", "--results", grid.store.root)
    assert code == 0
    assert "2 records scored again" in out
    (found,) = [each for each in grid.store.read_all()[0] if each.transfer is not None]
    assert found.transfer == grid.compared().transfer
    assert "0 changed" in run_cli("score", "--results", grid.store.root)[1]


# Tables and pages.


def test_the_table_has_the_ratio_with_its_ends(grid: Grid, run_cli: Callable[..., Any]) -> None:
    grid.store.write(grid.compared())
    _, out, _ = run_cli("table", grid.store.root, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    told = [row for row in rows if row["transfer_ratio"]]
    ratio = grid.compared().transfer.ratio  # type: ignore[union-attr]
    assert [(row["arm"], row["identified_on"], row["operating"]) for row in told] == [
        ("suppress", "letters", "True")
    ]
    ends = [float(told[0][f"transfer_ratio{end}"]) for end in ("", "_low", "_high")]
    assert ends == [ratio.value, ratio.low, ratio.high]  # type: ignore[union-attr]


def test_the_pages_show_it_beside_the_result_that_it_is_to(grid: Grid, tmp_path: Path) -> None:
    site = build_site([grid.own, grid.compared()], tmp_path / "site")
    ratio = grid.compared().transfer.ratio  # type: ignore[union-attr]
    text = f"[{ratio.low:.2f}, {ratio.high:.2f}]"  # type: ignore[union-attr]
    assert text in (tmp_path / "site" / "transfer.html").read_text()
    entries = [path.read_text() for path in site.entries.values()]
    assert sum("Transfer ratio" in page and text in page for page in entries) == 1


def test_an_interval_is_not_shown_beside_another_result(grid: Grid) -> None:
    """The page's own units are not those that the record was compared with: a value of what is shown."""
    other = grid.own.model_copy(
        update={"hashes": grid.own.hashes.model_copy(update={"predictions": "0" * 16})}
    )
    (model,) = transfer_board([summary_of(each) for each in (other, grid.compared())])
    (pair,) = [pair for pair in model.grids[0].pairs if not pair.own]
    assert pair.ratio is not None
    assert pair.ratio.low is None
    assert pair.ratio.value == pytest.approx(grid.compared().transfer.ratio.value)  # type: ignore[union-attr]
