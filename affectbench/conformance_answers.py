"""Checks of what is asked and answered: labels, padding, edits, generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from affectbench.batch import Batch, Prefix, Prepared
from affectbench.conformance_oracle import (
    edited,
    public,
    public_scores,
    scaled_weights,
    scores_under,
)
from affectbench.conformance_subject import (
    LABELS,
    LONG,
    PART,
    TEXTS,
    Check,
    Failed,
    Measured,
    Result,
    Skipped,
    Subject,
    distance,
)
from affectbench.engine import Engine
from affectbench.generation import generate
from affectbench.intervention import (
    ANSWER,
    AUDIO,
    CONTENT,
    UNTOUCHED,
    VALID,
    Intervention,
    PackedEdits,
    Positions,
    mean_ablation,
    scale,
)
from affectbench.prompts import UNPARSED, parse_answer
from affectbench.sites import GATE, NEURON

STEPS = 5


def labels(subject: Subject) -> Result:
    """An answer's tokens say the answer, are read back as its label, and follow the prompt's tokens."""
    model, prompt = subject.model, subject.prompts[TEXTS.index("rain")]
    for answers in (LABELS, LONG):
        found = subject.readout(answers).candidates
        for place, (answer, tokens) in enumerate(zip(answers, found, strict=True)):
            told = model.tokenizer.decode(list(tokens), skip_special_tokens=True)
            if told.split() != answer.split():
                raise Failed(f"the answer {answer!r} became the tokens {tokens}, which say {told!r}")
            if parse_answer(told, answers) != place:
                raise Failed(f"the generated answer {told!r} is not read as {answer!r}")
    if parse_answer("night", LABELS) != UNPARSED:
        raise Failed("a text that names no label is read as one")
    text, _ = model.render(prompt)
    if model.audio_token not in text or not model.audio_token:
        whole = model.tokenizer.decode(subject.items.items[TEXTS.index("rain")].ids.tolist())
        if "".join(prompt.text.split()[-2:]) not in "".join(whole.split()):
            raise Failed(f"the prompt {prompt.text!r} became {whole!r}")
    return None


def roles(subject: Subject) -> Result:
    """The answer is read at the last token; the item's words, and no others, are its content."""
    model = subject.model
    heard = model.tokenizer.convert_tokens_to_ids(model.audio_token) if model.audio_token else None
    for item, text in zip(subject.items.items, TEXTS, strict=True):
        if int((item.roles & ANSWER).bool().sum()) != 1 or not item.roles[-1] & ANSWER:
            raise Failed(f"{item.id}: the answer is not read at the last token, and there alone")
        if not bool((item.roles & VALID).bool().all()):
            raise Failed(f"{item.id}: a token has not the role 'all'")
        sounding = (item.roles & AUDIO).bool()
        count = 0 if item.audio is None else len(item.audio)
        if int(sounding.sum()) != count:
            raise Failed(f"{item.id}: {int(sounding.sum())} audio tokens for {count} embeddings")
        if any(token != heard for token in item.ids[sounding].tolist()):
            raise Failed(f"{item.id}: tokens with the role 'audio' are not {model.audio_token}")
        words = (item.roles & CONTENT).bool() & ~sounding
        told = model.tokenizer.decode(item.ids[words].tolist()).split()
        if told != text.split():
            raise Failed(f"{item.id}: the content is {' '.join(told)!r}, the item's words are {text!r}")
    return None


def forward(subject: Subject) -> Result:
    """Texts without sound, one at a time: scores of short and of long answers."""
    places = [place for place in subject.places if subject.clips[place] is None]
    return _alone(subject, places, "scores of one text and of the public forward")


def _alone(subject: Subject, places: Sequence[int], what: str) -> Measured:
    worst = 0.0
    for answers in (LABELS, LONG):
        asked = subject.readout(answers)
        expected = public_scores(subject, asked, places)
        for row, place in enumerate(places):
            found = Engine(subject.model).predict(subject.some([place]), asked, [UNTOUCHED]).scores[0]
            worst = max(worst, distance(found[0], expected[row]))
    return Measured(worst, subject.tolerance, what)


def audio_forward(subject: Subject) -> Result:
    """The same for items with a sound, which the public forward hears by its own tower."""
    places = [place for place in subject.places if subject.clips[place] is not None]
    if not subject.model.all_of_class:
        raise Skipped(PART)
    if not places:
        raise Skipped("the family has no `audio_inputs`, so its class's own forward cannot be given a sound")
    return _alone(subject, places, "scores of one sound and of the public forward")


