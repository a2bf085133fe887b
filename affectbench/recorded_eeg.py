"""What an alignment task says of recordings of people: which files, how they are handled, who spoke when."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from affectbench.task_parts import Frozen, Number, Text
from affectbench.yaml_loading import reject

Positive = Annotated[Number, Field(gt=0)]
Kind = Literal["eeg", "eog", "misc", "ecg", "emg", "stim"]


class Handling(Frozen):
    """What is done to each recording.

    `channels`: types of channels by name, over those of the files. `montage`: a montage of MNE whose
    positions count instead of the files'. `line`: frequency of the mains, over that of the files.
    `reference`: ``average``, ``none``, or channels whose mean is subtracted. `rate`: Hz after resampling.
    `bad`: which channels are replaced by their neighbours: those that the data set declares, those that the
    rules find, both or none.
    """

    channels: dict[str, Kind] = Field(default_factory=dict)
    montage: str = ""
    line: Positive | None = None
    reference: Literal["average", "none"] | Annotated[tuple[Text, ...], Field(min_length=1)] = "average"
    rate: Positive | None = None
    bad: Literal["declared", "found", "both", "none"] = "both"


class WordColumns(Frozen):
    """Names of the columns of a table of words. Times are in seconds; a word ends at `offset`, or lasts
    `duration`. `order` numbers the words of the story."""

    word: Text
    onset: Text
    segment: Text
    sentence: Text
    order: Text
    offset: Text | None = None
    duration: Text | None = None

    @model_validator(mode="after")
    def _one_end(self) -> WordColumns:
        if (self.offset is None) == (self.duration is None):
            reject("", "give either `offset` or `duration`")
        return self


class TableWords(Frozen):
    """Words of the story in one table, comma- or tab-separated by its ending; onsets count from the start of
    the sound of their segment."""

    kind: Literal["table"]
    path: Text
    columns: WordColumns


class TextGridWords(Frozen):
    """Words of each sound in a Praat TextGrid of its own; `path` holds ``{segment}``.

    Labels of `silence` (regardless of case) are no words. TextGrids of forced aligners have no sentences: one
    ends where no word is spoken for `pause` seconds. With `transcript`, the text that was read, in UTF-8, one
    ends where its punctuation says so: a file for each sound if it holds ``{segment}``, else one for all, in
    the order of the segments' names. At least the share `matched` of the words must be in it.
    """

    later = frozenset({"transcript", "matched"})

    kind: Literal["textgrid"]
    path: Text
    tier: Text = "words"
    silence: tuple[str, ...] = ("", "sp", "sil", "spn", "ns", "<s>", "</s>", "<sil>", "{sl}", "{lg}", "{ns}")
    pause: Positive = 0.3
    transcript: str = ""
    matched: Annotated[Number, Field(gt=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _has_a_segment(self) -> TextGridWords:
        if "{segment}" not in self.path:
            reject("path", "expected {segment} in it: every sound has its own TextGrid")
        if self.transcript and "pause" in self.model_fields_set:
            reject("pause", "a transcript says where sentences end: give it or `pause`")
        return self


class RecordedEeg(Frozen):
    """Recordings of people who heard a story, below the task's folder of data.

    With `format` ``bids`` they are the recordings of `task` in it; with ``files``, those that match the
    pattern `files`, which holds ``{subject}`` and may hold ``{session}`` and ``{run}``. A subject is one
    listener, however many recordings there are; of `sessions`, if any are named, the others are not read.
    `variable` is of FieldTrip files, and `unit` of those and of channels of EDF and BDF that name none.

    `words` are timed from the start of the sound of their segment. Where a recording has several segments,
    `events` (columns of the events.tsv beside it) says when each word was heard in it; else each run is one
    segment, of the same number, whose sound starts `start` seconds into the recording, or after the one mark
    in it that says `mark`. `sounds` is a pattern with ``{segment}``. `participants`: what columns of
    participants.tsv must hold. `leave_out`: subjects.
    """

    later = frozenset({"sessions", "mark"})

    reader: Literal["recordings"]
    format: Literal["bids", "files"]
    task: str = ""
    files: str = ""
    sessions: tuple[Text, ...] = ()
    variable: Text = "data"
    unit: Literal["V", "mV", "uV"] = "V"
    words: Annotated[TableWords | TextGridWords, Field(discriminator="kind")]
    events: WordColumns | None = None
    start: Annotated[Number, Field(ge=0)] = 0.0
    mark: str = ""
    sounds: Text
    participants: dict[str, Text] = Field(default_factory=dict)
    leave_out: tuple[Text, ...] = ()
    handling: Handling = Handling()

    @model_validator(mode="after")
    def _whole(self) -> RecordedEeg:
        if self.format == "bids" and not self.task:
            reject("task", "recordings of a BIDS folder are those of a `task`")
        if self.format == "files" and "{subject}" not in self.files:
            reject("files", "expected a pattern with {subject} in it")
        if self.format == "files" and self.sessions and "{session}" not in self.files:
            reject("sessions", "the pattern `files` has no {session} in it")
        if self.events is not None and (self.mark or self.start):
            reject("events", "events say when sounds start: give them, or `start` and `mark`")
        if "{segment}" not in self.sounds:
            reject("sounds", "expected a pattern with {segment} in it")
        return self
