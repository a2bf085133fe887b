"""Synthetic emotional prosody: short voiced clips whose acoustics carry one of seven emotions.

A source-filter synthesiser (Fant 1960): a glottal pulse train with jitter, creak, tremor and breath noise,
shaped by a spectral tilt and three formants over three to five syllables. Emotions differ in ten prosodic
settings drawn from overlapping normals around a table of tendencies; nothing but prosody carries the label.
The table is a toy code loosely after Scherer (2003), not measured from people.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SEXES = ("female", "male")
SPEAKERS = {"training": 240, "identification": 48, "validation": 24, "test": 48}

# Order of the columns of TENDENCIES and SPREAD.
SETTINGS = (
    "pitch_shift",  # semitones above the speaker's habitual pitch
    "pitch_range",  # semitones of accent on each syllable
    "pitch_slope",  # semitones per second
    "final_rise",  # semitones over the last fifth of the utterance
    "rate",  # syllables per second
    "level",  # dB re full scale
    "brightness",  # octaves of the source's low-pass corner re 1 kHz
    "breath",  # noise to voice amplitude ratio
    "jitter",  # relative cycle-to-cycle pitch perturbation
    "tremor",  # semitones of 6 Hz modulation
    "creak",  # depth of the period-doubled amplitude in the second half
)
TENDENCIES = {
    "anger": (2.5, 5.0, -3.0, -2.5, 5.4, -18.0, 1.6, 0.05, 0.020, 0.05, 0.10),
    "disgust": (-1.5, 2.6, -4.0, -2.0, 3.9, -24.0, 0.3, 0.10, 0.020, 0.10, 0.60),
    "fear": (5.0, 2.2, 1.0, 1.5, 5.7, -25.0, 0.5, 0.26, 0.022, 0.85, 0.05),
    "happiness": (4.0, 6.0, 1.0, 0.5, 5.0, -20.5, 1.0, 0.07, 0.008, 0.08, 0.05),
    "neutral": (0.0, 2.5, -1.5, -1.0, 4.6, -24.0, 0.2, 0.07, 0.007, 0.05, 0.10),
    "sadness": (-1.0, 1.3, -2.5, -1.0, 3.5, -29.5, -0.6, 0.24, 0.012, 0.25, 0.15),
    "surprise": (5.5, 4.5, 4.5, 5.5, 4.5, -21.5, 0.7, 0.12, 0.009, 0.08, 0.04),
}
SPREAD = (1.5, 1.05, 2.1, 1.85, 0.46, 2.3, 0.40, 0.06, 0.0046, 0.16, 0.15)
_FLOORS = (-9.0, 0.3, -12.0, -8.0, 3.2, -38.0, -1.6, 0.01, 0.002, 0.0, 0.0)

_VOWELS = np.array(
    [
        (730, 1090, 2440),
        (290, 2250, 3000),
        (320, 870, 2240),
        (530, 1840, 2480),
        (570, 840, 2410),
        (500, 1500, 2500),
    ],
    dtype=np.float64,
)
_BANDWIDTHS = np.array([70.0, 100.0, 160.0])


class Clip(TypedDict):
    """One item: identity, label and everything `synthesise` needs (settings in the units of SETTINGS)."""

    id: str
    label: str
    speaker: str
    sex: str
    cluster: str
    seconds: float
    syllables: int
    speaker_settings: dict[str, float]
    settings: dict[str, float]


def _generator(*parts: object) -> np.random.Generator:
    """Random generator seeded by the SHA-256 of the parts, the same on every machine and Python version."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _speaker_settings(split: str, number: int, seed: int) -> dict[str, float]:
    """Habitual pitch (Hz), vocal-tract factor and offsets of one speaker; even numbers are female."""
    rng = _generator("speech-speaker", split, number, seed)
    female = number % 2 == 0
    return {
        "pitch": float((210.0 if female else 118.0) * np.exp(rng.normal(0.0, 0.09))),
        "tract": float((1.14 if female else 0.97) * np.exp(rng.normal(0.0, 0.03))),
        "level": float(rng.normal(0.0, 1.0)),
        "brightness": float(rng.normal(0.0, 0.15)),
        "creak": float(abs(rng.normal(0.0, 0.04))),
    }


