"""What the boards say: comparisons, ranks, overall means, overlaps, and the data that the script gets."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from example_records import example_record, failed, renamed, with_spec

from affectbench.record import Record
from affectbench.score_models import Estimate
from affectbench.site_board import boards_script, cells_board, overall_board
from affectbench.site_data import calibration_board, groups, ranks
from affectbench.site_format import number, slug, spread
from affectbench.site_overall import overall
from affectbench.site_overlap import overlaps
from affectbench.site_static import static_table
from affectbench.site_summary import Summary, summary_of


def summaries(*records: Record) -> list[Summary]:
    return [summary_of(record) for record in records]


def test_ranks_share_the_place_of_the_first_row_they_overlap() -> None:
    def estimates(*triples: tuple[float, float, float]) -> list[Estimate]:
        return [Estimate(value=v, low=low, high=high) for low, v, high in triples]

    assert ranks([]) == []
    assert ranks(estimates((0.4, 0.5, 0.6), (0.3, 0.45, 0.5), (0.1, 0.2, 0.39))) == [1, 1, 3]
    # the third overlaps the second but not the first, so it starts a rank of its own
    assert ranks(estimates((0.5, 0.6, 0.7), (0.3, 0.5, 0.6), (0.2, 0.35, 0.45))) == [1, 1, 3]
    # touching is overlapping
    assert ranks(estimates((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))) == [1, 1]


def test_rows_are_ranked_only_within_equal_task_model_and_protocol_hashes() -> None:
    base = example_record(bootstrap_draws=100)
    best = with_spec(renamed(base, selector="best"), 0.7, 0.8, 0.9)
    worse = with_spec(renamed(base, selector="worse"), 0.1, 0.2, 0.3)
    hashes = base.hashes.model_copy(update={"task": "another"})
    elsewhere = with_spec(renamed(base, selector="elsewhere"), 0.0, 0.1, 0.2).model_copy(
        update={"hashes": hashes}
    )
    board = groups(summaries(worse, elsewhere, best))
    placed = [[(row.record.cell.selector, row.rank) for row in group.rows] for group in board]
    assert sorted(placed) == [[("best", 1), ("worse", 2)], [("elsewhere", 1)]]


def test_controls_oracles_and_insignificant_rows_have_no_rank_and_say_why() -> None:
    base = with_spec(example_record(bootstrap_draws=100), 0.7, 0.8, 0.9)
    control = renamed(base, selector="random").model_copy(update={"control": True})
    weak = with_spec(renamed(base, selector="weak"), -0.1, 0.1, 0.3, significant=False)
    oracle = renamed(base, selector="oracle", targeting="oracle")
    broken = failed(renamed(base, selector="broken"), "error", "the selector ran out of memory")
    rows = {
        row.record.cell.selector: row
        for group in groups(summaries(control, weak, oracle, broken, base))
        for row in group.rows
    }
    assert rows[base.cell.selector].rank == 1
    reasons = {name: row.unranked for name, row in rows.items() if row.rank is None}
    assert set(reasons) == {"random", "weak", "oracle", "broken"}
    assert "control" in reasons["random"]
    assert "not significant" in reasons["weak"]
    assert "gold label" in reasons["oracle"]
    assert "ran out of memory" in reasons["broken"]


def test_calibration_cells_give_the_range_where_records_disagree() -> None:
    one = example_record("reference-text", "mad", bootstrap_draws=100)
    assert one.calibration is not None
    other = renamed(one, seed=5).model_copy(
        update={"calibration": one.calibration.model_copy(update={"auroc": 0.25, "decoy_auroc": None})}
    )
    board = calibration_board(summaries(one, other, example_record("small-text", "mad", bootstrap_draws=100)))
    assert board is not None
    assert board.columns == [("reference-text", "reference-text")]
    cell = board.rows[0][2][0]
    assert cell is not None
    assert spread(cell.auroc) == f"0.250 to {one.calibration.auroc:.3f}"
    assert len(cell.decoy_auroc) == 1
    assert calibration_board(summaries(example_record("small-text", bootstrap_draws=100))) is None


def two_models(*names: str) -> list[Record]:
    """Each method on two models, with a specificity that falls in the order of the names."""
    found = []
    for place, name in enumerate(names):
        for model in ("small-text", "small-audio"):
            record = renamed(example_record(model, "mad", bootstrap_draws=100), selector=name)
            value = 0.8 - 0.3 * place
            found.append(with_spec(record, value - 0.1, value, value + 0.1))
    return found


def test_overall_means_run_over_all_comparisons_or_there_are_none() -> None:
    records = [*two_models("best", "worse"), two_models("half")[0]]
    board = overall(groups(summaries(*records)))
    found = {standing.method: standing for standing in board.standings}
    assert [standing.rank for standing in board.standings] == [1, 2, None]
    best = found["best"].spec
    assert best is not None
    assert (best.low, best.value, best.high) == pytest.approx((0.7, 0.8, 0.9))
    assert found["half"].spec is found["half"].strength is found["half"].pres is None
    assert found["half"].problem == "partial: scored in 1 of 2"


def test_overall_leaves_failed_cells_versions_and_controls_out_and_says_so() -> None:
    records = two_models("fine", "broken", "mixed", "control")
    records[3] = failed(records[3], "error", "out of memory")
    hashes = records[5].hashes.model_copy(update={"selector": "another"})
    records[5] = records[5].model_copy(update={"hashes": hashes})
    records[6:] = [record.model_copy(update={"control": True}) for record in records[6:]]
    found = {standing.method: standing for standing in overall(groups(summaries(*records))).standings}
    assert [found[name].rank for name in ("fine", "broken", "mixed", "control")] == [1, None, None, None]
    assert found["broken"].spec is found["mixed"].spec is None
    assert "partial" in found["broken"].problem
    assert "2 versions" in found["mixed"].problem
    assert found["control"].spec is not None
    assert "control" in found["control"].problem


def test_a_method_whose_mean_interval_holds_zero_is_not_ranked() -> None:
    record = with_spec(example_record(bootstrap_draws=100), -0.1, 0.1, 0.3)
    standing = overall(groups(summaries(record))).standings[0]
    assert standing.rank is None
    assert "not above 0" in standing.problem


def test_overlaps_are_those_of_the_units_listed() -> None:
    base = example_record(bootstrap_draws=100)
    assert base.selection is not None
    lists = {"one": "0 1 2 3", "two": "2 3 4 5", "three": "9", "none": ""}
    records = []
    for name, units in lists.items():
        counts = [len(units.split())] * 7
        part = base.selection.model_copy(update={"units": [units] * 7, "units_per_emotion": counts})
        records.append(renamed(base, selector=name).model_copy(update={"selection": part}))
    found = overlaps(groups(summaries(*records))[0])
    place = {record.cell.selector: index for index, record in enumerate(found.records)}
    jaccard = found.jaccard[place["one"]]
    assert jaccard[place["two"]] == pytest.approx(2 / 6)
    assert jaccard[place["three"]] == jaccard[place["none"]] == 0
    assert found.jaccard[place["none"], place["none"]] != found.jaccard[place["none"], place["none"]]
    assert found.nearest(place["one"])[0] == place["two"]
    assert place["one"] not in found.nearest(place["one"])
    units = base.model.n_layers * base.model.width
    shared = 4 * 4 / units
    assert found.chance[place["one"], place["two"]] == pytest.approx(shared / (8 - shared))


def test_the_script_gets_the_numbers_of_the_records_in_thousandths() -> None:
    record = with_spec(example_record(bootstrap_draws=100), -0.0004, 0.4996, 0.99951)
    broken = failed(renamed(record, selector="broken"), "error", "out of memory")
    board = cells_board(groups(summaries(broken, record)))
    columns = {column.key: column.data for column in board.columns}
    assert columns["spec"]["v"] == [500, None]
    assert (columns["spec"]["lo"][0], columns["spec"]["hi"][0]) == (0, 1000)
    assert board.kinds == [0, 2]
    assert board.digests == "".join(row.id[-8:] for row in groups(summaries(broken, record))[0].rows)
    status = columns["status"]
    assert status["why"]["d"][status["why"]["i"][1]] == "out of memory"
    text = boards_script([board])
    payload = json.loads(text.removeprefix("window.affectbenchBoards=").removesuffix(";\n"))
    sent = {column["key"]: column["data"] for column in payload["cells"]["columns"]}
    for data in sent.values():  # The ends of intervals are sent as distances from the value.
        if "lo" in data:
            ends = zip(data["v"], data["lo"], data["hi"], strict=True)
            whole = [(None, None) if low is None else (v - low, v + high) for v, low, high in ends]
            data["lo"], data["hi"] = (list(side) for side in zip(*whole, strict=True))
    assert sent == columns


def test_static_rows_say_what_the_script_would_draw() -> None:
    record = example_record(bootstrap_draws=100)
    assert record.headline is not None
    table = static_table(cells_board(groups(summaries(record))))
    row = dict(zip(table.titles, table.rows[0][1], strict=True))
    spec = record.headline.spec
    assert row["Specificity"] == f"{number(spec.value)} [{number(spec.low)}, {number(spec.high)}]"
    assert row["Method"] == "mad"
    assert row["Status"].startswith("ok")


def test_a_board_of_many_comparisons_hides_their_columns_at_first() -> None:
    record = example_record(bootstrap_draws=100)
    for number_of in (8, 9):
        many = [renamed(record, seed=seed) for seed in range(number_of)]
        columns = overall_board("overall", overall(groups(summaries(*many)))).columns
        assert [c.shown for c in columns if c.key.startswith("g")] == [number_of == 8] * number_of


def test_columns_of_comparisons_are_told_apart_by_what_differs() -> None:
    record = example_record(bootstrap_draws=100)
    several = [record, renamed(record, intervention="ablate"), renamed(record, intervention="ablate", seed=1)]
    columns = overall_board("overall", overall(groups(summaries(*several)))).columns
    own = f"{record.cell.model} · {record.cell.task}"
    titles = {column.title for column in columns if column.key.startswith("g")}
    assert titles == {f"{own} · {rest}" for rest in ("gain · seed 0", "ablate · seed 0", "ablate · seed 1")}
    (alone,) = [c for c in overall_board("o", overall(groups(summaries(record)))).columns if c.key == "g0"]
    assert alone.title == own


def test_a_row_takes_little_so_that_ten_thousand_stay_light() -> None:
    rng = np.random.default_rng(0)
    base = summary_of(with_spec(example_record(bootstrap_draws=100), 0.1, 0.2, 0.3))
    assert base.headline is not None
    many = []
    for index in range(2000):
        cell = base.cell.model_copy(update={"selector": f"method-{index % 100}", "seed": index // 100})
        low, value, high = sorted(rng.random(3).tolist())
        spec = Estimate(value=value, low=low, high=high)
        headline = base.headline.model_copy(update={"spec": spec, "strength": spec, "spec_amplify": spec})
        digest = hashlib.sha256(str(index).encode()).hexdigest()[:8]
        many.append(base.model_copy(update={"id": f"x__{digest}", "cell": cell, "headline": headline}))
    board = groups(many)
    script = boards_script([cells_board(board), overall_board("overall", overall(board))])
    assert len(script.encode()) < 145 * 2000


def test_names_of_files_are_safe_and_differ() -> None:
    assert slug("reference-text") == "reference-text"
    odd = ["a/b", "a b", "A b", "../x", "", "é", "con" * 40]
    assert len({slug(name) for name in odd}) == len(odd)
    assert all(set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in odd)
