"""Tables of words: those of Alice, as they are, and TextGrids in the forms that Praat and aligners write."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("praatio", reason="the extra `eeg` is not installed")

from affectbench.alignment.gathering import spoken
from affectbench.alignment.recorded import Line, placed_words
from affectbench.alignment.speech import pieces
from affectbench.alignment.tables import Spoken, completed, segment_starts, table_words, textgrid_words
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import RecordedEeg, TableWords, TextGridWords, WordColumns
from affectbench.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
ALICE = Path(os.environ.get("AFFECTBENCH_DATA", ROOT.parent / "shared" / "data")) / "alice"
CROSSING = {"8": "12", "31": "45", "41": "56", "53": "78", "67": "910", "74": "1011"}
COLUMNS = WordColumns(
    word="Word", onset="onset", offset="offset", segment="Segment", sentence="Sentence", order="Order"
)
HEADER = "Word,Segment,onset,offset,Order,Sentence\n"


def source(name: str) -> RecordedEeg:
    found = Registry(installed=False).alignment(name).source
    assert isinstance(found, RecordedEeg)
    return found


class TestAlice:
    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        if not ALICE.is_dir():
            pytest.skip(f"the tables of Alice are not in {ALICE}")

    @pytest.fixture
    def tables(self) -> tuple[list[Spoken], list[Spoken], Path]:
        own = source("alice")
        assert isinstance(own.words, TableWords)
        assert own.events is not None
        path = ALICE / "sub-001_task-alicelistening_events.tsv"
        words = table_words(ALICE / "AliceChapterOne-EEG.csv", own.words.columns)
        return words, table_words(path, own.events), path

    def test_the_short_table_is_completed_from_events(
        self, tables: tuple[list[Spoken], list[Spoken], Path]
    ) -> None:
        words, events, path = tables
        assert (len(words), len(events)) == (2106, 2129)
        starts = segment_starts(words, events, path)
        assert list(starts) == [str(number) for number in range(1, 13)]
        assert starts["1"] == pytest.approx(3.727, abs=1e-3)
        found = completed(words, events, starts)
        assert len(found) == 2129
        assert {46, 188, 211, 220, 489, 498, 674} <= {word.order for word in found}
        by_order = {event.order: event for event in events}
        for word in found:  # Events are rounded to samples of 2 ms.
            apart = starts[word.segment] + word.onset - by_order[word.order].onset
            assert abs(apart) < 0.0021

    def test_sentences_are_cut_where_the_sound_is(
        self, tables: tuple[list[Spoken], list[Spoken], Path]
    ) -> None:
        words, events, path = tables
        whole = completed(words, events, segment_starts(words, events, path))
        found = pieces(placed_words(whole, Line.of(whole, 0.8)))
        assert (len(found), len({piece.sentence for piece in found})) == (90, 84)
        parts = Counter(piece.sentence for piece in found)
        assert {sentence for sentence, count in parts.items() if count > 1} == set(CROSSING)
        for sentence, segments in CROSSING.items():
            assert "".join(p.segment for p in found if p.sentence == sentence) == segments
        lengths = sorted(piece.seconds for piece in found)
        assert (lengths[0], lengths[-1]) == (pytest.approx(0.5, abs=0.06), pytest.approx(22.9, abs=0.06))
        assert lengths[45] == pytest.approx(6.1, abs=0.3)

    def test_onsets_of_segments_taken_for_those_of_the_recording_are_an_error(
        self, tables: tuple[list[Spoken], list[Spoken], Path]
    ) -> None:
        words, events, path = tables
        shifted = [Spoken(e.text, e.onset % 60, e.duration, e.segment, e.sentence, e.order) for e in events]
        with pytest.raises(AffectbenchError, match="from where others of the segment put it"):
            segment_starts(words, shifted, path)


class TestTables:
    def write(self, folder: Path, rows: str, name: str = "words.csv") -> Path:
        path = folder / name
        path.write_text("﻿" + HEADER + rows, encoding="utf-8")
        return path

    def test_marks_quotes_and_numbers_of_other_programs(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, '"oh, dear",2.0,1.5,2.0,12.0,3.0\nAlice,1,0.1,0.6,1,1\nx,1,0,0,n/a,1\n')
        found = table_words(path, COLUMNS)
        assert found == [
            Spoken("Alice", 0.1, 0.5, "1", "1", 1), Spoken("oh, dear", 1.5, 0.5, "2", "3", 12),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("a,1,zero,1,1,1\n", r"line 2: onset is 'zero', not a number"),
            ("a,1,nan,1,1,1\n", r"line 2: onset is 'nan', not a number"),
            ("a,1,0,1,1,1\nb,1,1,0.5,2,1\n", r"line 3: 'b' lasts -0.5 s"),
            ("a,1,0,1,1,1\nb,1,1,2,1,1\n", r"line 3: word 1 was in line 2"),
            ("", "has no words"),
        ],
    )
    def test_a_bad_row_is_named(self, tmp_path: Path, rows: str, message: str) -> None:
        path = self.write(tmp_path, rows)
        with pytest.raises(AffectbenchError, match=message) as caught:
            table_words(path, COLUMNS)
        assert str(path) in str(caught.value)

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "a,1,0,1,1,1\n")
        with pytest.raises(AffectbenchError, match=r"no column 'Sentense'.*Sentence"):
            table_words(path, COLUMNS.model_copy(update={"sentence": "Sentense"}))

    def test_tables_that_name_other_segments(self, tmp_path: Path) -> None:
        one, other = Spoken("a", 0, 1, "1", "1", 1), Spoken("a", 9, 1, "2", "1", 1)
        with pytest.raises(AffectbenchError, match="in segment 2, in the table of words in 1"):
            segment_starts([one], [other], tmp_path / "events.tsv")


INTERVALS = (
    (0.0, 0.4, "sp"),
    (0.4, 0.9, "HE"),
    (0.9, 1.3, "WAS"),
    (1.3, 1.45, ""),
    (1.45, 1.9, 'A "NEW"'),
    (1.9, 2.3, "sil"),
    (2.3, 2.8, "OLD"),
    (2.8, 3.0, "sp"),
)


def long_form(intervals: tuple[tuple[float, float, str], ...] = INTERVALS, tier: str = "words") -> str:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", "xmax = 3",
             "tiers? <exists>", "size = 2", "item []:", "    item [1]:",
             '        class = "IntervalTier"', '        name = "phones"', "        xmin = 0",
             "        xmax = 3", "        intervals: size = 1", "        intervals [1]:",
             "            xmin = 0", "            xmax = 3", '            text = "HH"', "    item [2]:",
             '        class = "IntervalTier"', f'        name = "{tier}"', "        xmin = 0",
             "        xmax = 3", f"        intervals: size = {len(intervals)}"]  # fmt: skip
    for place, (start, end, label) in enumerate(intervals, start=1):
        text = label.replace('"', '""')
        lines += [f"        intervals [{place}]:", f"            xmin = {start}", f"            xmax = {end}",
                  f'            text = "{text}"']  # fmt: skip
    return "\n".join(lines) + "\n"


def short_form() -> str:
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", "3", "<exists>", "1",
             '"IntervalTier"', '"words"', "0", "3", str(len(INTERVALS))]  # fmt: skip
    for start, end, label in INTERVALS:
        text = label.replace('"', '""')
        lines += [str(start), str(end), f'"{text}"']
    return "\n".join(lines) + "\n"


class TestTextGrids:
    RULE = TextGridWords(kind="textgrid", path="{segment}", pause=0.3)

    @pytest.mark.parametrize(
        ("text", "encoding"),
        [(long_form(), "utf-8"), (short_form(), "utf-8"), (long_form(), "utf-16"),
         (long_form(tier="Words"), "utf-8")],
        ids=["long", "short", "utf-16", "case"],
    )  # fmt: skip
    def test_words_are_what_is_no_silence_and_sentences_end_at_pauses(
        self, tmp_path: Path, text: str, encoding: str
    ) -> None:
        path = tmp_path / "audio01.TextGrid"
        path.write_text(text, encoding=encoding)
        found = textgrid_words(path, "01", self.RULE, first=7)
        assert [(w.text, w.sentence, w.order) for w in found] == [
            ("HE", "01-001", 7), ("WAS", "01-001", 8), ('A "NEW"', "01-001", 9), ("OLD", "01-002", 10),
        ]  # fmt: skip
        assert [w.onset for w in found] == pytest.approx([0.4, 0.9, 1.45, 2.3])
        assert [w.duration for w in found] == pytest.approx([0.5, 0.4, 0.45, 0.5])

    def test_the_pause_is_the_tasks(self, tmp_path: Path) -> None:
        path = tmp_path / "a.TextGrid"
        path.write_text(long_form())
        for pause, count in ((0.1, 3), (0.4, 2), (0.5, 1)):
            rule = self.RULE.model_copy(update={"pause": pause})
            assert len({word.sentence for word in textgrid_words(path, "1", rule)}) == count

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (long_form(((0.0, 1.0, "A"), (0.8, 2.0, "B"))), "overlap"),
            (long_form()[:400], "cannot be read as a TextGrid"),
            ("hello", "cannot be read as a TextGrid"),
            (long_form(tier="word"), r"no tier 'words'.*word"),
            (long_form(((0.0, 3.0, "sp"),)), "has no words"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_file(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "audio01.TextGrid"
        path.write_text(text)
        with pytest.raises(AffectbenchError, match=message) as caught:
            textgrid_words(path, "01", self.RULE)
        assert str(path) in str(caught.value)

    def test_all_segments_of_ds004408_in_their_order(self, tmp_path: Path) -> None:
        own = source("ds004408")
        (tmp_path / "stimuli").mkdir()
        for number in (2, 1, 10):
            path = tmp_path / "stimuli" / f"audio{number:02d}.TextGrid"
            path.write_text(long_form())
        words = spoken(tmp_path, own, print)
        assert list(dict.fromkeys(word.segment for word in words)) == ["01", "02", "10"]
        assert [word.order for word in words] == list(range(1, 13))
        with pytest.raises(AffectbenchError, match=r"no file like stimuli/audio\{segment\}"):
            spoken(tmp_path / "stimuli", own, print)
