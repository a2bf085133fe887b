"""BIDS folders of simulated listeners to a short story, laid out as nm000180 (Alice) and ds004408 are."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mne
import mne_bids
import soundfile

from affectbench.alignment.features import States
from affectbench.alignment.head import head_model
from affectbench.alignment.listening import heard
from affectbench.alignment.recording import Recording
from affectbench.alignment.simulation import Plant, drive, simulated
from affectbench.alignment.story import Story
from affectbench.audio_io import SAMPLE_RATE
from affectbench.engine import Engine
from affectbench.placement import load_from
from affectbench.plan import checkpoint_of
from affectbench.registry import Registry

RATE = 100.0
SHIFT = 0.37
"""Seconds by which each listener's recording begins later than that of the one before."""
COLUMNS = ["Word", "Segment", "onset", "offset", "Order", "LogFreq", "Position", "Sentence", "IsLexical"]
EVENTS = ["onset", "duration", "trial_type", "word", "stim_file", "word_index", "sentence_id", "segment"]


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps what, and how it was recorded; `placed`: with an electrodes.tsv."""

    task: str = "story"
    words: str = "sourcedata/words.csv"
    sound: str = "stimuli/part{}.wav"
    textgrid: str = "stimuli/part{}.TextGrid"
    montage: str = "easycap-M10"
    rate: float = RATE
    placed: bool = False


OWN = Layout()
ALICE = Layout(
    "alicelistening", "sourcedata/AliceChapterOne-EEG.csv",
    "stimuli/DownTheRabbitHoleFinal_SoundFile{}.wav", rate=200.0, placed=True,
)  # fmt: skip
OLD_MAN = Layout(
    "listening", sound="stimuli/audio{}.wav", textgrid="stimuli/audio{}.TextGrid", montage="biosemi128",
    rate=256.0,
)  # fmt: skip


def heard_by_reference(story: Story) -> list[States]:
    """What reference-audio makes of a story."""
    registry = Registry(installed=False)
    card = registry.model("reference-audio")
    engine = Engine(load_from(registry, card, checkpoint_of(card), "cpu"))
    return [each for (each,) in heard(engine, story.pieces, story.sounds, "residual")]


def write_folder(
    root: Path, story: Story, states: Sequence[States], plant: Plant, subjects: int, layout: Layout = OWN,
    *, missing: int = 2,
) -> None:  # fmt: skip
    """Recordings of so many subjects; the first `missing` words are in events.tsv alone. Subject 90 has no
    events, 91 was not analysed."""
    source, head = drive(story, states, plant, layout.rate), head_model(layout.montage)
    write_sounds(root, story, layout)
    write_words(root / layout.words, story, missing)
    names = [f"{number + 1:03d}" for number in range(subjects)] + ["090", "091"]
    for place, name in enumerate(names):
        recording = simulated(story, source, plant, head, subject=place, seed=5, rate=layout.rate)
        shift = place * SHIFT
        late = replace(recording, data=recording.data[:, round(shift * layout.rate) :])
        path = write_recording(root, name, late, layout)
        if name != "090":
            write_events(path, story, shift)
    rows = [f"sub-{name}\t{'no' if name == '091' else 'yes'}" for name in names]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tanalyzed", *rows]) + "\n")


def write_sounds(root: Path, story: Story, layout: Layout) -> None:
    (root / "stimuli").mkdir(parents=True)
    for name, sound in story.sounds.items():
        number = name.removeprefix("segment-")
        soundfile.write(root / layout.sound.format(number), sound, SAMPLE_RATE, subtype="FLOAT")


def write_words(path: Path, story: Story, missing: int) -> None:
    """The words, timed from the start of their segment's sound, with a byte order mark."""
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for order, word in enumerate(story.words, start=1):
            number, end = word.segment.removeprefix("segment-"), word.heard + word.duration
            if order > missing:
                table.writerow(
                    [word.text, number, word.heard, end, order, 8.65, 1, int(word.sentence[1:]), 1]
                )


def write_recording(root: Path, subject: str, recording: Recording, layout: Layout) -> Path:
    """Returns the path of its events.tsv."""
    info = mne.create_info(list(recording.names), recording.rate, list(recording.types))
    raw = mne.io.RawArray(recording.data, info, verbose="error")
    raw.info["line_freq"] = 60
    if layout.placed:
        raw.set_montage(layout.montage, on_missing="ignore")
    path = mne_bids.BIDSPath(subject=subject, task=layout.task, datatype="eeg", root=root)
    mne_bids.write_raw_bids(raw, path, format="BrainVision", allow_preload=True, verbose="error")
    return Path(path.copy().update(suffix="events", extension=".tsv").fpath)


