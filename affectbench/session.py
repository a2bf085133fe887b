"""All that the cells of one (model, task) share: loaded once, prepared once, run once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from affectbench.answer_words import answer_word_items
from affectbench.batch import Prepared
from affectbench.dataset import Dataset, load_benchmark, parse_answer, prompt_text
from affectbench.decoding import Decoding
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.evidence import EvidencePass, Key
from affectbench.examples import Example, ItemError, RenderedPrompt
from affectbench.expressing import Expressing
from affectbench.expression_models import Expression
from affectbench.expression_score import score_expression
from affectbench.identity import digest_of
from affectbench.intervention import ROLE_BIT, UNTOUCHED
from affectbench.journal import Journal
from affectbench.judges.judgement import Judge
from affectbench.memory import ran_out, release
from affectbench.model import Model
from affectbench.preservation import Capability, Preserver
from affectbench.preservation_items import choice_items, neutral_texts
from affectbench.readout import FAILED, Codes, IntArray, Items, Readout, margins_of
from affectbench.record import Identification
from affectbench.replies import Replies
from affectbench.task import (
    Benchmark,
    ExpressionBenchmark,
    InterventionProtocol,
    RecognitionBenchmark,
    SplitName,
)
from affectbench.writing import Writer

Asked = tuple[Example, Prepared, RenderedPrompt]


@dataclass
class Session:
    """One model on one benchmark. `lookup` finds a benchmark by name, for capability controls; `data` is the
    directory of benchmarks whose data are not shipped; what is in the `journal` is not computed again.
    `judge` reads the replies to a benchmark of expression."""

    model: Model
    benchmark: Benchmark
    dataset: Dataset
    lookup: Callable[[str], Benchmark]
    limit: int | None = None
    tokens: int = 0
    data: Path | None = None
    journal: Journal | None = None
    judge: Judge | None = None
    engine: Engine = field(init=False)
    failures: list[ItemError] = field(init=False)
    _passes: dict[tuple[bool, int, Identification | None], EvidencePass] = field(
        init=False, default_factory=dict
    )
    _items: dict[str, Items] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(self.model, self.tokens, self.journal)
        self.failures = list(self.dataset.errors)
        self._check_modality(self.benchmark)

    def _check_modality(self, benchmark: Benchmark) -> None:
        if benchmark.modality not in self.model.modalities:
            raise AffectbenchError(
                f"model {self.model.card.name} takes {', '.join(self.model.modalities)}; "
                f"benchmark {benchmark.name} is {benchmark.modality}",
                hint="choose a benchmark of the model's modality",
            )

    def items(self, split: SplitName) -> Items:
        """The prepared items of a split; an audio item's tower runs here, once."""
        if split not in self._items:
            self._items[split] = self._prepared(self.benchmark, self.dataset, split)
        return self._items[split]

    @cached_property
    def expressing(self) -> Expressing | None:
        """How the model's replies are got and judged; None where answers are read."""
        task = self.benchmark
        if not isinstance(task, ExpressionBenchmark):
            return None
        if self.judge is None:
            raise AffectbenchError(f"replies to {task.name} have to be judged, and there is no judge")
        writer = Writer(self.engine, Decoding.of(task.readout))
        return Expressing(task, self.dataset, writer, self.judge)

    def expression_of(self, replies: Replies, identified: int, seed: int) -> Expression:
        """What a record says of judged replies; `identified` elicited items were what units came from, 0
        where they came from elsewhere."""
        assert self.judge is not None, "the replies were judged"
        labels = len(self.benchmark.labels)
        asked = len(self.items("identification")) // labels if identified else 0
        groups = identified // labels, asked
        return score_expression(replies, self.judge.name, self.judge.digest, seed=seed, groups=groups)

    @cached_property
    def readout(self) -> Readout:
        """How answers are read, in the model's own tokens; where replies are judged, the emotions' names, as
        the first words of a reply (statistics with gradients need some answer)."""
        return self._readout(self.benchmark, self.dataset.splits["test"][0])

    @cached_property
    def answer_words(self) -> Items:
        """The prepared items of the answer-word control. Raises `AffectbenchError` where one cannot be."""
        kept = []
        for example, prompt in answer_word_items(self.benchmark):
            prepared = self.model.prepare(example, prompt)
            self._check_length(prepared)
            kept.append((example, prepared, prompt))
        return _items(self.benchmark, "answer_words", kept)

    def no_answer_words(self, protocol: InterventionProtocol) -> str:
        """Why the answer-word control cannot be asked under a protocol; empty where it can."""
        if not protocol.asks_answer_words:
            return "the protocol asks for none"
        if isinstance(self.benchmark, ExpressionBenchmark):
            return "replies are judged, and no set answer is asked for"
        try:
            items = self.answer_words.items
        except AffectbenchError as error:
            return f"the model cannot be asked: {error.message}"
        if not any(bool((item.roles & ROLE_BIT[protocol.positions]).any()) for item in items):
            return f"the protocol edits {protocol.positions} positions, and the control's prompts have none"
        return ""

    def base(self, items: Items) -> tuple[Codes, np.ndarray]:
        """Codes (N,) and margins (N, E) of the untouched model on items of its task."""
        found = self.engine.predict(items, self.readout, [UNTOUCHED])
        codes, margins = found.codes[0], margins_of(found.scores[0])
        if (codes == FAILED).all():
            raise AffectbenchError(
                f"model {self.model.card.name} has no finite score for any of {len(codes)} items "
                f"of {items.split}",
                hint="check the checkpoint and its dtype",
            )
        return codes, margins

    def collect(
        self,
        requests: frozenset[Key],
        *,
        correct_only: bool,
        seed: int,
        progress: Callable[[int], None] | None,
        sample: Identification | None = None,
    ) -> EvidencePass:
        """One pass over the identification split, or a `sample` of it, for all of `requests`; kept for later
        cells.

        Samples of one draw are nested, and yet each has a pass: what is summed in which batches would else
        depend on which other samples there are, and with it a selection's last bits.
        """
        key = (correct_only, seed, sample)
        known = self._passes.get(key)
        if known is None or not requests <= known.requests:
            wanted = requests if known is None else requests | known.requests
            items = self._identified(sample, correct_only)
            # Where replies are judged whole groups were chosen; the readout does not say what they express.
            right = correct_only and self.expressing is None
            found = EvidencePass(self.engine, items, self.readout, wanted, right, None, seed)
            self._passes[key] = found.run(progress)
        return self._passes[key]

    def _identified(self, sample: Identification | None, correct_only: bool) -> Items:
        """The items that an evidence pass looks at; it leaves out wrong answers itself."""
        items = self.items("identification")
        if sample is not None:
            return items.at(self._sampled(sample, correct_only))
        if self.expressing is None or not correct_only:
            return items
        if not (accepted := self.usable(True)).any():
            raise AffectbenchError(
                f"{self.model.card.name} expresses all emotions of no scenario so that the judge accepts it",
                hint="use a protocol that identifies on `correct_or_all` items, or another model or judge",
            )
        return items.at(np.flatnonzero(accepted).tolist())

    def usable(self, correct_only: bool) -> np.ndarray:
        """(N,) which identification items count, by the untouched model's answers; where replies are judged,
        those of whole groups only."""
        items = self.items("identification")
        if self.expressing is not None:
            return self.expressing.accepted(items) if correct_only else np.ones(len(items), dtype=bool)
        codes = self.base(items)[0]
        return np.asarray(codes == items.gold if correct_only else codes != FAILED)

    def _sampled(self, sample: Identification, correct_only: bool) -> list[int]:
        """Places of a sample's items: of each emotion the first usable ones in the order of a hash."""
        items, usable = self.items("identification"), self.usable(correct_only)

        def rank(place: int) -> str:
            item = items.items[place].id
            return digest_of([str(sample.draw), self.expressing.group(item) if self.expressing else item])

        chosen: list[int] = []
        for emotion in range(len(self.benchmark.labels)):
            own = np.flatnonzero(usable & (items.gold == emotion)).tolist()
            chosen += sorted(own, key=rank)[: sample.items]
        return sorted(chosen)

    @cached_property
    def preserver(self) -> Preserver:
        """What must survive: the benchmark's neutral text, capability and open prompts."""
        settings = self.benchmark.preservation
        if settings.capability.kind == "multiple_choice":
            docs = [
                {"context": item.context, "choices": list(item.choices), "answer": item.answer}
                for item in choice_items(self.benchmark)
            ]
            capability = Capability(f"{self.benchmark.name}: multiple choice", docs=docs)
        else:
            control = self.lookup(settings.capability.task)
            self._check_modality(control)
            data = load_benchmark(control, self.data, self.limit)
            capability = Capability(
                control.name,
                items=self._prepared(control, data, "test"),
                readout=self._readout(control, data.splits["test"][0]),
            )
        prompts = [
            self.model.open_prompt(f"prompt-{place}", text) for place, text in enumerate(settings.prompts)
        ]
        return Preserver(
            self.engine, neutral_texts(self.benchmark), capability, prompts, settings.max_new_tokens
        )

    def altered(self, split: SplitName, change: Callable[[Example], Example]) -> Items:
        """The prepared items of a split after a change of each, such as of its text."""
        return self._prepare(self.benchmark, map(change, self.dataset.splits[split]), split)

    def _prepared(self, benchmark: Benchmark, dataset: Dataset, split: SplitName) -> Items:
        return self._prepare(benchmark, dataset.splits[split], split)

    def _prepare(self, benchmark: Benchmark, examples: Iterable[Example], split: SplitName) -> Items:
        kept: list[Asked] = []
        for example in examples:
            prompt = prompt_text(benchmark, example)
            try:
                prepared = self.model.prepare(example, prompt)
                self._check_length(prepared)
                kept.append((example, prepared, prompt))
            except (AffectbenchError, RuntimeError, MemoryError) as error:
                if not isinstance(error, AffectbenchError) and not ran_out(error):
                    raise
                where = str(example.audio or benchmark.name)
                self.failures.append(ItemError(example.id, where, str(error) or "out of memory"))
                release()
        if not kept:
            last = self.failures[-1]
            raise AffectbenchError(
                f"no item of {benchmark.name} could be prepared for {self.model.card.name}; "
                f"the last one, {last.id}: {last.reason}"
            )
        return _items(benchmark, split, kept)

    def _check_length(self, prepared: Prepared) -> None:
        """Positions that a model never saw give answers that look like any other."""
        most = getattr(self.model.text_config, "max_position_embeddings", None)
        if most is not None and len(prepared) > most:
            raise AffectbenchError(f"its prompt has {len(prepared)} tokens, the model takes {most}")

    def _readout(self, benchmark: Benchmark, example: Example) -> Readout:
        prompt = prompt_text(benchmark, example)
        letters = benchmark.readout.kind == "letters"
        answers = sorted(prompt.answer_options) if letters else prompt.answer_options
        candidates = tuple(tuple(self.model.continuation(prompt, answer)) for answer in answers)
        if len(set(candidates)) < len(candidates):
            raise AffectbenchError(
                f"{self.model.card.name} cannot tell the answers of {benchmark.name} apart: "
                f"{', '.join(repr(answer) for answer in answers)} share tokens",
                hint="give other verbalisers, or use the readout `letters`",
            )
        if not isinstance(benchmark, RecognitionBenchmark) or benchmark.readout.kind != "generate":
            return Readout(benchmark.labels, candidates)
        words = [benchmark.verbaliser(label) for label in benchmark.labels]

        def parse(text: str, _order: IntArray | None) -> int:
            return parse_answer(text, words)

        return Readout(benchmark.labels, candidates, benchmark.readout.max_new_tokens, parse)


def _items(benchmark: Benchmark, split: str, kept: Sequence[Asked]) -> Items:
    orders = [prompt.order for _, _, prompt in kept]
    gold = np.array([benchmark.labels.index(example.label) for example, _, _ in kept])
    gold.setflags(write=False)  # Selectors see the items of identification.
    return Items(
        split=f"{benchmark.name}:{split}",
        items=tuple(prepared for _, prepared, _ in kept),
        gold=gold,
        clusters=tuple(example.cluster for example, _, _ in kept),
        orders=None if orders[0] is None else np.array(orders),
    )
