"""Recordings of people against models: a BIDS folder of listeners that the test makes, end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from e2e_content import Outcome, run_cli  # noqa: F401

pytest.importorskip("mne_bids", reason="the extra `eeg` is not installed")

from eeg_folder import RATE, RUNS, SHIFT, heard_by_reference, task, write_folder, write_runs

from affectbench.alignment.features import States
from affectbench.alignment.gathering import recorded_ground
from affectbench.alignment.grid import interval_means
from affectbench.alignment.head import head_model
from affectbench.alignment.recorded import MARGIN
from affectbench.alignment.series import cleaned
from affectbench.alignment.simulation import Plant, simulated
from affectbench.alignment.story import Story, reference_story
from affectbench.alignment_task import AlignmentTask
from affectbench.analysis import AnalysisStore
from affectbench.errors import AffectbenchError
from affectbench.large_files import SMALL
from affectbench.leaderboard import build_site
from affectbench.site_alignment import intervention_boards

SUBJECTS, PLANT = 3, Plant(point=3, lag=0.3, snr=3.0)


@pytest.fixture(scope="module")
def story() -> Story:
    return reference_story(16, segments=2, seed=1)


@pytest.fixture(scope="module")
def states(story: Story) -> list[States]:
    return heard_by_reference(story)


@pytest.fixture(scope="module")
def made(story: Story, states: list[States], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of data with the folder ``story``."""
    root = tmp_path_factory.mktemp("data")
    write_folder(root / "story", story, states, PLANT, SUBJECTS)
    return root


