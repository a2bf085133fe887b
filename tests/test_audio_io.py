"""Decoding of sound files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from example_benchmarks import tone

from affectbench.audio_io import AudioError, read_waveform


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_of_any_rate_becomes_16_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(rate, channels=channels), rate)
    wave = read_waveform(tmp_path / "tone.wav")
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert abs(wave.size - 8000) <= 1
    inner = slice(400, 7600)
    np.testing.assert_allclose(wave[:8000][inner], tone(16000)[inner, 0], atol=0.01)


def test_stereo_is_averaged_and_quiet_is_not_made_loud(tmp_path: Path) -> None:
    stereo = np.stack([np.full(1600, 0.2), np.zeros(1600)], axis=1)
    soundfile.write(tmp_path / "s.wav", stereo, 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_waveform(tmp_path / "s.wav"), 0.1, atol=1e-6)


def test_damaged_sound_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "short.wav", np.zeros(20), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(800, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "noise.flac").write_bytes(b"not sound")
    soundfile.write(tmp_path / "cut.flac", np.random.default_rng(0).normal(size=16000) * 0.1, 16000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:4000])
    reasons = {"gone.wav": "missing", "empty.wav": "empty", "short.wav": "10 ms", "nan.wav": "not finite"}
    for name, reason in (reasons | {"noise.flac": "decoded", "cut.flac": "decoded"}).items():
        with pytest.raises(AudioError, match=reason):
            read_waveform(tmp_path / name)