def padding(subject: Subject) -> Result:
    """Each item's last logits: alone, among all, with more padding on the left, and with padding on the
    right."""
    model, items = subject.model, subject.items.items
    found: dict[str, Tensor] = {}
    alone = torch.cat([_last(subject, model.collate([item])) for item in items])
    batch = model.collate(list(items))
    found["a batch of many"] = _last(subject, batch)
    more = Batch(pad(batch.embeds, (0, 0, 7, 0)), pad(batch.mask, (7, 0)), pad(batch.roles, (7, 0)))
    found["more padding on the left"] = _last(subject, more)
    found["padding on the right"] = torch.cat([_right(subject, item) for item in items])
    apart = {what: distance(logits, alone) for what, logits in found.items()}
    worst = max(apart, key=lambda what: apart[what])
    return Measured(apart[worst], subject.tolerance, f"each item alone, and with {worst}")


def _last(subject: Subject, batch: Batch) -> Tensor:
    return subject.model.logits(subject.model.decode(batch)[:, -1])


def _right(subject: Subject, item: Prepared) -> Tensor:
    """Last logits (1, V) of an item that has six columns of padding behind it."""
    one = subject.model.collate([item])
    rows = Batch(pad(one.embeds, (0, 0, 0, 6)), pad(one.mask, (0, 6)), pad(one.roles, (0, 6)))
    return subject.model.logits(subject.model.decode(rows)[:, len(item) - 1])


def cached(subject: Subject) -> Result:
    """The last two tokens of each item alone and of all, read after a cache of what comes before."""
    model, items = subject.model, subject.items.items
    worst = 0.0
    for batch in (*(model.collate([item]) for item in items), model.collate(list(items))):
        cache = model.cache()
        model.decode(Batch(batch.embeds[:, :-2], batch.mask[:, :-2], batch.roles[:, :-2]), cache=cache)
        steps = []
        for place in (batch.mask.shape[1] - 2, batch.mask.shape[1] - 1):
            here = slice(place, place + 1)
            one = Batch(batch.embeds[:, here], batch.mask[:, : place + 1], batch.roles[:, here])
            steps.append(model.decode(one, cache=cache))
        found = model.logits(torch.cat(steps, dim=1))
        worst = max(worst, distance(found, model.logits(model.decode(batch)[:, -2:])))
    return Measured(worst, subject.tolerance, "two tokens after a cache, and in one pass")


def zeroing(subject: Subject) -> Result:
    """Some neurons of each layer, of all layers at once, and all of one layer."""
    shape, asked = subject.model.shape, subject.readout()
    rng = np.random.default_rng(1)
    chosen = [
        layer * shape.width + rng.choice(shape.width, 4, replace=False) for layer in range(shape.layers)
    ]
    chosen += [np.concatenate(chosen), np.arange(shape.width)]
    edits = [scale(NEURON, shape, np.sort(units), 0.0) for units in chosen]
    data = subject.some(subject.places)
    found = np.concatenate([subject.scores([edit], data) for edit in edits])
    expected = []
    for edit in edits:
        with scaled_weights(subject.model, edit.edits[0]):
            expected.append(public_scores(subject, asked, subject.places))
    moved = distance(found, np.broadcast_to(subject.scores(items=data), found.shape))
    if moved <= subject.tolerance:
        raise Failed(
            "zeroing neurons changes no answer: the hooked module's input is not what the layer uses"
        )
    return Measured(distance(found, np.stack(expected)), subject.tolerance, "zeroed by hook, and by weights")