def _example(split: str, index: int, label_number: int, seed: int) -> Clip:
    label = LABELS[label_number]
    # 7 is coprime to every speaker count, so an emotion visits all speakers before it repeats one, and
    # the even offset between emotions keeps the sexes balanced within each emotion.
    number = (7 * index + 10 * label_number) % SPEAKERS[split]
    speaker = f"{split}-{seed}-{number:03d}"
    rng = _generator("speech-item", split, index, label, seed)
    drawn = np.maximum(rng.normal(TENDENCIES[label], SPREAD), _FLOORS)
    seconds = float(np.round(rng.uniform(0.80, 1.00), 3))
    syllables = int(np.clip(np.round(drawn[4] * seconds * 0.94), 3, 5))
    return Clip(
        id=f"speech-{split}-{seed}-{index:05d}-{label}",
        label=label,
        speaker=speaker,
        sex=SEXES[number % 2],
        cluster=speaker,
        seconds=seconds,
        syllables=syllables,
        speaker_settings=_speaker_settings(split, number, seed),
        settings=dict(zip(SETTINGS, map(float, drawn), strict=True)),
    )


def examples(split: str, n_per_emotion: int, seed: int) -> list[Clip]:
    """Items of a split, emotions interleaved; item k is the same whatever `n_per_emotion` is.

    Splits are training, identification, validation and test, and share no speaker. Raises ValueError for
    another split name.
    """
    if split not in SPEAKERS:
        raise ValueError(f"speech has no split {split!r}; expected one of {', '.join(SPEAKERS)}")
    return [_example(split, i, e, seed) for i in range(n_per_emotion) for e in range(len(LABELS))]


