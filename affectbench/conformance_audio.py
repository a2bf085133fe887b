"""Checks of what is heard: sounds change answers, each for itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from affectbench.audio_io import SAMPLE_RATE
from affectbench.conformance_subject import Check, Failed, Result, Subject, clip_of, same_bits


def audio_heard(subject: Subject) -> Result:
    """Another sound of the same length, silence, and the same sound backwards give other scores."""
    place = next(place for place, clip in enumerate(subject.clips) if clip is not None)
    clip = clip_of(place)
    assert clip is not None, "chosen for its sound"
    noise = np.random.default_rng(9).normal(size=clip.size).clip(-1, 1).astype(np.float32)
    least = np.inf
    with_clip = _scores(subject, place, clip)
    for what, other in (("noise", noise), ("silence", np.zeros_like(clip)), ("itself backwards", clip[::-1])):
        moved = float(np.abs(_scores(subject, place, np.ascontiguousarray(other)) - with_clip).max())
        if moved == 0:
            raise Failed(f"a sound and {what} give the same scores, bit for bit: the sound is not heard")
        least = min(least, moved)
    return f"another sound moves a score by {least:.2g} or more"


def _scores(subject: Subject, place: int, clip: np.ndarray) -> np.ndarray:
    item = subject.prepared(place, clip)
    data = subject.some([place])
    found: np.ndarray = subject.scores(items=replace(data, items=(item,)))[0, 0]
    return found


def audio_alone(subject: Subject) -> Result:
    """Embeddings in one order, in the other, and after a long clip: the same bits."""
    model = subject.model
    clips = [clip for clip in subject.clips if clip is not None]
    first = [model.audio_embeddings(clip) for clip in clips]
    long = np.random.default_rng(3).normal(size=3 * SAMPLE_RATE).clip(-1, 1).astype(np.float32)
    model.audio_embeddings(long)
    again = [model.audio_embeddings(clip) for clip in reversed(clips)][::-1]
    for place, (one, two) in enumerate(zip(first, again, strict=True)):
        same_bits(two, one, f"clip {place} of {len(clips[place])} samples, heard after a longer one")
        if not bool(torch.isfinite(one).all()):
            raise Failed(f"clip {place}: an embedding is not finite")
    return f"{', '.join(str(len(one)) for one in first)} embeddings"


CHECKS = (
    Check(
        "audio_heard", "Audio changes the answer",
        "Another sound behind the same words gives other scores.",
        "`collate` and `prepare`: the embeddings must take the placeholders' places", audio_heard,
        ("forward",), audio=True,
    ),
    Check(
        "audio_alone", "A sound is heard for itself",
        "A clip's embeddings do not depend on the clips before it, nor on their lengths.",
        "`audio_embeddings`: what it keeps between calls, and what pads a clip", audio_alone, (), audio=True,
    ),
)  # fmt: skip
