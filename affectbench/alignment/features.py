"""Hidden states of every layer of an audio model at the tokens of a sound, each with its start and end in
time.

Only tokens of the sound count: words of a prompt were heard by nobody. The time of a token follows from the
rule by which its family counts embeddings, and is checked against the length of the sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from affectbench.alignment.grid import Spans
from affectbench.audio_io import SAMPLE_RATE, Waveform
from affectbench.errors import AffectbenchError
from affectbench.examples import Example, RenderedPrompt
from affectbench.intervention import AUDIO, UNTOUCHED, Intervention, hooked
from affectbench.passes import watching

if TYPE_CHECKING:
    from affectbench.audio_language import AudioLanguageModel
    from affectbench.batch import Prepared
    from affectbench.engine import Engine

RESIDUAL = "residual"
SECONDS = ((12, 24), (30, 60))
"""Lengths of two silent clips from which the time of a token is read: whole windows of every family. The
second pair is for towers that hear 30 s of silence with any shorter clip."""
SLACK = 1.5
"""Tokens by which their number may differ from the length of a sound: towers pad or cut its end."""


@dataclass(frozen=True)
class States:
    """Hidden states (points, tokens, channels) of one sound, and the `spans` (tokens, 2) of the tokens in
    seconds. `points` names the layers; at `residual` the first is what enters the decoder, the sound's
    embeddings from tower and projector. Values are float32 as a model gives them, which no model exceeds."""

    points: tuple[str, ...]
    values: npt.NDArray[np.floating[Any]]
    spans: Spans

    def at(self, places: Sequence[int]) -> States:
        """The same at some of the points."""
        return States(tuple(self.points[place] for place in places), self.values[list(places)], self.spans)


def token_seconds(model: AudioLanguageModel) -> float:
    """Seconds of sound behind one token: what the family's counting rule adds for a longer clip.

    Raises `AffectbenchError` where it adds nothing.
    """
    for first, second in SECONDS:
        counts = [model.embeddings_of(seconds * SAMPLE_RATE) for seconds in (first, second)]
        if counts[1] > counts[0]:
            return (second - first) / (counts[1] - counts[0])
    raise AffectbenchError(
        f"{model.card.name} makes {counts[0]} and {counts[1]} embeddings of {first} and {second} s",
        hint="a family whose tokens do not grow with the sound has no time of a token",
    )


def token_spans(model: AudioLanguageModel, samples: int, tokens: int) -> Spans:
    """Start and end (tokens, 2) in seconds of the tokens of a clip.

    A tower may hear a clip with silence up to a whole window: tokens of that silence lie behind the end of
    the sound. Raises `AffectbenchError` where the number of tokens does not fit the clip's length.
    """
    step, seconds = token_seconds(model), samples / SAMPLE_RATE
    fits = abs(tokens * step - seconds) <= SLACK * step
    if not fits and tokens * step > seconds:
        window = round(tokens * step * SAMPLE_RATE)
        fits = model.embeddings_of(samples) == tokens == model.embeddings_of(window)
    if not fits:
        raise AffectbenchError(
            f"{model.card.name}: {tokens} tokens of {step * 1000:.0f} ms for {seconds:.2f} s of sound",
            hint="the clip is longer than the model's window, or the family's `audio_length` is not its "
            "tower's",
        )
    starts = np.arange(tokens) * step
    return np.stack([starts, starts + step], axis=1)


def prepared(model: AudioLanguageModel, name: str, waveform: Waveform) -> Prepared:
    """A sound and nothing else, ready for the decoder; the tower runs here."""
    example = Example(name, None, lambda: waveform, "", name)
    return model.prepare(example, RenderedPrompt("{audio}", None, ()))


def point_names(model: Any, site: str = RESIDUAL) -> tuple[str, ...]:
    """What the layers of a site are called, from the lowest on."""
    layers = tuple(f"layer {layer + 1}" for layer in range(len(model.layers)))
    return ("embeddings", *layers) if site == RESIDUAL else layers


@torch.no_grad()
def hidden_states(
    engine: Engine,
    item: Prepared,
    samples: int,
    interventions: Sequence[Intervention] = (UNTOUCHED,),
    site: str = RESIDUAL,
) -> list[States]:
    """States of one prepared sound under each intervention, all in one pass; tokens of silence that a tower
    puts behind it are left out.

    Raises `AffectbenchError` for a site that the model does not have, and where tokens and time disagree.
    """
    model: Any = engine.model
    heard = (item.roles & AUDIO).bool()
    spans = token_spans(model, samples, int(heard.sum()))
    sounding = spans[:, 0] < samples / SAMPLE_RATE - 1e-9
    batch = model.collate([item])
    with _read(model, site) as found, engine.editing(list(interventions)) as edits:
        edits.roles = batch.roles
        model.decode(batch.repeated(len(interventions)))
    engine.spent(len(interventions))
    names = point_names(model, site)
    layers = [found[place][:, heard.to(found[place].device)] for place in range(len(names))]
    values = torch.stack([layer.float().cpu() for layer in layers], dim=1).numpy()
    return [States(names, each[:, sounding], spans[sounding]) for each in values]


@contextmanager
def _read(model: Any, site: str) -> Iterator[dict[int, Tensor]]:
    """What passes the points of a site, (rows, T, channels) each, once the block has run the model."""
    if site == RESIDUAL:
        with watching(model, range(len(model.layers)), ()) as watched:
            yield watched.entries
        return
    found: dict[int, Tensor] = {}

    def reader(layer: int) -> Any:
        def read(activation: Any) -> None:
            if not isinstance(activation, Tensor):
                raise AffectbenchError(
                    f"site {site!r} of a mixture of experts has no state for every token",
                    hint=f"use site {RESIDUAL!r}",
                )
            found[layer] = activation

        return read

    points = [(*model.site_module(site, layer), reader(layer)) for layer in range(len(model.layers))]
    with hooked(points):
        yield found
