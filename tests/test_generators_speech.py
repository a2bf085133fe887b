"""The synthetic prosody generator and the log-mel front end: determinism, speakers, audible settings."""

import numpy as np
import pytest

from affectbench.audio_features import audio_token_count, log_mel, mel_filters
from affectbench.generators import speech


def _clip(**settings: float) -> speech.Clip:
    """A neutral clip of a fixed speaker with some settings replaced."""
    item = speech.examples("test", 1, 0)[speech.LABELS.index("neutral")]
    quiet = {"jitter": 0.0, "tremor": 0.0, "creak": 0.0, "breath": 0.0, "pitch_range": 0.0}
    return {**item, "settings": {**item["settings"], **quiet, **settings}}  # type: ignore[typeddict-item]


def _pitch(wave: np.ndarray) -> float:
    """Fundamental frequency in Hz from the autocorrelation peak, independent of the synthesiser."""
    spectrum = np.abs(np.fft.rfft(wave, 2 * wave.size)) ** 2
    correlation = np.fft.irfft(spectrum)[: wave.size]
    lags = np.arange(speech.SAMPLE_RATE // 500, speech.SAMPLE_RATE // 60)
    return float(speech.SAMPLE_RATE / lags[correlation[lags].argmax()])


def test_an_item_is_the_same_whatever_is_asked_for() -> None:
    few, many = speech.examples("test", 2, 3), speech.examples("test", 5, 3)
    assert many[: len(few)] == few
    first, again = speech.synthesise(few[4]), speech.synthesise(many[4])
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert not np.array_equal(first, speech.synthesise(speech.examples("test", 2, 4)[4]))


def test_waveforms_lie_on_the_16_bit_grid_and_do_not_clip() -> None:
    for item in speech.examples("training", 4, 0):
        wave = speech.synthesise(item)
        assert 0.8 <= wave.size / speech.SAMPLE_RATE <= 1.0
        assert np.array_equal(wave * 32768, np.round(wave * 32768))
        assert np.mean(np.abs(wave) > 0.999) < 0.001


def test_splits_share_no_speaker_and_no_item() -> None:
    items = {split: speech.examples(split, 30, 0) for split in speech.SPEAKERS}
    speakers = [item["speaker"] for part in items.values() for item in part]
    assert len(set(speakers)) == sum(len({item["speaker"] for item in part}) for part in items.values())
    ids = [item["id"] for part in items.values() for item in part]
    assert len(set(ids)) == len(ids)


def test_thirty_items_an_emotion_give_many_test_speakers_with_several_emotions_each() -> None:
    items = speech.examples("test", 30, 0)
    emotions: dict[str, set[str]] = {}
    for item in items:
        emotions.setdefault(item["cluster"], set()).add(item["label"])
    assert len(emotions) >= 42
    assert min(map(len, emotions.values())) >= 3
    for label in speech.LABELS:
        sexes = [item["sex"] for item in items if item["label"] == label]
        assert sexes.count("female") == len(sexes) / 2


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="holdout"):
        speech.examples("holdout", 1, 0)


def test_pitch_shift_moves_the_fundamental_by_that_many_semitones() -> None:
    flat = {"pitch_slope": 0.0, "final_rise": 0.0}
    low = _pitch(speech.synthesise(_clip(pitch_shift=0.0, **flat)))
    high = _pitch(speech.synthesise(_clip(pitch_shift=6.0, **flat)))
    assert 12 * np.log2(high / low) == pytest.approx(6.0, abs=0.4)


def test_level_sets_the_loudness() -> None:
    quiet, loud = (speech.synthesise(_clip(level=level)) for level in (-36.0, -26.0))
    assert 10 * np.log10(np.mean(loud**2) / np.mean(quiet**2)) == pytest.approx(10.0, abs=0.3)


def test_held_out_language_is_another_stream_of_the_same_words() -> None:
    seen, new = speech.language_text(300, 0), speech.language_text(60, 0, held_out=True)
    assert seen[:60] != new
    assert speech.language_text(60, 0, held_out=True) == new
    assert {word for text in new for word in text.split()} <= {word for text in seen for word in text.split()}


def test_mel_filters_agree_with_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)
    assert np.abs(mel_filters(80) - expected).max() < 1e-7


def test_log_mel_keeps_loudness_and_floors_silence() -> None:
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)
    features = log_mel(tone)
    assert features.shape == (80, 100)
    assert features.dtype == np.float32
    # A tenth of the amplitude is 2 decades of power, which Whisper's scaling divides by 4.
    assert features[:, 50].max() - log_mel(tone / 10)[:, 50].max() == pytest.approx(0.5, abs=1e-3)
    assert np.allclose(log_mel(np.zeros(16000, dtype=np.float32)), (-6 + 4) / 4)
    peak = int(features[:, 50].argmax())
    assert np.abs(mel_filters(80)[peak].argmax() * 40 - 440) <= 40


def test_too_short_or_stereo_waveforms_are_refused() -> None:
    for wave in (np.zeros(10, dtype=np.float32), np.zeros((2, 16000), dtype=np.float32)):
        with pytest.raises(ValueError, match="log_mel needs"):
            log_mel(wave)


def test_token_count_of_a_one_second_clip() -> None:
    assert audio_token_count(100) == 25
    assert audio_token_count(80) == 20
