"""How much there is to do before anything is loaded: forward passes, rows and tokens of an order's cells.

It follows what cell and engine do, with a tokenizer and a configuration only. An upper bound where the run
itself decides: units that two cells share, generation that ends early, a control that the model cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectbench.answer_words import answer_word_items
from affectbench.audio_io import SAMPLE_RATE
from affectbench.dataset import Dataset, load_benchmark, prompt_text
from affectbench.examples import Example, RenderedPrompt
from affectbench.pieces import ITEMS_A_BATCH
from affectbench.placement import Options, Order, further_interventions
from affectbench.preservation_items import choice_items, neutral_texts
from affectbench.prompt_tokens import PromptTokens
from affectbench.readout import Readout
from affectbench.registry import Registry
from affectbench.score_models import ARMS
from affectbench.sites import MODULE
from affectbench.task import SPLITS, Benchmark, ModelCard, SplitName

if TYPE_CHECKING:
    from affectbench.identifying import CellPlan
    from affectbench.selector import Selector

AUDIO_TOKENS_A_SECOND = 25
"""Of Whisper-like towers that halve 100 frames a second twice, as Qwen2.5-Omni's does."""
SOUNDS_HEARD = 8


@dataclass(frozen=True)
class Load:
    """Model calls, rows put through them, tokens of these rows, and columns whose logits are read."""

    passes: int = 0
    rows: int = 0
    tokens: int = 0
    columns: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.passes + other.passes,
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.columns + other.columns,
        )