def interventions(subject: Subject) -> list[Intervention]:
    """Each site, operation and choice of positions; first, middle, last and several layers."""
    shape, rng = subject.model.shape, np.random.default_rng(5)
    means = rng.normal(size=shape.units)
    width, count = shape.width, shape.layers
    first, middle, last = (np.arange(4) * 2 + layer * width for layer in (0, count // 2, count - 1))
    spread = np.sort(rng.choice(shape.units, 9, replace=False))
    found = [UNTOUCHED, scale(NEURON, shape, first, 0.0), scale(NEURON, shape, last, -1.0)]
    found += [scale(NEURON, shape, spread, 2.0), scale(NEURON, shape, middle, 3.0)]
    if subject.routed:
        return found
    heard: Positions = "audio" if subject.hears else "content"
    for site in (GATE, NEURON):
        found += [
            scale(site, shape, middle, 3.0, "answer"),
            scale(site, shape, last, 0.0, heard),
            scale(site, shape, spread, 0.5),
            mean_ablation(site, shape, last, means, "answer"),
            mean_ablation(site, shape, spread, means, "content"),
        ]
    return [*found, Intervention((*found[5].edits, *found[12].edits))]


def packed(subject: Subject) -> Result:
    """Short and long answers of all items under all interventions, in one go and one at a time."""
    chosen, data = interventions(subject), subject.some(subject.places)
    worst = 0.0
    for answers in (LABELS, LONG):
        asked = subject.readout(answers)
        found = Engine(subject.model).predict(data, asked, chosen).scores
        worst = max(worst, distance(found, scores_under(subject, chosen, asked, subject.places)))
    return Measured(worst, subject.tolerance, f"{len(chosen)} interventions in one pass, and one at a time")


def generation(subject: Subject) -> Result:
    """Greedy tokens under edits, with a cache and rows that end, against one public forward a token."""
    model, chosen = subject.model, interventions(subject)[:8]
    batch = model.collate([subject.items.items[place] for place in subject.places])

    def read(rows: Batch, edits: PackedEdits, prefix: Prefix | None) -> Tensor:
        return generate(model, rows, edits, prefix, STEPS, lambda _rows: None)

    worst = 0.0
    late = [each for each in chosen if each.first_layer == model.shape.layers - 1]
    with _ending(subject):
        for group in (chosen, late):  # All of the model, and its last layer after what is shared.
            for places, tokens in subject.engine.sweep(batch, group, read, last=1, grow=STEPS):
                found = tokens.view(len(places), len(subject.places), STEPS).tolist()
                for row, which in enumerate(places):
                    for column, place in enumerate(subject.places):
                        with edited(subject, place, group[which]):
                            worst = max(worst, _told_apart(subject, place, found[row][column]))
    return Measured(worst, subject.tolerance, f"{STEPS} greedy tokens; logits of the first that differ")


@contextmanager
def _ending(subject: Subject) -> Iterator[None]:
    """Let two more tokens end a text, which the untouched model says early: some rows end before others."""
    model, before = subject.model, subject.model.stops
    first = [int(public(subject, subject.places[0])[-1].argmax())]
    said = int(public(subject, subject.places[-1], first)[-1].argmax())
    model.stops = torch.cat((before, before.new_tensor([*first, said])))
    try:
        yield
    finally:
        model.stops = before


def _told_apart(subject: Subject, place: int, found: list[int]) -> float:
    """How far apart the public forward's logits are of the first generated token that is not its own: a tie
    may fall either way. 0 where all are its own, up to a placeholder, which only a random model says."""
    told: list[int] = []
    model = subject.model
    sound = model.tokenizer.convert_tokens_to_ids(model.audio_token) if model.audio_token else None
    for token in found:
        logits = public(subject, place, told)[-1]
        best = int(logits.argmax())
        ends = bool((model.stops == best).any())
        if token == -1 and ends:
            return 0.0
        if token != best or ends:
            said = logits[model.stops].max() if token < 0 else logits[token]
            return distance(said, logits[best])
        if token == sound:
            return 0.0
        told.append(token)
    return 0.0


CHECKS = (
    Check(
        "labels", "Labels are written and read back",
        "The tokens of an answer say it, and a generated answer is read as the label that it names.",
        "`render` and `continuation`", labels,
    ),
    Check(
        "roles", "Tokens have their roles",
        "The answer is read at the last token, content is the item's own words and its sound.",
        "`prepare` and `render`", roles,
    ),
    Check(
        "forward", "One text equals the public forward",
        "Scores of one unpadded text are the log-likelihoods that the class's own forward gives.",
        "`decode` and `logits`: hidden states must be those of the answer's column, after the final norm",
        forward, ("labels",),
    ),
    Check(
        "audio_forward", "One sound equals the public forward",
        "Scores of one unpadded item with a sound are those of the class, which hears it by its own tower.",
        "`prepare` (where the placeholders stand), `collate` (which tokens are replaced) and "
        "`audio_embeddings`", audio_forward, ("audio_heard", "audio_alone"), audio=True,
    ),
    Check(
        "padding", "Batch of one = batch of many = left pad = right pad",
        "An item's answer does not depend on its company, its padding, or the length of other sounds.",
        "`position_ids` and `collate`: positions must not count padding", padding, ("forward",),
    ),
    Check(
        "cache", "A cached pass equals a whole one",
        "Tokens that are read one by one after a cache have the logits that they have in one pass.",
        "`cache` and `position_ids`", cached, ("padding",),
    ),
    Check(
        "zeroing", "Zeroing by hook equals zeroing weight columns",
        "Neurons switched off by a hook answer as the public forward does with their columns set to zero.",
        "`down` and `site_module`", zeroing, ("gate", "audio_forward", "padding"),
    ),
    Check(
        "packed", "Many interventions in one pass equal one at a time",
        "Edits of each kind, site and position, packed, answer as plain hooks or scaled weights do alone.",
        "`site_module`, `decode` and `layers`", packed,
        ("statistics", "zeroing"),
    ),
    Check(
        "generation", "Generation under edits",
        "Greedy text under edits, with a cache, is what the public forward gives token by token.",
        "`cache`, `stops` and `decode`", generation,
        ("packed", "cache"),
    ),
)  # fmt: skip
