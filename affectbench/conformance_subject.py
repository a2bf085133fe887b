"""A model under examination: what it is shown, what is asked of it, and how a check is made and told.

Checks compare the engine with the public forward of the model's own class, on the items that `Subject` makes
through the ordinary path: `prepare`, `continuation`, `collate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectbench.audio_io import SAMPLE_RATE, Waveform
from affectbench.batch import Prepared
from affectbench.conformance_report import Outcome, Status
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.examples import Example, RenderedPrompt
from affectbench.intervention import UNTOUCHED, Intervention
from affectbench.model import Model
from affectbench.readout import Items, Readout, Scores
from affectbench.sites import GATE, NEURON

ASKED = " Question : Emotion :"
TEXTS = (
    "the child lost a dog",
    "rain",
    "a dog found the song the night was very sad",
    "the song is joy",
    "a child won the song the rain was very very sad the dog is found",
)
SECONDS = (0.37, 1.0, None, 0.16, 1.615)
"""Length of each item's clip; None for an item without one."""
LABELS = ("anger", "joy", "sad")
LONG = ("anger", "joy very", "sad ness sad")
COPY_LIMIT = 4 << 30
"""Bytes of weights up to which a check may load or save a second copy."""


PART = "the network is a part of the checkpoint's class, whose own forward takes inputs of another kind"


class Skipped(Exception):  # noqa: N818 - raised by checks that have nothing to say, as in test runners.
    """The check does not apply to this model, or cannot be made here."""


class Failed(Exception):  # noqa: N818
    """The model does not do what the check is about."""


@dataclass(frozen=True)
class Measured:
    """A figure, worst case, that passes up to `tolerance`; `note` says what was compared."""

    value: float
    tolerance: float
    note: str = ""


Result = Measured | str | None
"""What a check that did not fail gives: a figure, or a word on what was seen."""


@dataclass(frozen=True)
class Check:
    """One thing that every wrapper must keep.

    `proves`: what a pass means. `look`: where a wrapper's author finds the mistake. `needs`: checks without
    which this one says nothing; where one of them failed, this is skipped. `audio`: for models that hear.
    """

    id: str
    title: str
    proves: str
    look: str
    run: Callable[[Subject], Result] = field(repr=False)
    needs: tuple[str, ...] = ()
    audio: bool = False


def clip_of(place: int) -> Waveform | None:
    """A sound of item `place`: tones that glide, with noise; mono float32 at 16 kHz, within [-1, 1]."""
    seconds = SECONDS[place]
    if seconds is None:
        return None
    time_ = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(place).normal(size=time_.size) * 0.05
    tone = 0.4 * np.sin(2 * np.pi * (150 + 90 * place + 60 * time_) * time_)
    return (tone + noise).clip(-1, 1).astype(np.float32)


