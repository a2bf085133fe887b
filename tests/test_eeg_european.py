"""EDF and BDF, written by edfio from the definition of the formats: units, rates, types, marks and gaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eeg_files import NAMES, RATE, signal

pytest.importorskip("mne_bids", reason="the extra `eeg` is not installed")

import edfio
import mne
import mne_bids

from affectbench.alignment.preprocessing import prepared, typed
from affectbench.alignment.readers import read_bids, read_header, read_marks, read_recording
from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import Handling

UNITS = {"uV": 1e-6, "mV": 1e-3, "V": 1.0}
LABELS = ("EEG Fz", "EEG Cz", "EEG Pz", "EEG Oz", "EOG left", "Aux5")
MARKS = [edfio.EdfAnnotation(1.0, None, "first"), edfio.EdfAnnotation(2.5, 0.5, "second")]
BITS = {".edf": 16, ".bdf": 24}
AMPLIFIER = 1 << 16 | 1 << 20
"""Bits of BioSemi's Status that tell of the amplifier (new epoch, CMS in range), here in all samples."""


def channel(ending: str, data: np.ndarray, label: str, unit: str = "uV", rate: float = RATE) -> Any:
    kind = edfio.EdfSignal if ending == ".edf" else edfio.BdfSignal
    return kind(data, rate, label=label, physical_dimension=unit)


def status(codes: np.ndarray, rate: float = RATE) -> Any:
    whole = (-(2**23), 2**23 - 1)
    return edfio.BdfSignal(codes, rate, label="Status", physical_dimension="Boolean", physical_range=whole)


def write(path: Path, channels: Sequence[Any], annotations: Sequence[Any] | None = None) -> Path:
    kind = edfio.Edf if path.suffix == ".edf" else edfio.Bdf
    kind(channels, annotations=annotations).write(path)
    return path


def written(path: Path, units: Sequence[str] = ("uV",) * 6, labels: Sequence[str] = NAMES) -> np.ndarray:
    """Six channels of `signal` in a file, each in its unit, with two annotations; returns them in volts."""
    data = signal()
    each = zip(data, labels, units, strict=True)
    write(path, [channel(path.suffix, row / UNITS[u], label, u) for row, label, u in each], MARKS)
    return data


