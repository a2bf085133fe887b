"""Every corpus that a shipped benchmark reads, as a small folder in the layout in which it is distributed.

Texts and sounds are made up. `BUILDERS` maps a benchmark to what writes its folder below a data directory;
`EXPECTED` says, by hand, how many items of each label each split must then have.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

Counts = tuple[dict[str, int], dict[str, int], dict[str, int]]
Builder = Callable[[Path], None]


def sound(path: Path, pitch: int) -> None:
    """A tenth of a second of a sine; `pitch` keeps every file of a corpus apart from the others.

    At 16 kHz, so that nothing is resampled: rounding may differ between machines, and hashes with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(1600) / 16_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 7 * pitch) * time), 16_000)


def table(
    path: Path, header: Sequence[str] | None, rows: Iterable[Sequence[Any]], delimiter: str = ","
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([*([header] if header else []), *rows])


def lines(path: Path, rows: Iterable[Sequence[Any]], delimiter: str) -> None:
    """Cells joined without any quoting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def each(labels: Iterable[str], count: int) -> dict[str, int]:
    return dict.fromkeys(labels, count)


def iemocap(root: Path) -> None:
    labels = ("ang", "hap", "exc", "neu", "sad", "fru", "xxx")
    pitch = 0
    for session in range(1, 6):
        for dialogue in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1"):
            text = b"% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
            for number, label in enumerate(labels):
                name = f"{dialogue}_{'FM'[number % 2]}{number:03d}"
                text += (
                    f"[{number}.2901 - {number}.8357]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]\n".encode()
                )
                text += (
                    b"C-E2:\tNeutral;\t()\nC-E3:\tOther;\t(na\xefve)\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
                )
                wav = root / f"iemocap/Session{session}/sentences/wav/{dialogue}/{name}.wav"
                sound(wav, pitch := pitch + 1)
            folder = root / f"iemocap/Session{session}/dialog/EmoEvaluation"
            (folder / "Categorical").mkdir(parents=True, exist_ok=True)
            (folder / f"{dialogue}.txt").write_bytes(text)
            (folder / f"._{dialogue}.txt").write_bytes(b"\x00\x05\x16\x07Mac OS X")
            (folder / "Categorical" / f"{dialogue}_e2_cat.txt").write_text("Neutral;\n")


MELD_LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
MELD_HEADER = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season",
    "Episode", "StartTime", "EndTime",
)  # fmt: skip


def meld(root: Path) -> None:
    pitch = 0
    for stem, dialogues in (("train_sent_emo", 3), ("dev_sent_emo", 1), ("test_sent_emo", 2)):
        rows = []
        for dialogue in range(dialogues):
            for number, label in enumerate(MELD_LABELS):
                said = f'Oh, {label} again, "{stem[:2]}" number {dialogue}!'
                times = ("00:14:38,127", "00:14:40,378")
                rows.append((len(rows) + 1, said, "Ross", label, "x", dialogue, number, 3, 19, *times))
                sound(root / f"meld/{stem}/dia{dialogue}_utt{number}.flac", pitch := pitch + 1)
        table(root / f"meld/{stem}.csv", MELD_HEADER, rows)


def msp_podcast(root: Path) -> None:
    header = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
    plan = (("Train", "11"), ("Train", "12"), ("Development", "21"), ("Test1", "31"), ("Test2", "41"))
    plan += (("Train", "Unknown"), ("Train", "31"), ("Test3", "Unknown"))
    rows = []
    for part, speaker in plan:
        for label in "AFHNSUDCOX":
            name = f"MSP-PODCAST_{len(rows):04d}_0001.wav"
            rows.append((name, label, 5.9, 2.5, 5.1, speaker, "Female", part))
            sound(root / "msp-podcast/Audios" / name, len(rows))
    table(root / "msp-podcast/Labels/labels_consensus.csv", header, rows)


def crema_d(root: Path) -> None:
    for number in range(60):
        actor, label = 1001 + number // 6, ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")[number % 6]
        level = "X" if number == 5 else "XX"
        sound(root / f"crema-d/AudioWAV/{actor}_ITH_{label}_{level}.wav", number)


def ravdess(root: Path) -> None:
    for number in range(24 * 8):
        actor, label = number // 8 + 1, number % 8 + 1
        sound(root / f"ravdess/Actor_{actor:02d}/03-01-{label:02d}-01-02-01-{actor:02d}.wav", number)
    sound(root / "ravdess/Actor_01/03-02-04-01-02-01-01.wav", 999)


ESD_LABELS = ("Angry", "Happy", "Neutral", "Sad", "Surprise")


def esd(root: Path) -> None:
    for number in range(20 * 5):
        speaker, place = f"{number // 5 + 1:04d}", ESD_LABELS[number % 5]
        inner = "evaluation/" if number % 2 else ""
        sound(root / f"esd/{speaker}/{place}/{inner}{speaker}_{350 * (number % 5) + 1:06d}.wav", number)
        (root / f"esd/{speaker}/{speaker}.txt").write_text("transcripts\n")


def savee(root: Path) -> None:
    for number in range(28):
        speaker, code = (
            ("DC", "JE", "JK", "KL")[number // 7],
            ("a", "d", "f", "h", "n", "sa", "su")[number % 7],
        )
        place = f"ALL/KL_{code}01.wav" if speaker == "KL" else f"AudioData/{speaker}/{code}01.wav"
        sound(root / "savee" / place, number)


def emodb(root: Path) -> None:
    for number in range(70):
        speaker, letter = (3, 8, 9, 10, 11, 12, 13, 14, 15, 16)[number // 7], "AEFLNTW"[number % 7]
        sound(root / f"emodb/wav/{speaker:02d}a01{letter}a.{'flac' if number % 2 else 'wav'}", number)


EKMAN = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")


def goemotions(root: Path) -> None:
    for part in ("train", "dev", "test"):
        rows = [(f'[NAME] is in {part} of {EKMAN[k]}, "they say', k, f"{part}{k}") for k in range(7)]
        lines(root / f"goemotions/ekman_{part}.tsv", [*rows, ("two at once", "0,3", f"{part}x")], "\t")
    (root / "goemotions/ekman_labels.txt").write_text("".join(f"{label}\n" for label in EKMAN))


def isear(root: Path) -> None:
    labels = ("joy", "fear", "anger", "sadness", "disgust", "shame", "guilt")
    rows = [("ID", "CITY", "COUN", "SUBJ", "Field1", "MYKEY", "SIT", "STATE", "")]
    for person in range(11001, 11011):
        for number, label in enumerate(labels, start=1):
            said = f'When I once met {label} with á \\{person}\\", and left.'
            rows.append((person, 1, 1, 1, label, f"0{person}{number}", said, 1, ""))
    rows += [
        (11001, 1, 1, 1, "guilt", "01100199", refusal, 1, "")
        for refusal in (
            "[ No response.]",
            "NO RESPONSE",
            "Doesn't apply.",
            "[ I have never felt this emotion.]",
        )
    ]
    rows.append((11001, 1, 1, 1, "guilt", "01100198", "a sentence that", "was broken here", 1, ""))
    lines(root / "isear/isear.csv", rows, "|")


CARER = ("sadness", "joy", "love", "anger", "fear", "surprise")


def carer(root: Path) -> None:
    import datasets

    folder = root / "carer"
    (folder / "split").mkdir(parents=True)
    names = datasets.ClassLabel(names=list(CARER))
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    files = []
    for part in ("train", "validation", "test"):
        rows = [{"text": f"i feel {CARER[k]} in {part}", "label": k} for k in range(6)]
        datasets.Dataset.from_list(rows, features=features).to_parquet(
            folder / f"split/{part}-00000-of-00001.parquet"
        )
        files.append(f"  - split: {part}\n    path: split/{part}-*\n")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: split\n  default: true\n  data_files:\n" + "".join(files) + "---\n"
    )


SEMEVAL = (
    "anger", "anticipation", "disgust", "fear", "joy", "love", "optimism", "pessimism", "sadness", "surprise",
    "trust",
)  # fmt: skip


def semeval_2018(root: Path) -> None:
    ticked: tuple[tuple[str, ...], ...] = (
        ("anger", "disgust"), ("fear",), ("joy", "love", "optimism"), (), ("pessimism", "sadness"),
        ("anger", "sadness"), ("surprise",), ("fear", "trust"),
    )  # fmt: skip
    for part in ("train", "dev", "test-gold"):
        rows: list[Sequence[Any]] = [("ID", "Tweet", *SEMEVAL)]
        for number, on in enumerate(ticked):
            tweet = f'@you &amp; me\\n "{part} {number} #{"".join(on)}'
            rows.append((f"2018-En-{part}-{number}", tweet, *(int(label in on) for label in SEMEVAL)))
        lines(root / f"semeval-2018/2018-E-c-En-{part}.txt", rows, "\t")


ED_HEADER = ("conv_id", "utterance_idx", "context", "prompt", "speaker_idx", "utterance", "selfeval", "tags")
ED_WORDS = (
    "angry", "annoyed", "disgusted", "terrified", "joyful", "content", "lonely", "surprised", "nostalgic",
    "guilty",
)  # fmt: skip


def empathetic_dialogues(root: Path) -> None:
    for part, first in (("train", 0), ("valid", 100), ("test", 200)):
        rows: list[Sequence[Any]] = [ED_HEADER]
        for number, word in enumerate(ED_WORDS, start=first):
            situation = f'Then_comma_ in {part}_comma_ I said "{word}'
            for turn in (1, 2, 3):
                extra = ("",) if part == "train" else ("", "other|answers")
                who = 2 * number + (turn + 1) % 2
                rows.append(
                    (
                        f"hit:{number}_conv:{number}",
                        turn,
                        word,
                        situation,
                        who,
                        "Oh_comma_ so?",
                        "5|5|5",
                        *extra,
                    )
                )
        lines(root / f"empathetic-dialogues/{part}.csv", rows, ",")


ENVENT = (
    "anger", "boredom", "disgust", "fear", "guilt", "joy", "pride", "relief", "sadness", "shame", "surprise",
    "trust", "no-emotion",
)  # fmt: skip


OUTCOMES = ("positive", "neutral", "negative")


def sev(root: Path) -> None:
    """Ten scenarios to identify on and five to test on, with three outcomes each."""
    for name, prefix, count in (("sev", "work", 10), ("test_set", "work_test", 5)):
        rows = [
            {
                "theme": "Work/Job",
                "scenario": f"I put {prefix} number {k} on the table",
                "event": {outcome: f"The {outcome} thing happened to number {k}." for outcome in OUTCOMES},
                "skeleton_id": f"{prefix}_{k:02d}",
            }
            for k in range(count)
        ]
        path = root / "sev" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def crowd_envent(root: Path) -> None:
    rows = [
        (1000 + number, ENVENT[number % 13], f"I felt {number}", f'I felt ..., "again", {number}')
        for number in range(260)
    ]
    header = ("text_id", "emotion", "generated_text", "hidden_emo_text")
    table(root / "crowd_envent/generation.csv", header, rows)


BUILDERS: dict[str, Builder] = {
    "carer": carer, "crema-d": crema_d, "crowd-envent": crowd_envent,
    "crowd-envent-anger-relief": crowd_envent, "crowd-envent-fear-pride": crowd_envent, "emodb": emodb,
    "empathetic-dialogues": empathetic_dialogues, "esd": esd, "esd-mandarin": esd, "goemotions": goemotions,
    "iemocap": iemocap, "isear": isear, "meld": meld, "meld-text": meld, "msp-podcast": msp_podcast,
    "ravdess": ravdess, "savee": savee, "semeval-2018": semeval_2018, "sev": sev, "sev-paper": sev,
}  # fmt: skip

EKMAN7 = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
FOUR = {"anger": 2, "happiness": 4, "neutral": 2, "sadness": 2}
SIX = tuple(label for label in EKMAN7 if label != "surprise")
MSP = ("anger", "fear", "happiness", "neutral", "sadness")
ISEAR = ("anger", "disgust", "fear", "guilt", "happiness", "sadness", "shame")
ESD5 = ("anger", "happiness", "neutral", "sadness", "surprise")
LOVE = ("anger", "fear", "happiness", "love", "sadness", "surprise")
TWEETS = ("anger", "fear", "happiness", "neutral", "sadness")
ED = {"anger": 2, "disgust": 1, "fear": 1, "happiness": 2, "sadness": 1, "surprise": 1}

SIX_OF_SEV = ("anger", "sadness", "happiness", "fear", "surprise", "disgust")
EXPECTED: dict[str, Counts] = {
    "carer": (each(LOVE, 1), each(LOVE, 1), each(LOVE, 1)),
    "crema-d": (each(SIX, 5), each(SIX, 2), each(SIX, 3)),
    "emodb": (each(SIX, 4), each(SIX, 2), each(SIX, 4)),
    "empathetic-dialogues": (ED, ED, ED),
    "esd": (each(ESD5, 5), each(ESD5, 2), each(ESD5, 3)),
    "esd-mandarin": (each(ESD5, 5), each(ESD5, 2), each(ESD5, 3)),
    "goemotions": (each(EKMAN7, 1), each(EKMAN7, 1), each(EKMAN7, 1)),
    "iemocap": ({label: 3 * count for label, count in FOUR.items()}, FOUR, FOUR),
    "isear": (each(ISEAR, 5), each(ISEAR, 2), each(ISEAR, 3)),
    "meld": (each(EKMAN7, 3), each(EKMAN7, 1), each(EKMAN7, 2)),
    "meld-text": (each(EKMAN7, 3), each(EKMAN7, 1), each(EKMAN7, 2)),
    "msp-podcast": (each(MSP, 2), each(MSP, 1), each(MSP, 1)),
    "ravdess": (each(EKMAN7, 12), each(EKMAN7, 4), each(EKMAN7, 8)),
    "savee": (each(EKMAN7, 2), each(EKMAN7, 1), each(EKMAN7, 1)),
    "semeval-2018": (each(TWEETS, 1), each(TWEETS, 1), each(TWEETS, 1)),
    "sev": (each(SIX_OF_SEV, 24), each(SIX_OF_SEV, 6), each(SIX_OF_SEV, 15)),
    "sev-paper": (each(SIX_OF_SEV, 24), each(SIX_OF_SEV, 6), each(SIX_OF_SEV, 15)),
}
"""Items of each label in identification, validation and test. crowd-envent is shared out text by text."""

DROPPED: dict[str, dict[str, int]] = {
    "emodb": {"label L": 10},
    "empathetic-dialogues": {"`keep` for utterance_idx": 60, "label nostalgic": 3, "label guilty": 3},
    "goemotions": {"several labels": 3},
    "iemocap": {"label fru": 10, "label xxx": 10},
    "isear": {"`keep` for SIT": 4, "`keep` for STATE": 1},
    "msp-podcast": {
        "`keep` for SpkrID": 20, "split Test2": 10, "speaker also in test": 5,
        **{f"label {code}": 5 for code in "UDCOX"},
    },
    "ravdess": {"label 02": 24},
    "semeval-2018": {"several labels": 6, "label surprise": 3},
}  # fmt: skip
"""What is left out on purpose; nothing in corpora that are not listed."""


def write_sound_cells(folder: Path, sounds: Sequence[bytes | None], labels: Sequence[str]) -> None:
    """A data set with a sound in each row, as the hub stores them: bytes and the path they had."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    text = datasets.Value("string")
    features = datasets.Features({"audio": datasets.Audio(), "emotion": text, "speaker": text})
    columns = {
        "audio": [{"bytes": data, "path": f"{k}.wav" if data else None} for k, data in enumerate(sounds)],
        "emotion": list(labels),
        "speaker": [f"s{k % 3}" for k in range(len(labels))],
    }
    folder.mkdir(parents=True)
    written = pyarrow.table(columns, schema=features.arrow_schema)  # Its metadata say which feature is audio.
    pyarrow.parquet.write_table(written, folder / "train-00000-of-00001.parquet")


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """What the `datasets` library keeps of local folders goes to `folder`, not to the user's home."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        yield


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory with every corpus in it; not to be written to."""
    root = tmp_path_factory.mktemp("data")
    for build in dict.fromkeys(BUILDERS.values()):
        build(root)
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield root
