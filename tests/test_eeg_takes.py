"""Which recordings of a folder are of whom: sessions, runs, and when a sound began in each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from eeg_files import signal, write_brainvision

pytest.importorskip("mne_bids", reason="the extra `eeg` is not installed")

from affectbench.alignment.gathering import one_rate
from affectbench.alignment.listeners import Listener, found_listeners
from affectbench.alignment.readers import Header
from affectbench.alignment.tables import Spoken
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import RecordedEeg

WORDS = {"word": "word", "onset": "onset", "duration": "duration", "segment": "segment",
         "sentence": "sentence", "order": "order"}  # fmt: skip
SOURCE = {
    "reader": "recordings", "format": "bids", "task": "story", "sounds": "{segment}.wav",
    "words": {"kind": "textgrid", "path": "{segment}.TextGrid"},
}  # fmt: skip
HEARD = [Spoken("one", 0.5, 0.5, "1", "1", 1), Spoken("two", 1.0, 0.5, "2", "2", 2)]


def folder(root: Path, *recordings: str) -> Path:
    """A BIDS folder of recordings, each "SUBJECT/SESSION/RUN", that nobody opens."""
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    for recording in recordings:
        recording_path(root, recording).touch()
    return root


def recording_path(root: Path, recording: str) -> Path:
    entities = dict(zip(("sub", "ses", "run"), recording.split("/"), strict=True))
    named = [f"{key}-{value}" for key, value in entities.items() if value]
    place = root.joinpath(*[each for each in named if not each.startswith("run")], "eeg")
    place.mkdir(parents=True, exist_ok=True)
    task = [*[each for each in named if not each.startswith("run")], "task-story"]
    return place / ("_".join([*task, *[each for each in named if each.startswith("run")]]) + "_eeg.vhdr")


def listeners(root: Path, notes: list[str] | None = None, **changes: Any) -> list[Listener]:
    source = RecordedEeg.model_validate(SOURCE | changes)
    return found_listeners(root, source, HEARD, (notes if notes is not None else []).append)


def files(listener: Listener) -> list[str]:
    return [path.name.removesuffix("_task-story_eeg.vhdr") for path in listener.files]


class TestSessions:
    def test_a_subject_is_one_listener_whatever_sessions_there_are(self, tmp_path: Path) -> None:
        folder(tmp_path, "b/1/1", "b/1/2", "a/2/2", "a/1/1")
        a, b = listeners(tmp_path)
        assert (a.name, b.name) == ("a", "b")
        assert [path.relative_to(tmp_path).as_posix() for path in a.files] == [
            "sub-a/ses-1/eeg/sub-a_ses-1_task-story_run-1_eeg.vhdr",
            "sub-a/ses-2/eeg/sub-a_ses-2_task-story_run-2_eeg.vhdr",
        ]
        assert a.starts == b.starts == {"1": (0, 0.0), "2": (1, 0.0)}

    def test_a_segment_that_was_heard_twice_asks_which_session_counts(self, tmp_path: Path) -> None:
        folder(tmp_path, "a/1/1", "a/1/2", "a/2/1", "a/2/2", "b/1/1", "b/1/2")
        with pytest.raises(AffectbenchError, match=r"subject a heard segment 1 in .*ses-1.* and in .*ses-2"):
            listeners(tmp_path)
        notes: list[str] = []
        (only,) = listeners(tmp_path, notes, sessions=["2"])
        assert all("ses-2" in path.name for path in only.files)
        assert notes == ["subject b is left out: it has no recording of session 2"]
        assert len(listeners(tmp_path, sessions=["1"])) == 2

    def test_two_recordings_that_differ_in_something_else_are_named(self, tmp_path: Path) -> None:
        folder(tmp_path, "a/1/1", "a/1/2")
        path = recording_path(tmp_path, "a/1/1")
        path.with_name(path.name.replace("_run", "_acq-low_run")).touch()
        with pytest.raises(AffectbenchError, match=r"subject a: .*acq-low.* and .* of one session and run"):
            listeners(tmp_path)

    def test_events_of_every_session_tell_its_segments(self, tmp_path: Path) -> None:
        folder(tmp_path, "a/1/", "a/2/")
        header = "\t".join(WORDS.values())
        for session, segment, onset in (("1", "2", 7.25), ("2", "1", 3.5)):
            path = recording_path(tmp_path, f"a/{session}/")
            row = f"w\t{onset}\t0.5\t{segment}\t{segment}\t{segment}"
            path.with_name(path.name.replace("_eeg.vhdr", "_events.tsv")).write_text(f"{header}\n{row}\n")
        (only,) = listeners(tmp_path, events=WORDS)
        assert only.starts == {"2": (0, 6.25), "1": (1, 3.0)}

    def test_files_of_a_pattern(self, tmp_path: Path) -> None:
        for name in ("a-x-1.vhdr", "a-y-2.vhdr", "b-x-1.vhdr", "b-x-2.vhdr", "c-x-1.vhdr", "d.vhdr"):
            (tmp_path / name).touch()
        notes: list[str] = []
        found = listeners(tmp_path, notes, format="files", files="{subject}-{session}-{run}.vhdr")
        assert [(each.name, [path.name for path in each.files]) for each in found] == [
            ("a", ["a-x-1.vhdr", "a-y-2.vhdr"]), ("b", ["b-x-1.vhdr", "b-x-2.vhdr"]),
        ]  # fmt: skip
        assert notes == ["subject c is left out: it has not heard segment 2, or nothing says when"]

    def test_sessions_need_a_place_in_the_pattern(self) -> None:
        with pytest.raises(ValueError, match=r"has no .session. in it"):
            RecordedEeg.model_validate(SOURCE | {"format": "files", "files": "{subject}", "sessions": ["1"]})


def test_recordings_of_one_listener_need_one_rate(tmp_path: Path) -> None:
    """They are joined on one line of time."""
    listener = Listener("a", tmp_path, (tmp_path / "1.edf", tmp_path / "2.edf"), {})
    headers = {"a": [Header(("Cz",), ("eeg",), (True,), rate, 9.0) for rate in (500.0, 512.0)]}
    own = RecordedEeg.model_validate(SOURCE)
    with pytest.raises(
        AffectbenchError, match=r"2\.edf has 512 Hz, and 1\.edf of the same listener 500"
    ) as caught:
        one_rate([listener], headers, own)
    assert "handling.rate" in (caught.value.hint or "")
    one_rate([listener], headers, RecordedEeg.model_validate(SOURCE | {"handling": {"rate": 100.0}}))


class TestMarks:
    """A sound begins at a mark: what amplifiers record where nobody wrote a table."""

    @pytest.fixture
    def marked(self, tmp_path: Path) -> Path:
        for run in ("1", "2"):
            write_brainvision(tmp_path / f"a-{run}.vhdr", signal())
        return tmp_path

    def test_start_counts_from_the_mark(self, marked: Path) -> None:
        by = {"format": "files", "files": "{subject}-{run}.vhdr"}
        (only,) = listeners(marked, mark="Stimulus/S  2", start=0.25, **by)
        assert only.starts == {"1": (0, pytest.approx(2.75)), "2": (1, pytest.approx(2.75))}

    def test_a_mark_that_is_not_there_once_leaves_the_subject_out(self, marked: Path) -> None:
        by = {"format": "files", "files": "{subject}-{run}.vhdr"}
        notes: list[str] = []
        with pytest.raises(AffectbenchError, match="no recording that can be used"):
            listeners(marked, notes, mark="S  2", **by)
        assert "a-1.vhdr has 0 marks 'S  2', not one" in notes[0]
        assert "'Stimulus/S  1', 'Stimulus/S  2'" in notes[0]

    def test_events_or_a_mark(self) -> None:
        with pytest.raises(ValueError, match="events say when sounds start"):
            RecordedEeg.model_validate(SOURCE | {"events": WORDS, "mark": "S"})
