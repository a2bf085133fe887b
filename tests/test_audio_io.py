"""Decoding of sound files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from example_benchmarks import tone

from affectbench.audio_io import AudioError, read_waveform, sound_digest


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


@pytest.mark.parametrize(("form", "rate"), [("wav", 8000), ("flac", 44100), ("ogg", 48000), ("mp3", 22050)])
def test_formats_give_the_sound_that_was_written(tmp_path: Path, form: str, rate: int) -> None:
    path = tmp_path / f"tone.{form}"
    soundfile.write(path, tone(rate, channels=2), rate)
    wave = read_waveform(path)
    assert abs(wave.size - 8000) < 1000  # MP3 pads to whole frames.
    inner = slice(1000, 7000)
    spectrum = np.abs(np.fft.rfft(wave[inner] * np.hanning(6000)))
    assert abs(np.argmax(spectrum) * 16000 / 6000 - 1000) < 5
    assert np.sqrt(np.mean(wave[inner] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    with path.open("rb") as stream:
        np.testing.assert_array_equal(read_waveform(stream), wave)


def test_the_hash_of_a_sound_is_that_of_its_samples(tmp_path: Path) -> None:
    samples = np.rint(tone(16000) * 32767).astype(
        np.int16
    )  # As integers: encoders round floats each its way.
    for name, data in (("a.wav", samples), ("b.flac", samples), ("c.wav", samples // 2)):
        soundfile.write(tmp_path / name, data, 16000)
    digests = [sound_digest(read_waveform(tmp_path / name)) for name in ("a.wav", "b.flac", "c.wav")]
    assert digests[0] == digests[1] != digests[2]