def write_events(path: Path, story: Story, shift: float) -> None:
    """The words, timed from the start of the recording."""
    lines = ["\t".join(EVENTS), "0.5\t0\tstart\tn/a\tn/a\tn/a\tn/a\tn/a"]
    for order, word in enumerate(story.words, start=1):
        number = word.segment.removeprefix("segment-")
        sentence = int(word.sentence[1:])
        row = [word.onset - shift, word.duration, "word", word.text, "n/a", order, sentence, number]
        lines.append("\t".join(str(cell) for cell in row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def task(**changes: object) -> dict[str, object]:
    """The task of such a folder, named ``mine``, its data in ``story``."""
    words = {"word": "Word", "onset": "onset", "offset": "offset", "segment": "Segment",
             "sentence": "Sentence", "order": "Order"}  # fmt: skip
    events = {"word": "word", "onset": "onset", "duration": "duration", "segment": "segment",
              "sentence": "sentence_id", "order": "word_index"}  # fmt: skip
    source = {
        "reader": "recordings", "format": "bids", "task": "story", "events": events,
        "words": {"kind": "table", "path": "sourcedata/words.csv", "columns": words},
        "sounds": "stimuli/part{segment}.wav", "participants": {"analyzed": "yes"},
        "handling": {"montage": "easycap-M10", "rate": 50.0},
    }  # fmt: skip
    content = {
        "kind": "alignment", "name": "mine", "version": 1, "licence": "Apache-2.0", "data": "story",
        "source": source, "models": ["reference-audio"], "seconds": [1.0, 15.0],
        "metrics": ["rsa_spearman", "cka_linear"],
    }  # fmt: skip
    return content | changes


def write_runs(
    root: Path, story: Story, states: Sequence[States], plant: Plant, subjects: int, layout: Layout = OWN,
    *, sessions: bool = False,
) -> None:  # fmt: skip
    """The same listeners laid out as ds004408 is: a recording a sound, which begins with it, words in
    TextGrids, no events; an unnamed first column in channels.tsv, and mains that are ``n/a``. With
    `sessions`, each sound was heard in one of its own."""
    rate, head = layout.rate, head_model(layout.montage)
    source = drive(story, states, plant, rate)
    write_sounds(root, story, layout)
    for segment in story.sounds:
        number = segment.removeprefix("segment-")
        (root / layout.textgrid.format(number)).write_text(textgrid(story, segment), encoding="utf-8")
    for place in range(subjects):
        recording = simulated(story, source, plant, head, subject=place, seed=5, rate=rate)
        for segment, start in story.starts.items():
            first, count = round(start * rate), round((len(story.sounds[segment]) / SAMPLE_RATE + 1.5) * rate)
            run = replace(recording, data=recording.data[:, first : first + count])
            number = segment.removeprefix("segment-")
            session = f"day{number}" if sessions else None
            path = mne_bids.BIDSPath(
                subject=f"{place + 1:03d}", session=session, task=layout.task, run=number, datatype="eeg",
                root=root,
            )  # fmt: skip
            write_run(path, run)


def write_run(path: mne_bids.BIDSPath, recording: Recording) -> None:
    info = mne.create_info(list(recording.names), recording.rate, list(recording.types))
    raw = mne.io.RawArray(recording.data, info, verbose="error")
    mne_bids.write_raw_bids(raw, path, format="BrainVision", allow_preload=True, verbose="error")
    channels = Path(path.copy().update(suffix="channels", extension=".tsv").fpath)
    header, *rows = channels.read_text(encoding="utf-8-sig").splitlines()
    numbered = [f"\t{header}", *(f"{place}\t{row}" for place, row in enumerate(rows))]
    channels.write_text("\n".join(numbered) + "\n", encoding="utf-8")
    sidecar = Path(path.copy().update(suffix="eeg", extension=".json").fpath)
    facts = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    sidecar.write_text(json.dumps(facts | {"PowerLineFrequency": "n/a"}), encoding="utf-8")


def textgrid(story: Story, segment: str) -> str:
    """A short TextGrid of one sound, with ``sp`` where nobody speaks."""
    seconds = len(story.sounds[segment]) / SAMPLE_RATE
    intervals: list[tuple[float, float, str]] = []
    at = 0.0
    for word in (word for word in story.words if word.segment == segment):
        if word.heard > at + 1e-6:
            intervals.append((at, word.heard, "sp"))
        at = word.heard + word.duration
        intervals.append((word.heard, at, word.text))
    intervals.append((at, seconds, "sp"))
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", str(seconds), "<exists>", "1",
             '"IntervalTier"', '"words"', "0", str(seconds), str(len(intervals))]  # fmt: skip
    for start, end, text in intervals:
        lines += [str(start), str(end), f'"{text}"']
    return "\n".join(lines) + "\n"


RUNS = {
    "reader": "recordings", "format": "bids", "task": "story", "sounds": "stimuli/part{segment}.wav",
    "words": {"kind": "textgrid", "path": "stimuli/part{segment}.TextGrid", "pause": 0.3},
    "handling": {"montage": "easycap-M10", "line": 50.0, "rate": 50.0},
}  # fmt: skip
"""The source of such a folder."""
