"""What an alignment task says: whose EEG is compared with which models' states, how, and against what."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from affectbench.errors import AffectbenchError
from affectbench.recorded_eeg import RecordedEeg
from affectbench.task_file import TaskFile
from affectbench.task_parts import Count, Frozen, Name, Number, Seed, Text
from affectbench.yaml_loading import reject

Positive = Annotated[Number, Field(gt=0)]

SOUND_ONLY = ("grid", "lags", "consensus", "correction", "baseline", "affect")
"""Keys of a task that mode ``paper`` would not read."""


class SimulatedEeg(Frozen):
    """Simulated listeners of a story of reference-speech clips, in whom one layer of a model is heard.

    `point`: which of the model's states are planted, 0 for what enters the decoder; `lag` in seconds; `snr`:
    variance of the signal over that of the noise at the electrodes, in 0.5-20 Hz; `rate` of the EEG in Hz.
    `drive`: what of the states is heard, all, or, in pieces of an emotion, only what that emotion's planted
    units add to them (``planted-units``; neutral pieces as before): then the answer to whether emotion units
    matter is known.
    """

    later = frozenset({"drive"})

    reader: Literal["simulated"]
    model: Name
    point: Annotated[int, Field(strict=True, ge=0)]
    lag: Annotated[Number, Field(ge=0, le=1)]
    snr: Annotated[Number, Field(ge=0)]
    drive: Literal["states", "planted-units"] = "states"
    sentences: Annotated[int, Field(strict=True, ge=10)] = 24
    subjects: Annotated[int, Field(strict=True, ge=2)] = 8
    montage: Literal["easycap-M10", "biosemi128"] = "easycap-M10"
    rate: Positive = 100.0
    seed: Seed = 0


class Lags(Frozen):
    """EEG is read from 0 to `until` seconds after the sound, every `step` seconds; all lags are reported."""

    until: Annotated[Number, Field(ge=0, le=2)] = 0.6
    step: Positive = 0.05


class AlignmentTask(TaskFile):
    """Recordings, pieces of speech, and how they are compared with hidden states.

    `band`: Hz of the band pass. `seconds`: pieces (a sentence within one sound file) that last so long are
    compared. `grid`: cells of time a second. `components`: principal components of the states. `models` are
    those that are run unless others are named; `baseline` names the affect without which others are
    contrasted; `affect`: by labels of the pieces, or, where there are none, by a weak guess from their sound.
    `data`: the folder with recordings, below the directory of data.

    `mode` ``paper`` compares as the released code of arXiv 2601.16540 does, defects included: at each model's
    own steps, without lags, with released estimators. What only our way has must then be left out.
    """

    digest_without: ClassVar[frozenset[str]] = frozenset({"models", "data"})
    later = frozenset({"mode", "affect"})

    kind: Literal["alignment"]
    licence: Text
    citation: str = ""
    obtain: str = ""
    mode: Literal["sound", "paper"] = "sound"
    data: Name | None = None
    source: Annotated[SimulatedEeg | RecordedEeg, Field(discriminator="reader")]
    models: tuple[Name, ...] = ()
    site: Literal["residual", "middle", "neuron", "gate", "head"] = "residual"
    band: tuple[Positive, Positive] = (0.5, 20.0)
    seconds: tuple[Positive, Positive] = (2.0, 15.0)
    grid: Positive = 12.5
    lags: Lags = Lags()
    components: Count = 20
    distance: Literal["correlation", "euclidean", "cosine"] = "correlation"
    metrics: Annotated[tuple[Text, ...], Field(min_length=1)]
    consensus: Literal["geometric", "min", "mean"] = "geometric"
    correction: Literal["fdr", "max_t"] = "fdr"
    baseline: str = ""
    affect: Literal["labels", "weak"] = "labels"
    seed: Seed = 0

    @model_validator(mode="after")
    def _data_are_somewhere(self) -> AlignmentTask:
        if isinstance(self.source, RecordedEeg) and self.data is None:
            reject("data", "recordings lie in a folder: name it")
        return self

    @model_validator(mode="after")
    def _only_what_the_mode_has(self) -> AlignmentTask:
        for key in SOUND_ONLY if self.mode == "paper" else ():
            if key in self.model_fields_set:
                reject(key, "mode paper has none: take it out")
        return self

    @model_validator(mode="after")
    def _emotions_have_a_baseline(self) -> AlignmentTask:
        if self.answer_known and not self.baseline:
            reject("baseline", "`drive: planted-units` needs the label of pieces that are heard as before")
        return self

    @property
    def answer_known(self) -> bool:
        """Whether emotion units were planted in the listeners."""
        return isinstance(self.source, SimulatedEeg) and self.source.drive == "planted-units"

    @property
    def simulated(self) -> SimulatedEeg:
        """The simulated listeners. Raises `AffectbenchError` where people were recorded."""
        if isinstance(self.source, RecordedEeg):
            raise AffectbenchError(
                f"task {self.name} is of recordings: nothing is planted in them",
                hint="ask for --study alignment",
            )
        return self.source

    @model_validator(mode="after")
    def _pairs_ascend(self) -> AlignmentTask:
        for key in ("band", "seconds"):
            pair: Any = getattr(self, key)
            if pair[0] >= pair[1]:
                reject(key, f"expected a lower and an upper value, found {list(pair)}")
        return self
