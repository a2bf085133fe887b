"""One item of a benchmark, as everything downstream sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from affectbench.audio_io import Waveform, read_waveform
from affectbench.errors import AffectbenchError


class DatasetError(AffectbenchError):
    """The data of a benchmark are missing, contradict its YAML, or leave nothing to measure."""


class MissingDataError(DatasetError):
    """The data of a benchmark are not on this machine."""


@dataclass(frozen=True)
class Example:
    """One labelled item. `audio` is a file, or a function that synthesises it; `fields` fill the prompt."""

    id: str
    text: str | None
    audio: Path | Callable[[], Waveform] | None
    label: str
    cluster: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def waveform(self) -> Waveform:
        """The sound, mono float32 at 16 kHz, shape (samples,). Raises `AudioError` or `DatasetError`."""
        if self.audio is None:
            raise DatasetError(f"item {self.id} has no audio", hint="use a benchmark of modality audio")
        if isinstance(self.audio, Path):
            return read_waveform(self.audio)
        return self.audio()


@dataclass(frozen=True)
class ItemError:
    """An item that could not be used, and why. `path` is its file, or the table it stands in."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True)
class RenderedPrompt:
    """What is put to the model for one item.

    `text` still holds ``{audio}`` where the sound goes. `content_span` is the (start, end) of the item's own
    text, in characters; None where it has none. `answer_options` are the answers in label order. `order`
    (letters only): the label index that each lettered option stands for, in the order shown. `turns`: what a
    chat template gets instead of `text`: the system's line and the user's. `double_special`: see
    `ExpressionBenchmark`.
    """

    text: str
    content_span: tuple[int, int] | None
    answer_options: tuple[str, ...]
    order: tuple[int, ...] | None = None
    turns: tuple[str, str] | None = None
    double_special: bool = False


@dataclass(frozen=True)
class ChoiceItem:
    """A multiple-choice item without emotion; `answer` is the index of the right choice."""

    id: str
    context: str
    choices: tuple[str, ...]
    answer: int
