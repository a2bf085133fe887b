"""What the site says of the answer-word control: a column beside specificity, a mark, both matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from example_records import example_record

from affectbench.leaderboard import build_site
from affectbench.record import Record, cell_id
from affectbench.score_models import Estimate, WordConfound
from affectbench.site_board import cells_board
from affectbench.site_data import groups
from affectbench.site_entry import entry
from affectbench.site_format import number
from affectbench.site_summary import summary_of


def with_confound(record: Record, low: float, value: float, high: float) -> Record:
    assert record.word_confound is not None
    ratio = Estimate(value=value, low=low, high=high)
    return record.model_copy(
        update={"word_confound": record.word_confound.model_copy(update={"suppress": ratio})}
    )


def columns(*records: Record) -> dict[str, Any]:
    board = cells_board(groups([summary_of(record) for record in records]))
    assert [column.key for column in board.columns][4:6] == ["spec", "word"]
    return {column.key: column for column in board.columns}


def test_the_ratio_stands_beside_specificity_and_a_high_one_is_marked() -> None:
    record = example_record(bootstrap_draws=100)
    for low, marked in ((0.51, True), (0.49, False)):
        found = columns(with_confound(record, low, 0.8, 1.1))
        assert (found["word"].data["v"], found["word"].data["lo"]) == ([800], [round(1000 * low)])
        assert found["word"].shown
        assert found["status"].data["flags"]["d"] == (["word"] if marked else [""])


def test_without_any_ratio_the_column_is_hidden() -> None:
    record = example_record("small-audio", bootstrap_draws=100)
    assert record.word_confound is None
    assert not columns(record)["word"].shown


def test_an_entry_shows_both_matrices_on_one_scale_of_colours(tmp_path: Path) -> None:
    record = with_confound(example_record(selector="lap", bootstrap_draws=100), 0.6, 0.9, 1.2)
    assert record.answer_words is not None
    shown = entry(record).words
    assert (shown[0].arm, shown[0].control, shown[0].high) == ("suppress", record.answer_words.doses[0], True)
    site = build_site([record], tmp_path / "site")
    page = (site.index.parent / "entries" / f"{cell_id(record.cell)}.html").read_text(encoding="utf-8")
    assert "Emotion, or only the word?" in page
    assert f"<b>word confound {number(0.9)}</b> [{number(0.6)}, {number(1.2)}]" in page
    assert all(name in page for name in ("words-suppress-t", "words-suppress-w"))


def test_an_entry_without_a_ratio_says_why(tmp_path: Path) -> None:
    reason = "not able: UAR 0.143 on the control without intervention, 0.571 needed"
    record = example_record(bootstrap_draws=100).model_copy(
        update={"word_confound": WordConfound(uar=0.143, bar=0.571, reason=reason), "answer_words": None}
    )
    assert entry(record).words == []
    site = build_site([record], tmp_path / "site")
    page = (site.index.parent / "entries" / f"{cell_id(record.cell)}.html").read_text(encoding="utf-8")
    assert f"No ratio: {reason}." in page
