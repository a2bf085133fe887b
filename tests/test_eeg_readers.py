"""Files of EEG in every format, and what is done to a recording before it is compared."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from eeg_files import NAMES, RATE, TYPES, as_raw, signal, write_brainvision, write_eeglab, write_fieldtrip

pytest.importorskip("mne_bids", reason="the extra `eeg` is not installed")

import mne
import mne_bids

from affectbench.alignment.preprocessing import placed, prepared, referenced, resampled, typed
from affectbench.alignment.readers import read_bids, read_marks, read_recording, recording_of
from affectbench.alignment.recording import Recording, bad_channels, band_passed, notched, repaired
from affectbench.alignment.series import cleaned
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import Handling

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AFFECTBENCH_DATA", ROOT.parent / "shared" / "data"))
SAMPLE = DATA / "eeg" / "eeglab_data.set"


def made(data: np.ndarray, rate: float = RATE, **changes: object) -> Recording:
    count = len(data)
    names = tuple(f"E{place}" for place in range(count))
    content = {"names": names, "types": ("eeg",) * count, "positions": np.full((count, 3), np.nan)}
    return Recording(data, rate, **(content | changes))


def sine(hertz: float, seconds: float = 20.0, rate: float = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


class TestFiles:
    def test_brainvision_comes_back_within_its_resolution(self, tmp_path: Path) -> None:
        data = signal()
        path = write_brainvision(tmp_path / "one.vhdr", data)
        found = read_recording(path)
        assert (found.names, found.rate) == (NAMES, RATE)
        np.testing.assert_allclose(found.data, data, atol=1e-9)
        marks = read_marks(path)
        assert [mark.onset for mark in marks if "New Segment" not in mark.text] == pytest.approx([1.0, 2.5])

    def test_eeglab(self, tmp_path: Path) -> None:
        data = signal()
        path = write_eeglab(tmp_path / "one.set", data)
        found = read_recording(path)
        assert (found.names, found.rate) == (NAMES, RATE)
        np.testing.assert_allclose(found.data, data, atol=1e-9)
        assert [(mark.text, mark.onset) for mark in read_marks(path)] == [("first", 1.0), ("second", 2.5)]

    @pytest.mark.parametrize("variable", ["data", "raw"])
    def test_fieldtrip_in_the_unit_that_is_named(self, tmp_path: Path, variable: str) -> None:
        data = signal()
        path = write_fieldtrip(tmp_path / "one.mat", data, variable)
        found = read_recording(path, variable=variable, unit="uV")
        assert (found.names, found.rate) == (NAMES, RATE)
        np.testing.assert_allclose(found.data, data, rtol=1e-12)
        np.testing.assert_allclose(read_recording(path, variable=variable).data, data * 1e6, rtol=1e-12)

    def test_bids_takes_types_bad_channels_mains_and_positions_from_the_sidecars(
        self, tmp_path: Path
    ) -> None:
        raw = as_raw(signal())
        raw.info["line_freq"] = 60
        raw.info["bads"] = ["Pz"]
        raw.set_montage("biosemi64", on_missing="ignore")
        path = mne_bids.BIDSPath(subject="001", task="listening", datatype="eeg", root=tmp_path)
        mne_bids.write_raw_bids(raw, path, format="BrainVision", allow_preload=True, verbose="error")
        (file,) = tmp_path.rglob("*.vhdr")
        channels = next(tmp_path.rglob("*channels.tsv"))  # With a byte order mark, as in nm000180.
        channels.write_text("﻿" + channels.read_text(encoding="utf-8-sig"), encoding="utf-8")
        found = read_bids(file, tmp_path)
        assert found.types == TYPES
        assert (found.bad, found.line) == (("Pz",), 60.0)
        expected = mne.channels.make_standard_montage("biosemi64").get_positions()["ch_pos"]
        assert np.isfinite(found.positions[:4]).all()
        distances = np.linalg.norm(found.positions[:4, None] - found.positions[None, :4], axis=-1)
        places = np.array([expected[name] for name in NAMES[:4]])
        theirs = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.testing.assert_allclose(distances, theirs, atol=1e-5)
        np.testing.assert_allclose(found.data, signal(), atol=1e-7)

    def test_the_sample_of_eeglab(self) -> None:
        if not SAMPLE.is_file():
            pytest.skip(f"EEGLAB's sample recording is not in {SAMPLE.parent}")
        found = read_recording(SAMPLE)
        assert found.data.shape == (32, 30504)
        assert found.rate == 128.0
        assert set(found.types) == {"eeg"}  # EEGLAB calls its two EOG channels EEG.
        assert {mark.text for mark in read_marks(SAMPLE)} == {"rt", "square"}
        with pytest.raises(AffectbenchError, match=r"'EOG1' is EEG by type"):
            typed(found, {})
        channels = {"EOG1": "eog", "EOG2": "eog"}
        clean = prepared(found, Handling(channels=channels, rate=64.0, line=60.0), (0.5, 20.0))
        assert clean.data.shape == (30, 15252)
        assert abs(clean.data.mean(axis=0)).max() < 1e-12

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("one.vhdr", None, "no recording"),
            ("one.cnt", b"", "no format of EEG"),
            ("one.set", b"not a matlab file", "cannot be read as EEG"),
            ("one.vhdr", b"not a header", "cannot be read as EEG"),
        ],
    )
    def test_what_cannot_be_read_is_named(
        self, tmp_path: Path, name: str, content: bytes | None, message: str
    ) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(AffectbenchError, match=message) as caught:
            read_recording(tmp_path / name)
        assert name in str(caught.value)

    def test_a_signal_file_that_was_not_fetched_whole(self, tmp_path: Path) -> None:
        path = write_brainvision(tmp_path / "one.vhdr", signal())
        (tmp_path / "one.eeg").unlink()
        with pytest.raises(AffectbenchError, match=r"one\.vhdr cannot be read"):
            read_recording(path)

    def test_a_variable_that_is_not_there(self, tmp_path: Path) -> None:
        path = write_fieldtrip(tmp_path / "one.mat", signal())
        with pytest.raises(AffectbenchError, match="no variable 'raw'"):
            read_recording(path, variable="raw")

    def test_a_folder_that_is_no_bids(self, tmp_path: Path) -> None:
        with pytest.raises(AffectbenchError, match="no BIDS folder"):
            read_bids(tmp_path / "sub-1_task-x_eeg.vhdr", tmp_path)


class TestTypes:
    def test_the_sound_on_an_auxiliary_channel_never_counts(self) -> None:
        found = prepared(recording_of(as_raw(signal())), Handling(), (0.5, 20.0))
        assert found.names == NAMES[:4]

    def test_a_declared_type_counts(self) -> None:
        found = typed(recording_of(as_raw(signal())), {"Fz": "misc", "VEOG": "eeg"})
        assert found.types == ("misc", "eeg", "eeg", "eeg", "eeg", "misc")

    @pytest.mark.parametrize("name", ["VEOG", "HEOG2", "Aux5", "audio", "Status", "EXG1", "ECG"])
    def test_a_name_that_contradicts_its_type_must_be_declared(self, name: str) -> None:
        recording = made(signal()[:2], names=("Cz", name))
        with pytest.raises(AffectbenchError, match=name):
            typed(recording, {})
        assert typed(recording, {name: "misc"}).types == ("eeg", "misc")

    def test_electrodes_whose_names_only_look_so_stay(self) -> None:
        names = ("A1", "1", "Oz", "AF3", "Stein", "E1")
        assert typed(made(signal(), names=names), {}).types == ("eeg",) * 6

    def test_a_channel_that_is_not_there(self) -> None:
        with pytest.raises(AffectbenchError, match="Aux9"):
            typed(recording_of(as_raw(signal())), {"Aux9": "misc"})


class TestMontage:
    def test_positions_are_those_of_mne(self) -> None:
        found = placed(recording_of(as_raw(signal())), "biosemi64")
        expected = mne.channels.make_standard_montage("biosemi64").get_positions()["ch_pos"]
        np.testing.assert_allclose(found.positions[0], expected["Fz"])
        assert np.isnan(found.positions[4]).all()

    def test_alice_and_ds004408_have_theirs(self) -> None:
        for montage, names in (
            ("easycap-M10", tuple(str(n) for n in range(1, 62) if n != 29)),
            ("biosemi128", tuple(f"{bank}{n}" for bank in "ABCD" for n in range(1, 33))),
        ):
            found = placed(made(np.zeros((len(names), 4)), names=names), montage)
            assert np.isfinite(found.positions).all()

    @pytest.mark.parametrize(("montage", "message"), [("cap", "no montage"), ("easycap-M10", "no electrode")])
    def test_what_does_not_fit(self, montage: str, message: str) -> None:
        with pytest.raises(AffectbenchError, match=message):
            placed(recording_of(as_raw(signal())), montage)


class TestSignal:
    @pytest.mark.parametrize(
        ("hertz", "gain"), [(0.1, 0.0), (0.5, 0.5), (8.0, 1.0), (20.0, 0.5), (45.0, 0.0)]
    )
    def test_a_sine_in_and_out_of_the_band(self, hertz: float, gain: float) -> None:
        """Forwards and backwards a Butterworth's gain is squared: 1/2 at its corners."""
        data = sine(hertz, 60.0)
        found = band_passed(data[None], RATE, 0.5, 20.0)[0]
        inside = slice(round(15 * RATE), round(45 * RATE))
        height = 2 * abs(
            np.mean(found[inside] * np.exp(-2j * np.pi * hertz * np.arange(len(data)) / RATE)[inside])
        )
        assert height == pytest.approx(gain, abs=0.01)
        if gain == 1.0:
            np.testing.assert_allclose(found[inside], data[inside], atol=0.01)  # Nothing moved in time.

    def test_the_band_is_mnes(self) -> None:
        data = signal(60.0)
        theirs = mne.filter.filter_data(
            data, RATE, 0.5, 20.0, method="iir", verbose="error",
            iir_params={"order": 4, "ftype": "butter", "output": "sos"},
        )  # fmt: skip
        inside = slice(round(20 * RATE), round(40 * RATE))
        np.testing.assert_allclose(
            band_passed(data, RATE, 0.5, 20.0)[:, inside], theirs[:, inside], atol=1e-3 * data.std()
        )

    def test_a_notch_takes_the_mains_and_leaves_the_rest(self) -> None:
        found = notched(np.stack([sine(60.0), sine(50.0)]), RATE, 60.0)
        inside = slice(round(5 * RATE), round(15 * RATE))
        assert abs(found[0, inside]).max() < 0.01
        np.testing.assert_allclose(found[1, inside], sine(50.0)[inside], atol=0.03)

    @pytest.mark.parametrize("band", [(0.5, 20.0), (0.5, 40.0), (0.5, 100.0)])
    def test_the_notch_is_where_the_mains_are_and_the_record_says_so(self, band: tuple[float, float]) -> None:
        """Whatever the band: the mains may lie inside it."""
        hum = sum(gain * sine(hertz) for hertz, gain in ((50.0, 1.0), (60.0, 1.0)))
        data = 1e-5 * (np.random.default_rng(0).normal(size=(4, len(hum))) + 5 * sine(8.0) + 20 * hum)
        inside = slice(round(5 * RATE), round(15 * RATE))
        for line in (50.0, 60.0):
            found = prepared(made(data, line=line), Handling(reference="none", bad="none"), band)
            assert found.line == line
            phases = np.exp(-2j * np.pi * np.outer((50.0, 60.0), np.arange(data.shape[1])) / RATE)
            left = abs((found.data[:, None, inside] * phases[:, inside]).mean(axis=2)).mean(axis=0)
            other = 60.0 if line == 50.0 else 50.0
            warped = np.tan(np.pi * other / RATE) / np.tan(np.pi * band[1] / RATE)
            kept = 1e-4 / (1 + warped**8)  # Half of the height of 20e-5; Butterworth's gain, squared.
            assert left[(50.0, 60.0).index(other)] == pytest.approx(kept, rel=0.1, abs=3e-7)
            assert left[(50.0, 60.0).index(line)] < 0.01 * 1e-4
        told = Handling(line=60.0, reference="none", bad="none")
        assert prepared(made(data, line=50.0), told, band).line == 60.0
        slow = made(data[:, ::3], RATE / 3, line=50.0)
        assert prepared(slow, Handling(), (0.5, 20.0)).line is None

    def test_resampling_keeps_what_fits_and_folds_nothing_back(self) -> None:
        recording = made(np.stack([sine(3.0, rate=512.0), sine(100.0, rate=512.0)]), 512.0)
        found = resampled(recording, 128.0)
        assert (found.rate, found.data.shape[1]) == (128.0, 20 * 128)
        inside = slice(128, -128)
        np.testing.assert_allclose(found.data[0, inside], sine(3.0, rate=128.0)[inside], atol=5e-3)
        assert abs(found.data[1, inside]).max() < 5e-3

    def test_the_reference_is_what_the_task_says(self) -> None:
        recording = made(signal()[:4])
        raw = as_raw(recording.data, NAMES[:4], TYPES[:4])
        for ours, theirs in (("average", "average"), (("E1", "E3"), ["Cz", "Oz"]), ("none", [])):
            expected = raw.copy().set_eeg_reference(theirs, verbose="error").get_data()
            np.testing.assert_allclose(referenced(recording, ours).data, expected, atol=1e-18)
        with pytest.raises(AffectbenchError, match="Tp9"):
            referenced(recording, ("Tp9",))

    def test_bad_channels_are_those_that_the_task_asks_for(self) -> None:
        rng = np.random.default_rng(0)
        data = 2e-5 * (rng.normal(size=(1, 5000)) + 0.3 * rng.normal(size=(8, 5000)))
        data[3] = 0.0
        recording = made(data, bad=("E6",))
        for which, replaced in (("none", []), ("declared", [6]), ("found", [3]), ("both", [3, 6])):
            handling = Handling(bad=which, reference="none")
            found = prepared(recording, handling, (0.5, 40.0)).data
            untouched = band_passed(data - data.mean(axis=1, keepdims=True), RATE, 0.5, 40.0)
            changed = np.flatnonzero(abs(found - untouched).max(axis=1) > 1e-12).tolist()
            assert changed == replaced

    def test_what_was_prepared_is_not_cleaned_again(self) -> None:
        found = prepared(recording_of(as_raw(signal())), Handling(reference="none"), (0.5, 20.0))
        np.testing.assert_array_equal(cleaned(found, (0.5, 20.0)).data, found.data)

    def test_a_bad_channel_becomes_the_mean_of_its_neighbours_by_distance(self) -> None:
        places = np.array([[0.0, 0, 0], [0.01, 0, 0], [0, 0.02, 0], [0, 0, 0.04]])
        data = np.random.default_rng(2).normal(size=(4, 50))
        weights = np.array([1e4, 1 / 0.02**2, 1 / 0.04**2])
        found = repaired(made(data, positions=places), [0]).data
        np.testing.assert_allclose(found[0], weights / weights.sum() @ data[1:])
        np.testing.assert_array_equal(found[1:], data[1:])
        places[2] = np.nan  # Where one place is not known, all count alike.
        np.testing.assert_allclose(repaired(made(data, positions=places), [0]).data[0], data[1:].mean(axis=0))
        with pytest.raises(AffectbenchError, match="3 of 4 channels are bad"):
            repaired(made(data), [0, 1, 2])

    def test_channels_are_bad_by_each_rule(self) -> None:
        rng = np.random.default_rng(3)
        shared = rng.normal(size=(24, 4)) @ rng.normal(size=(4, 4000)) + 0.5 * rng.normal(size=(24, 4000))
        assert bad_channels(shared - shared.mean(axis=0)) == []
        data = shared.copy()
        data[2] = 1e-9 * data[2]  # Flat.
        data[5] *= 20  # Far more variable.
        data[9] = rng.normal(size=4000)  # Alone.
        assert bad_channels(data) == [2, 5, 9]

    def test_nothing_is_filtered_across_a_break(self) -> None:
        rng = np.random.default_rng(1)
        first, second = rng.normal(size=(2, 1000)), 50 + rng.normal(size=(2, 700))
        recording = made(np.concatenate([first, second], axis=1), breaks=(1000,))
        found = recording.by_stretch(lambda part: band_passed(part, RATE, 0.5, 20.0))
        np.testing.assert_array_equal(found[:, :1000], band_passed(first, RATE, 0.5, 20.0))
        np.testing.assert_array_equal(found[:, 1000:], band_passed(second, RATE, 0.5, 20.0))


@pytest.mark.parametrize("absent", ["mne", "mne_bids"])
def test_without_the_extra_it_is_named(absent: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(AffectbenchError) as caught:
        read_bids(tmp_path / "sub-1_task-x_eeg.vhdr", tmp_path)
    assert "affectbench[eeg]" in (caught.value.hint or "")