@pytest.mark.parametrize("ending", [".edf", ".bdf"])
class TestBoth:
    def test_every_unit_comes_back_in_volts_within_half_a_step(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"one{ending}"
        data = written(path, ("uV", "mV", "V", "uV", "mV", "uV"))
        found = read_recording(path)
        assert (found.names, found.rate) == (NAMES, RATE)
        steps = np.ptp(data, axis=1) / (2 ** BITS[ending] - 1)
        # The ranges of a header have eight characters, which bounds what a scale can be told to.
        assert (abs(found.data - data).max(axis=1) < 0.51 * steps + 1e-4 * abs(data).max(axis=1)).all()
        assert (abs(found.data - data)[0] < 0.51 * steps[0] + 1e-6 * abs(data[0]).max()).all()

    def test_labels_of_the_standard_say_the_type(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"one{ending}"
        written(path, labels=LABELS)
        found = read_recording(path)
        assert found.names == ("Fz", "Cz", "Pz", "Oz", "left", "Aux5")
        assert found.types == ("eeg",) * 4 + ("eog", "eeg")
        with pytest.raises(AffectbenchError, match="'Aux5' is EEG by type"):
            typed(found, {})
        handling = Handling(channels={"Aux5": "misc"}, montage="biosemi64", line=50.0)
        assert prepared(found, handling, (0.5, 20.0)).names == NAMES[:4]

    def test_annotations_are_marks_and_no_channel(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"one{ending}"
        written(path)
        assert [(mark.onset, mark.text) for mark in read_marks(path)] == [(1.0, "first"), (2.5, "second")]
        header = read_header(path)
        assert (header.names, header.seconds) == (NAMES, 8.0)

    def test_a_channel_without_a_unit_is_in_that_of_the_task(self, tmp_path: Path, ending: str) -> None:
        data = signal()[:2] * 1e6
        channels = [channel(ending, row, name, unit)
                    for row, name, unit in zip(data, LABELS, ("", "uV"), strict=False)]  # fmt: skip
        path = write(tmp_path / f"one{ending}", channels)
        found = read_recording(path, unit="uV")
        np.testing.assert_allclose(found.data, data * 1e-6, atol=2e-9)
        np.testing.assert_allclose(read_recording(path).data[0], data[0], atol=2e-3)

    def test_gaps_are_refused(self, tmp_path: Path, ending: str) -> None:
        """MNE reads such a file as if its parts lay one behind the other."""
        path = tmp_path / f"one{ending}"
        written(path)
        content = bytearray(path.read_bytes())
        form = ending[1:].upper().encode()
        assert content[192:197] == form + b"+C"
        content[192:197] = form + b"+D"
        path.write_bytes(content)
        for read in (read_recording, read_header, read_marks):
            with pytest.raises(AffectbenchError, match=r"has gaps \(...\+D\)") as caught:
                read(path)
            assert str(path) in str(caught.value)

    def test_a_channel_of_a_lower_rate_is_brought_to_the_highest(self, tmp_path: Path, ending: str) -> None:
        """Nothing moves in time: a slow sine at a quarter of the rate, beside the same at the full rate."""
        seconds = 20
        slow, fast = (20 * np.sin(2 * np.pi * 3.0 * np.arange(seconds * rate) / rate) for rate in (128, 512))
        path = tmp_path / f"one{ending}"
        write(path, [channel(ending, slow, "Cz", rate=128), channel(ending, fast, "Pz", rate=512)])
        found = read_recording(path)
        assert (found.rate, found.data.shape) == (512.0, (2, seconds * 512))
        np.testing.assert_allclose(found.data[0], found.data[1], atol=2e-9)

    def test_a_file_that_was_not_fetched_whole_is_as_short_as_it_is(
        self, tmp_path: Path, ending: str
    ) -> None:
        """Who is left out for it is decided later, by the pieces that it lacks."""
        path = tmp_path / f"one{ending}"
        written(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 5 // 8])
        assert 3.0 <= read_header(path).seconds <= 5.0


class TestStatus:
    """BioSemi's: triggers are the lower 16 bits of a word of 24."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        codes = np.full(round(8 * RATE), AMPLIFIER)
        for start, end, code in (
            (250, 260, 7),
            (260, 270, 9),
            (625, 626, 300),
            (1000, 1001, 7),
            (1001, 1010, 8),
        ):
            codes[start:end] |= code
        data = signal()[:4] * 1e6
        channels = [channel(".bdf", row, name) for row, name in zip(data, NAMES, strict=False)]
        return write(tmp_path / "one.bdf", [*channels, status(codes)])

    def test_triggers_are_marks_and_the_channel_is_never_compared(self, path: Path) -> None:
        """Two of them last a single sample, and some touch."""
        expected = [(1.0, "7"), (1.04, "9"), (2.5, "300"), (4.0, "7"), (4.004, "8")]
        assert [(mark.onset, mark.text) for mark in read_marks(path)] == expected
        found = read_recording(path)
        assert found.types == ("eeg",) * 4 + ("stim",)
        assert prepared(found, Handling(line=50.0), (0.5, 20.0)).names == NAMES[:4]

    def test_in_a_bids_folder(self, path: Path, tmp_path: Path) -> None:
        raw = mne.io.read_raw_bdf(path, verbose="error")
        raw.info["line_freq"] = 50
        raw.set_channel_types({"Oz": "eog"})
        raw.set_annotations(mne.Annotations([2.0], [0.0], ["sound"]))
        place = mne_bids.BIDSPath(subject="1", task="x", datatype="eeg", root=tmp_path / "bids")
        mne_bids.write_raw_bids(raw, place, verbose="error")
        (file,) = (tmp_path / "bids").rglob("*.bdf")
        found = read_bids(file, tmp_path / "bids")
        assert found.types == ("eeg", "eeg", "eeg", "eog", "stim")
        assert found.line == 50.0
        np.testing.assert_array_equal(found.data[:4], read_recording(path).data[:4])
        marks = read_marks(file, bids=tmp_path / "bids")
        assert (2.0, "sound") in [(mark.onset, mark.text) for mark in marks]
        content = bytearray(file.read_bytes())
        content[192:197] = b"BDF+D"
        file.write_bytes(content)
        with pytest.raises(AffectbenchError, match="has gaps"):
            read_bids(file, tmp_path / "bids")