def _pitch_contour(
    clip: Clip, times: NDArray[np.float64], end: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Fundamental frequency (Hz) at `times` (s): accents, slope, final rise, tremor and jitter."""
    s = clip["settings"]
    position = np.clip(times / end, 0.0, 1.0)
    accents = rng.uniform(0.6, 1.4, clip["syllables"]) * np.where(
        np.arange(clip["syllables"]) % 2 == 0, 1.0, 0.4
    )
    which = np.minimum((position * clip["syllables"]).astype(int), clip["syllables"] - 1)
    within = position * clip["syllables"] - which
    semitones = s["pitch_shift"] + s["pitch_range"] * accents[which] * np.sin(
        np.pi * np.clip(within, 0.0, 1.0)
    )
    semitones += s["pitch_slope"] * (times - end / 2)
    semitones += s["final_rise"] * np.clip((position - 0.8) / 0.2, 0.0, 1.0)
    semitones += s["tremor"] * np.sin(2 * np.pi * (6.0 * times + rng.uniform()))
    knots = np.arange(0.0, times[-1] + 0.01, 0.006)
    shake = np.interp(times, knots, rng.normal(0.0, 1.0, knots.size))
    pitch: NDArray[np.float64] = (
        clip["speaker_settings"]["pitch"] * 2.0 ** (semitones / 12) * (1 + s["jitter"] * shake)
    )
    return np.clip(pitch, 50.0, 700.0)


def _source(
    clip: Clip, pitch: NDArray[np.float64], end: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Glottal flow derivative plus breath noise, low-passed to the clip's brightness."""
    from scipy.signal import lfilter

    s, speaker = clip["settings"], clip["speaker_settings"]
    cycles = np.cumsum(pitch) / SAMPLE_RATE
    phase = cycles % 1.0
    opening = 0.6
    pulse = np.where(phase < opening, np.sin(np.pi * phase / opening) ** 2, 0.0)
    voice = np.diff(pulse, prepend=0.0)
    voice /= np.sqrt(np.mean(voice**2))
    late = np.clip(np.arange(pitch.size) / (SAMPLE_RATE * end) * 2 - 0.6, 0.0, 1.0)
    depth = np.clip(s["creak"] + speaker["creak"], 0.0, 0.95)
    voice *= 1.0 - depth * late * (np.floor(cycles) % 2)
    breath = rng.normal(0.0, 1.0, pitch.size) * s["breath"] * (0.4 + 0.6 * pulse)
    corner = 1000.0 * 2.0 ** (s["brightness"] + speaker["brightness"])
    pole = np.exp(-2 * np.pi * corner / SAMPLE_RATE)
    shaped: NDArray[np.float64] = lfilter([1 - pole], [1, -pole], voice) + 0.3 * breath
    return shaped


def _formant_sections(formants: NDArray[np.float64]) -> NDArray[np.float64]:
    """Second-order sections (3, 6) of unit-gain-at-DC resonators at the given frequencies (Klatt 1980)."""
    radius = np.exp(-np.pi * _BANDWIDTHS / SAMPLE_RATE)
    b = 2 * radius * np.cos(2 * np.pi * formants / SAMPLE_RATE)
    c = -(radius**2)
    zero, one = np.zeros(3), np.ones(3)
    return np.stack([1 - b - c, zero, zero, one, -b, -c], axis=1)


def _shape(
    clip: Clip, source: NDArray[np.float64], end: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Filter each syllable with its vowel's formants and join them with short consonant-like dips."""
    from scipy.signal import sosfilt

    edges = np.linspace(0.0, end * SAMPLE_RATE, clip["syllables"] + 1).astype(int)
    out = np.zeros_like(source)
    for start, stop in itertools.pairwise(edges.tolist()):
        vowel = (
            _VOWELS[rng.integers(len(_VOWELS))] * clip["speaker_settings"]["tract"] * rng.normal(1.0, 0.02)
        )
        ramp = np.sin(np.pi * (np.arange(stop - start) + 0.5) / (stop - start)) ** 0.6
        out[start:stop] = sosfilt(_formant_sections(vowel), source[start:stop]) * ramp
    return out


def synthesise(example: Clip) -> NDArray[np.float32]:
    """Waveform of an item: float32 mono at SAMPLE_RATE, in [-1, 1), on the 16-bit grid; always the same."""
    rng = _generator("speech-wave", example["id"])
    settings = example["settings"]
    samples = round(example["seconds"] * SAMPLE_RATE)
    times = np.arange(samples) / SAMPLE_RATE
    end = min(example["syllables"] / settings["rate"], example["seconds"] * 0.98)
    source = _source(example, _pitch_contour(example, times, end, rng), end, rng)
    voiced = _shape(example, source, end, rng)
    level = settings["level"] + example["speaker_settings"]["level"]
    wave = voiced / np.sqrt(np.mean(voiced[: int(end * SAMPLE_RATE)] ** 2)) * 10 ** (level / 20)
    wave += rng.normal(0.0, 10 ** (rng.uniform(-76, -66) / 20), samples)
    quantised = np.clip(np.round(wave * 32768), -32768, 32767)
    wave_16_bit: NDArray[np.float32] = (quantised / 32768).astype(np.float32)
    return wave_16_bit


_ROOMS = ("studio", "booth", "archive", "office", "corridor", "library", "workshop", "hall")
_PEOPLE = ("engineer", "reader", "editor", "producer", "visitor", "assistant", "teacher", "student")
_THINGS = (
    "microphone",
    "cable",
    "recorder",
    "folder",
    "lamp",
    "chair",
    "script",
    "battery",
    "speaker",
    "clock",
)
_PLACES = ("table", "shelf", "desk", "cabinet", "floor", "window", "door", "bench")
_COLOURS = ("red", "blue", "green", "grey", "black", "white")
_TIMES = ("morning", "afternoon", "evening", "week")
_ACTS = ("moves", "checks", "labels", "cleans", "repairs", "carries")


def _document(rng: np.random.Generator) -> str:
    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    room, person, thing, place, colour = map(pick, (_ROOMS, _PEOPLE, _THINGS, _PLACES, _COLOURS))
    other = pick(_PEOPLE)
    start = f"In the {room} there is a {colour} {thing} on the {place}."
    middle = (
        f"Every {pick(_TIMES)} the {person} {pick(_ACTS)} the {colour} {thing}.",
        f"The {person} {pick(_ACTS)} it and then leaves the {room}.",
        f"The {person} asks the {other} about the {thing}.",
        f"It is the {thing} of the {person}, and the {other} knows it.",
    )
    close = (
        f"After that the {thing} is back on the {place}.",
        f"So the {thing} in the {room} is {colour}.",
        f"The {other} finds the {thing} on the {place}.",
    )
    return " ".join([start, middle[int(rng.integers(4))], close[int(rng.integers(3))]])


def language_text(n: int, seed: int, held_out: bool = False) -> list[str]:
    """`n` neutral three-sentence documents of a toy studio language; `held_out` draws from another stream."""
    rng = _generator("speech-language", "held-out" if held_out else "training", seed)
    return [_document(rng) for _ in range(n)]