@pytest.fixture(scope="module")
def runs(story: Story, states: list[States], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a recording a sound, as ds004408."""
    root = tmp_path_factory.mktemp("runs")
    write_runs(root / "story", story, states, PLANT, SUBJECTS)
    return root


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def ground_of(data: Path, notes: list[str] | None = None, **changes: Any) -> Any:
    asked = AlignmentTask.model_validate(task(**changes))
    return recorded_ground(asked, data / "story", (notes if notes is not None else []).append)


def source(**changes: Any) -> dict[str, Any]:
    return {"source": task()["source"] | changes}


class TestGround:
    def test_all_words_and_pieces_are_there_and_who_is_left_out_is_told(
        self, made: Path, story: Story
    ) -> None:
        notes: list[str] = []
        ground = ground_of(made, notes)
        assert ground.subjects == ["001", "002", "003"]
        assert any("090 is left out: it has no sub-090_task-story_events.tsv" in note for note in notes)
        assert any("091 is left out: analyzed is 'no'" in note for note in notes)
        assert any("2 words are in the events of 001 alone" in note for note in notes)
        assert len(ground.words) == len(story.words)
        assert [p.sentence for p in ground.pieces] == [str(int(p.sentence[1:])) for p in story.pieces]
        for ours, theirs in zip(ground.pieces, story.pieces, strict=True):
            assert ours.heard == pytest.approx(theirs.heard, abs=1e-6)
            sound = ours.sound(ground.sounds[ours.segment])
            np.testing.assert_allclose(sound, theirs.sound(story.sounds[theirs.segment]), atol=1e-6)

    def test_every_listener_is_cut_where_the_piece_was_heard(self, made: Path, story: Story) -> None:
        """The oracle: the simulated recording itself, cleaned whole and read at the story's own times."""
        ground = ground_of(made, **source(handling={"montage": "easycap-M10"}))
        for subject in range(SUBJECTS):
            found = ground.recording(subject)
            assert found.clean
            assert found.names == head_model().names
            assert len(found.breaks) == 1
            raw = ground.listeners[subject].read(0, ground.source)
            whole = cleaned(raw, (0.5, 20.0))
            for ours, theirs in zip(ground.pieces, story.pieces, strict=True):
                mine = interval_means(found.data, RATE, ours.start, 8, 12.5).ravel()
                start = theirs.start - subject * SHIFT
                there = [
                    np.corrcoef(mine, interval_means(whole.data, RATE, start + late, 8, 12.5).ravel())[0, 1]
                    for late in (-0.02, 0.0, 0.02)
                ]
                # A stretch begins at the nearest sample, at most 5 ms off.
                assert there[1] > 0.97
                assert there[1] > max(there[0], there[2])

    def test_recordings_are_in_volts_and_not_mixed_up(self, made: Path, story: Story) -> None:
        ground = ground_of(made)
        one = simulated(story, None, PLANT, head_model(), subject=0, seed=5, rate=RATE)
        found = ground.listeners[0].read(0, ground.source)
        assert found.data.std() == pytest.approx(one.data.std(), rel=0.5)
        veog = found.names.index("VEOG")
        others = [ground.listeners[n].read(0, ground.source).data[veog, :500] for n in (1, 2)]
        assert all(np.abs(found.data[veog, :500] - other).max() > 1e-6 for other in others)

    def test_stretches_have_margins_and_lie_one_behind_the_other(self, made: Path) -> None:
        ground = ground_of(made)
        first, second = ground.line.starts
        assert ground.line.starts[first] == MARGIN
        gap = ground.line.starts[second] - ground.line.starts[first] - ground.line.lengths[first]
        assert gap == pytest.approx(2 * MARGIN)
        last = {segment: max(p.heard + p.seconds for p in ground.pieces if p.segment == segment)
                for segment in (first, second)}  # fmt: skip
        assert all(ground.line.lengths[each] >= last[each] + 0.8 - 1e-9 for each in last)

    def test_the_digest_follows_the_files(self, data: Path) -> None:
        before = ground_of(data).digest
        assert ground_of(data).digest == before
        events = next((data / "story" / "sub-002").rglob("*_events.tsv"))
        events.write_text(events.read_text() + "\n", encoding="utf-8")
        later = ground_of(data).digest
        assert later != before
        signal = next((data / "story" / "sub-001").rglob("*_eeg.eeg"))
        assert signal.stat().st_size > SMALL
        with signal.open("r+b") as file:  # One sample in the middle.
            file.seek(signal.stat().st_size // 8 * 4)
            file.write(b"\0\0\0\0")
        assert ground_of(data).digest != later


class TestRuns:
    """A recording a sound, words in TextGrids, no events, no sentences: as ds004408."""

    def test_pauses_make_the_sentences_and_every_run_is_a_segment(self, runs: Path, story: Story) -> None:
        ground = ground_of(runs, source=RUNS)
        assert ground.subjects == ["001", "002", "003"]
        assert list(ground.line.starts) == ["1", "2"]
        assert [len(each.files) for each in ground.listeners] == [2, 2, 2]
        assert len(ground.pieces) == len(story.pieces)
        for ours, theirs in zip(ground.pieces, story.pieces, strict=True):
            assert [word.text for word in ours.words] == [word.text for word in theirs.words]
            assert ours.heard == pytest.approx(theirs.heard, abs=1e-6)

    def test_they_are_what_one_long_recording_is(self, runs: Path, made: Path) -> None:
        """The oracle: the same listeners in one file each, timed by events."""
        handling = {"montage": "easycap-M10", "bad": "none"}
        apart = ground_of(runs, source=RUNS | {"handling": handling})
        whole = ground_of(made, **source(handling=handling))
        ours, theirs = apart.recording(1), whole.recording(1)
        for one, other in zip(apart.pieces[1:], whole.pieces[1:], strict=True):
            if one.heard < 1.0:  # A run has nothing before its sound to filter with.
                continue
            mine = interval_means(ours.data, RATE, one.start, 8, 12.5).ravel()
            there = interval_means(theirs.data, RATE, other.start, 8, 12.5).ravel()
            assert np.corrcoef(mine, there)[0, 1] > 0.95

    def test_a_subject_without_a_run_is_left_out(self, runs: Path, tmp_path: Path) -> None:
        shutil.copytree(runs, tmp_path / "data")
        for path in (tmp_path / "data" / "story" / "sub-002").rglob("*run-2*"):
            path.unlink()
        notes: list[str] = []
        assert ground_of(tmp_path / "data", notes, source=RUNS).subjects == ["001", "003"]
        assert any("002 is left out: it has not heard segment 2" in note for note in notes)

    def test_in_sessions_they_are_the_same_listeners(
        self, runs: Path, story: Story, states: list[States], tmp_path: Path
    ) -> None:
        write_runs(tmp_path / "story", story, states, PLANT, 2, sessions=True)
        ours, theirs = ground_of(tmp_path, source=RUNS), ground_of(runs, source=RUNS)
        assert ours.subjects == ["001", "002"]
        for each in ours.listeners:
            assert [path.parent.parent.name for path in each.files] == ["ses-day1", "ses-day2"]
        np.testing.assert_array_equal(ours.recording(1).data, theirs.recording(1).data)

    def test_files_of_a_pattern_instead_of_bids(self, runs: Path) -> None:
        """Types are then not declared: the sound on Aux5 must be."""
        files = {"format": "files", "files": "sub-{subject}/eeg/sub-{subject}_task-story_run-{run}_eeg.vhdr"}
        with pytest.raises(AffectbenchError, match="'VEOG' is EEG by type"):
            ground_of(runs, source=RUNS | files).recording(0)
        handling = RUNS["handling"] | {"channels": {"VEOG": "eog", "Aux5": "misc"}}
        found = ground_of(runs, source=RUNS | files | {"handling": handling})
        assert found.channels == head_model().names
        theirs = ground_of(runs, source=RUNS)
        np.testing.assert_array_equal(found.recording(2).data, theirs.recording(2).data)


class TestTraps:
    def test_onsets_of_the_segment_taken_for_those_of_the_recording(self, data: Path) -> None:
        """What the released code of the paper did: whole segments collapse onto the first minute."""
        events = next((data / "story" / "sub-001").rglob("*_events.tsv"))
        lines = events.read_text(encoding="utf-8").splitlines()
        halved = [lines[0]]
        for line in lines[2:]:
            cells = line.split("\t")
            halved.append("\t".join([str(float(cells[0]) / 2), *cells[1:]]))
        events.write_text("\n".join(halved), encoding="utf-8")
        with pytest.raises(AffectbenchError, match="from where others of the segment put it") as caught:
            ground_of(data)
        assert str(events) in str(caught.value)
        assert "start of the recording" in (caught.value.hint or "")

    def test_a_sound_that_ends_before_its_words(self, data: Path) -> None:
        samples, rate = soundfile.read(data / "story/stimuli/part1.wav")
        soundfile.write(data / "story/stimuli/part1.wav", samples[: rate * 5], rate)
        with pytest.raises(AffectbenchError, match=r"part1\.wav lasts 5\.00 s, but its word"):
            ground_of(data)

    def test_a_recording_that_stops_early_is_left_out_and_not_its_pieces(self, data: Path) -> None:
        header = next((data / "story" / "sub-003").rglob("*.vhdr"))
        signal = header.with_suffix(".eeg")
        size = signal.stat().st_size
        frame = 4 * 62
        signal.write_bytes(signal.read_bytes()[: size // 2 // frame * frame])
        notes: list[str] = []
        ground = ground_of(data, notes)
        assert ground.subjects == ["001", "002"]
        assert any("003 is left out: its recordings lack" in note for note in notes)
        assert not ground.left_out

    def test_a_recording_that_cannot_be_prepared_is_named(self, made: Path) -> None:
        handling = {"montage": "easycap-M10", "reference": ["M1"]}
        with pytest.raises(AffectbenchError, match=r"subject 002, sub-002_.*\.vhdr: .*'M1'") as caught:
            ground_of(made, **source(handling=handling)).recording(1)
        assert "leave_out" in (caught.value.hint or "")

    def test_a_column_of_participants_that_an_old_version_lacks(self, data: Path) -> None:
        (data / "story/participants.tsv").write_text("participant_id\tage\nsub-001\t20\n")
        with pytest.raises(AffectbenchError, match="no column 'analyzed'") as caught:
            ground_of(data)
        assert "newest version" in (caught.value.hint or "")
        (data / "story/participants.tsv").write_text("")
        with pytest.raises(AffectbenchError, match="no column 'participant_id'"):
            ground_of(data)
        (data / "story/participants.tsv").unlink()
        with pytest.raises(AffectbenchError, match=r"no table of subjects .*participants\.tsv") as caught:
            ground_of(data)
        assert "`participants`" in (caught.value.hint or "")

    def test_an_electrode_of_unknown_place_asks_for_a_montage(self, made: Path) -> None:
        with pytest.raises(AffectbenchError, match="nothing says where electrode '1' is") as caught:
            ground_of(made, **source(handling={}))
        assert "montage" in (caught.value.hint or "")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"task": "rest"}, "no recording of task 'rest'"),
            ({"sounds": "stimuli/song{segment}.wav"}, "song1.wav: the sound file is missing"),
            ({"leave_out": ["001", "002", "003"]}, "no recording that can be used"),
        ],
    )
    def test_what_is_not_there_is_named(self, made: Path, change: dict[str, Any], message: str) -> None:
        with pytest.raises(AffectbenchError, match=message):
            ground_of(made, **source(**change))