@dataclass(frozen=True)
class Asked:
    """A set of items to be answered: tokens of each, and what is read of an item: `columns` at its end, and
    `steps` further model calls of one token each."""

    lengths: tuple[int, ...]
    columns: int = 1
    steps: int = 0

    def swept(self, interventions: int, budget: int, growth: int) -> Load:
        """The work of answering it under so many interventions, and of one look at the untouched model.
        Rows that grow have `growth` times the budget."""
        total = Load()
        wide = budget * growth if self.steps else budget
        for rows, length in batched(self.lengths, budget, 1 if self.steps else interventions):
            room = max(1, wide // (rows * (length + self.steps)))
            chunks = -(-interventions // room)
            many = rows * interventions
            total += Load(
                1 + chunks * (1 + self.steps),
                rows + many * (1 + self.steps),
                (rows + many) * length + many * self.steps,
                rows + many * (self.columns + self.steps),
            )
        return total

    def plain(self, budget: int) -> Load:
        """The work of running the untouched model over it once."""
        found = Load()
        for rows, length in batched(self.lengths, budget, most=len(self.lengths)):
            found += Load(1 + self.steps, rows * (1 + self.steps), rows * (length + self.steps), rows)
        return found

    @property
    def largest(self) -> int:
        """Tokens of its longest item."""
        return max(self.lengths, default=0)


def batched(
    lengths: Sequence[int], budget: int, times: int = 1, most: int = ITEMS_A_BATCH
) -> Iterator[tuple[int, int]]:
    """Rows and length of the engine's batches, where each item is run `times` times."""
    rows, longest = 0, 0
    for length in sorted(lengths):
        full = length > longest and times * rows * longest >= budget
        if (rows and (full or (rows + 1) * length > budget)) or rows == most:
            yield rows, longest
            rows = 0
        rows, longest = rows + 1, length
    if rows:
        yield rows, longest


@dataclass(frozen=True)
class Material:
    """All item sets of one (model, benchmark)."""

    splits: dict[SplitName, Asked]
    answer_words: Asked
    neutral: Asked
    capability: Asked
    prompts: Asked


@dataclass(frozen=True)
class Workload:
    """The work of an order: `evidence` in passes with gradients where a selector needs them, and the rest."""

    evidence: Load
    gradients: bool
    answers: Load
    interventions: int
    material: Material
    requests: int

    @property
    def total(self) -> Load:
        return self.evidence + self.answers


def workload(registry: Registry, order: Order, options: Options, tokenizer: Any, budget: int) -> Workload:
    """Count the work of an order. Raises `AffectbenchError` where its items cannot be read."""
    from affectbench.evidence import ATTRIBUTION
    from affectbench.identifying import CellPlan, all_requests
    from affectbench.selector import usable_selector

    material = _material(registry, order, options, Tokens(tokenizer, order.job.card))
    plans = []
    for each in order.cells:
        selector: Selector = usable_selector(each.cell.selector, registry.selector)
        plans.append(CellPlan(each.cell, each.protocol, selector, each.hashes, each.carried))
    requests = all_requests(plans)
    looks = len({plan.protocol.statistics.items for plan in plans if plan.carried is None})
    evidence = Load()
    for _ in range(looks):
        evidence += material.splits["identification"].plain(budget)
    answers = Load()
    if plans:
        answers += material.splits["validation"].plain(budget) + material.splits["test"].plain(budget)
    interventions, labels = 0, len(order.job.benchmark.labels)
    for sample in {plan.cell.identification for plan in plans if plan.carried is None} - {None}:
        items = labels * (sample.items or 0) if sample is not None else 0
        evidence += Asked(material.splits["identification"].lengths[:items]).plain(budget)
    growth = growth_of(options)
    for plan in plans:
        found, load = _cell(plan, labels, material, budget, growth)
        interventions += found
        answers += load
    gradients = any(statistic == ATTRIBUTION for _, _, statistic in requests)
    return Workload(evidence, gradients, answers, interventions, material, len(requests))


def growth_of(options: Options) -> int:
    """How many times the budget rows may have that grow."""
    from affectbench.engine import CPU_GROWTH

    return CPU_GROWTH if options.device.startswith("cpu") else 1


def _cell(plan: CellPlan, labels: int, material: Material, budget: int, growth: int) -> tuple[int, Load]:
    """Interventions of one cell, and the work of answering everything under them."""
    protocol = plan.protocol
    conditions = len(protocol.arms.suppress.doses) + len(protocol.arms.amplify.doses)
    targets, draws = labels * conditions, protocol.controls.random_draws * conditions
    more = further_interventions(protocol)
    load = material.splits["test"].swept(targets + draws + more, budget, growth)
    if plan.carried is None:  # Else the doses are those of another cell.
        untold = further_interventions(protocol, draws=False)
        load += material.splits["validation"].swept(targets + untold, budget, growth)
    if protocol.asks_answer_words:
        load += material.answer_words.swept(labels * len(ARMS), budget, growth)
    for kept in (material.neutral, material.capability, material.prompts):
        load += kept.swept(targets + 1, budget, growth)  # And the untouched model.
    if protocol.site == MODULE and not protocol.transfers:
        drawn = protocol.controls.random_draws * len(protocol.arms.suppress.doses)
        load += material.capability.swept(drawn + 1, budget, growth)
    return targets + draws + more, load


class Tokens(PromptTokens):
    """Counts tokens as a model wrapper would make them."""

    def __init__(self, tokenizer: Any, card: ModelCard) -> None:
        self.tokenizer = tokenizer
        self.card = card

    def count(self, text: str) -> int:
        return len(self._tokens(text)[0])


def _material(registry: Registry, order: Order, options: Options, tokens: Tokens) -> Material:
    benchmark = order.job.benchmark
    splits = {name: _asked(benchmark, order.dataset, name, tokens) for name in SPLITS}
    preservation = benchmark.preservation
    capability = preservation.capability
    if capability.kind == "benchmark":
        control = registry.benchmark(capability.task)
        asked = _asked(control, load_benchmark(control, options.data, options.limit), "test", tokens)
    else:
        shown: set[tuple[int, ...]] = set()
        for item in choice_items(benchmark):
            for choice in item.choices:
                shown.add(tuple(tokens.tokenizer(item.context + choice)["input_ids"])[:-1])
        asked = Asked(tuple(max(1, len(ids)) for ids in shown))
    neutral = tuple(max(1, tokens.count(text)) for text in neutral_texts(benchmark))
    prompts = tuple(1 + tokens.count(text) for text in preservation.prompts)
    return Material(
        splits,
        _shown(benchmark, answer_word_items(benchmark), tokens),
        Asked(neutral, columns=max(neutral)),
        asked,
        Asked(prompts, steps=preservation.max_new_tokens - 1),
    )


def _asked(benchmark: Benchmark, dataset: Dataset, split: SplitName, tokens: Tokens) -> Asked:
    """The items of a split, by the tokens of their prompts, of their sounds and of answers laid behind."""
    return _shown(benchmark, [(each, prompt_text(benchmark, each)) for each in dataset.splits[split]], tokens)


def _shown(benchmark: Benchmark, shown: Sequence[tuple[Example, RenderedPrompt]], tokens: Tokens) -> Asked:
    if not shown:
        return Asked((), columns=1)
    heard = _seconds([example for example, _ in shown])
    answer = _answer(benchmark, shown[0][1], tokens)
    behind = 0 if answer.max_new_tokens else answer.further
    lengths = []
    for place, (_, prompt) in enumerate(shown):
        text, _ = tokens.render(prompt)
        sound = round(heard(place) * AUDIO_TOKENS_A_SECOND)
        lengths.append(max(1, tokens.count(text) + sound + behind))
    return Asked(tuple(lengths), columns=1 + behind, steps=max(0, answer.max_new_tokens - 1))


def _answer(benchmark: Benchmark, prompt: RenderedPrompt, tokens: Tokens) -> Readout:
    """How answers are read, as far as it decides what is computed."""
    candidates = tuple(tuple(tokens.continuation(prompt, answer)) for answer in prompt.answer_options)
    readout = benchmark.readout
    generated = readout.max_new_tokens if readout.kind in ("generate", "judge") else 0
    return Readout(benchmark.labels, candidates, generated)


def _seconds(examples: Sequence[Example]) -> Callable[[int], float]:
    """How long the sound of an item is, by its place: of a few that are read, and their mean for the rest."""
    sounding = [place for place, example in enumerate(examples) if example.audio is not None]
    if not sounding:
        return lambda _place: 0.0
    picked = sounding[:: max(1, len(sounding) // SOUNDS_HEARD)]
    known = {place: len(examples[place].waveform()) / SAMPLE_RATE for place in picked}
    mean = sum(known.values()) / len(known)
    return lambda place: known.get(place, mean)