@dataclass
class Subject:
    """A loaded model, and how to load its like again from a folder. `folder` holds the checkpoint that was
    loaded; None where it is no local folder."""

    model: Model
    load: Callable[[Path], Model]
    folder: Path | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _peak: int = 0

    def device_peak(self) -> int:
        """The most bytes that were allocated on the model's GPU, whoever set that count back since."""
        self._peak = max(self._peak, int(torch.cuda.max_memory_allocated(self.model.device)))
        return self._peak

    @property
    def hears(self) -> bool:
        return "audio" in self.model.modalities

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.model)

    @cached_property
    def tolerance(self) -> float:
        """What rounding may do, relative to 1 + size: half the digits of the model's precision."""
        return float(torch.finfo(self.model.dtype).eps ** 0.5)

    @cached_property
    def prompts(self) -> tuple[RenderedPrompt, ...]:
        """The items' prompts. Those with a sound have their words behind it."""
        found = []
        for place, text in enumerate(TEXTS):
            start = "{audio} " if self._sounds(place) else ""
            span = (len(start), len(start) + len(text))
            found.append(RenderedPrompt(start + text + ASKED, span, LABELS))
        return tuple(found)

    @cached_property
    def clips(self) -> tuple[Waveform | None, ...]:
        return tuple(clip_of(place) if self._sounds(place) else None for place in range(len(TEXTS)))

    def _sounds(self, place: int) -> bool:
        return self.hears and SECONDS[place] is not None

    def prepared(self, place: int, clip: Waveform | None) -> Prepared:
        """Item `place` with this sound, through the family's `prepare`."""
        sound = None if clip is None else (lambda: clip)
        example = Example(f"item-{place}", TEXTS[place], sound, LABELS[place % 3], f"c{place}")
        return self.model.prepare(example, self.prompts[place])

    @cached_property
    def items(self) -> Items:
        made = [self.prepared(place, clip) for place, clip in enumerate(self.clips)]
        gold = np.arange(len(made)) % len(LABELS)
        return Items("test", tuple(made), gold, tuple(f"c{place}" for place in range(len(made))))

    @cached_property
    def places(self) -> list[int]:
        """Items whose public forward can be run: all, but for sounds that the family does not show how to
        hand to it."""
        shown = hasattr(self.model, "audio_inputs") and self.model.all_of_class
        return [place for place, clip in enumerate(self.clips) if clip is None or shown]

    def some(self, places: Sequence[int]) -> Items:
        chosen = tuple(self.items.items[place] for place in places)
        return Items("test", chosen, self.items.gold[list(places)], tuple(item.id for item in chosen))

    def readout(self, answers: Sequence[str] = LABELS) -> Readout:
        """How `answers` are read behind the prompts. Raises `Failed` where two of them are one."""
        prompt = self.prompts[TEXTS.index("rain")]
        found = tuple(tuple(self.model.continuation(prompt, f" {answer}")) for answer in answers)
        if len(set(found)) < len(found):
            raise Failed(f"the answers {', '.join(answers)} have the same tokens: {found}")
        return Readout(LABELS, found)

    def scores(
        self, interventions: Sequence[Intervention] = (UNTOUCHED,), items: Items | None = None
    ) -> Scores:
        """The engine's label scores (K, N, 3), all of it in as few passes as it likes; never from memory."""
        asked = self.readout()
        return Engine(self.model).predict(items or self.items, asked, interventions).scores

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites that this model lets be edited; experts may gate in a way of their own."""
        try:
            self.model.site_module(GATE, 0)
        except AffectbenchError:
            return (NEURON,)
        return (GATE, NEURON)

    @cached_property
    def routed(self) -> bool:
        """Whether the units are those of experts, which no hook of a plain tensor reaches."""
        return any(experts is not None for experts in self.model.experts)

    @property
    def small(self) -> bool:
        """Whether a second copy of the weights is no burden."""
        sizes: list[int] = [
            weight.numel() * weight.element_size() for weight in self.model.network.parameters()
        ]
        return sum(sizes) <= COPY_LIMIT


def _tensor(found: Any) -> Tensor:
    return found.detach().cpu() if isinstance(found, Tensor) else torch.tensor(found)


def distance(found: Any, expected: Any) -> float:
    """The largest difference, relative to 1 + size; infinite where one of them is not finite."""
    one, two = (_tensor(each).double() for each in (found, expected))
    if one.shape != two.shape:
        raise Failed(f"shapes differ: {tuple(one.shape)} and {tuple(two.shape)}")
    apart: Tensor = (one - two).abs() / (1 + two.abs())
    worst = float(apart.max()) if apart.numel() else 0.0
    return worst if np.isfinite(worst) else float("inf")


def same_bits(found: Any, expected: Any, what: str) -> None:
    """Raises `Failed` unless two arrays are equal, bit for bit."""
    one, two = _tensor(found), _tensor(expected)
    if one.shape != two.shape or not torch.equal(one, two):
        raise Failed(f"{what}: not the same bits, apart by up to {distance(one, two):.2g}")


def examine(check: Check, subject: Subject, known: Sequence[Check]) -> Outcome:
    """The outcome of one check, those it needs first; each is made once for a subject."""
    if check.id in subject.outcomes:
        return subject.outcomes[check.id]
    started = time.perf_counter()
    failed = _failed(check, subject, known)
    status: Status
    reason, value, tolerance = "", None, None
    if failed:
        status, reason = "skipped", f"says nothing as long as {', '.join(failed)} fails"
    elif check.audio and not subject.hears:
        status, reason = "skipped", "the model takes no audio"
    else:
        status, reason, value, tolerance = _made(check, subject)
    seconds = time.perf_counter() - started
    subject.outcomes[check.id] = Outcome(
        id=check.id, title=check.title, status=status, reason=reason, value=value, tolerance=tolerance,
        seconds=round(seconds, 3),
    )  # fmt: skip
    return subject.outcomes[check.id]


def _failed(check: Check, subject: Subject, known: Sequence[Check]) -> list[str]:
    """Which of the checks that `check` needs failed, and of those that they need."""
    found: dict[str, None] = {}
    for other in known:
        if other.id in check.needs:
            status = examine(other, subject, known).status
            found.update({other.id: None} if status == "failed" else {})
            found.update(dict.fromkeys(_failed(other, subject, known)) if status == "skipped" else {})
    return list(found)


def _made(check: Check, subject: Subject) -> tuple[Status, str, float | None, float | None]:
    hint = f"; look at {check.look}"
    try:
        with torch.no_grad():
            result = check.run(subject)
    except Skipped as reason:
        return "skipped", str(reason), None, None
    except Failed as found:
        return "failed", f"{found}{hint}", None, None
    except AffectbenchError as error:
        return "failed", f"{error.message}{hint}", None, None
    except Exception as error:  # A wrapper may raise anything; it is a finding, not the end of the run.
        problem = (str(error).strip() or "no message").splitlines()[0]
        return "failed", f"{type(error).__name__}: {problem}{hint}", None, None
    if not isinstance(result, Measured):
        return "passed", result or "", None, None
    value = float(f"{result.value:.3g}") if np.isfinite(result.value) else None
    if result.value <= result.tolerance:
        return "passed", result.note, value, result.tolerance
    apart = "something is not finite" if value is None else f"apart by {value:.3g}"
    where = f"{result.note}: " if result.note else ""
    return (
        "failed",
        f"{where}{apart}, more than rounding ({result.tolerance:.2g}){hint}",
        value,
        result.tolerance,
    )