def own_task(root: Path, **changes: object) -> None:
    """The folder's task in a content folder."""
    path = root / "tasks" / "alignments" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(task(**changes)))


class TestCommand:
    @pytest.mark.slow
    def test_a_planted_lag_and_layer_are_found_in_files(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        made: Path,
        tmp_path: Path,
    ) -> None:
        own_task(tmp_path)
        ask = ("align", "mine", "--include", tmp_path, "--output", tmp_path / "out", "--data", made)
        code, said, complaint = run_cli(*ask)
        assert code == 0, complaint
        assert "091 is left out" in said
        (file,) = (tmp_path / "out" / "analyses").glob("*.json")
        record = json.loads(file.read_text())
        assert record["kind"] == "eeg-alignment"
        assert record["n"] == {"models": 1, "subjects": 3, "pieces": 16}
        assert set(record["hashes"]["inputs"]) == {"task", "recordings", "model-0"}
        assert (record["settings"]["site"], record["settings"]["mode"]) == ("residual", "sound")
        assert "EEG was filtered from 0.5 to 20 Hz, with a notch at no frequency." in record["notes"]
        (table,) = [each for each in record["tables"] if each["name"] == "models"]
        for name, _, effect, _, lag, _ in table["rows"]:
            assert lag == pytest.approx(PLANT.lag, abs=0.051), name
            assert effect["value"] > 0.02
        (matrix,) = [each for each in record["matrices"] if each["name"].startswith("lag-layer")]
        values = np.array(matrix["values"])
        assert abs(int(values.max(axis=0).argmax()) - PLANT.point) <= 1
        _, said, _ = run_cli(*ask)
        assert "was finished before and kept" in said

    @pytest.mark.slow
    def test_units_are_switched_off_by_weak_labels(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        made: Path,
        tmp_path: Path,
    ) -> None:
        own_task(tmp_path, affect="weak")
        ask = ("align", "mine", "--include", tmp_path, "--output", tmp_path / "out", "--data", made)
        code, _, complaint = run_cli(*ask, "--study", "intervention", "--selector", "magnitude")
        assert code == 0, complaint
        (record,), _ = AnalysisStore(tmp_path / "out").read_all()
        assert record.settings["affect"] == "weak"
        assert record.n == {"subjects": 3, "pieces": 16, "affective": 6, "neutral": 6, "draws": 20}
        (board,) = intervention_boards([record])
        assert (board.weak, board.simulated) == (True, False)
        (row,) = board.rows
        assert row.beyond is not None
        assert row.p("p, emotions") is None
        build_site([], tmp_path / "site", analyses=[record])
        assert "Nobody labelled this speech" in (tmp_path / "site" / "alignment.html").read_text()

    @pytest.mark.slow
    def test_mode_paper_of_the_same_folder_is_told_from_ours(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        made: Path,
        tmp_path: Path,
    ) -> None:
        own_task(tmp_path, mode="paper", band=[0.5, 20.0], metrics=["rsa_spearman", "cka_linear", "rv"])
        ask = ("align", "mine", "--include", tmp_path, "--output", tmp_path / "out", "--data", made)
        code, said, complaint = run_cli(*ask)
        assert code == 0, complaint
        assert "warning: permuting time labels" in said
        (file,) = (tmp_path / "out" / "analyses").glob("*.json")
        record = json.loads(file.read_text())
        assert record["kind"] == "eeg-alignment"
        assert "Warning" in record["notes"][0]
        (table,) = record["tables"]
        rows = {row[0].split(": ")[1]: row[2]["value"] for row in table["rows"]}
        assert rows["RV"] == pytest.approx(rows["CKA, linear"])
        assert 0 < rows["RSA, Spearman"] < 1

    def test_recordings_have_no_plant_to_recover_and_data_must_be_somewhere(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("AFFECTBENCH_DATA", raising=False)
        code, _, complaint = run_cli("align", "alice", "--study", "recovery", "--output", tmp_path)
        assert code != 0
        assert "nothing is planted" in complaint
        code, _, complaint = run_cli("align", "alice", "--output", tmp_path)
        assert code != 0
        assert "--data DIR" in complaint
        assert "alice/" in complaint
