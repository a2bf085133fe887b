"""The grid the straightforward way: every intervention on its own, every pass a full one.

It is written as someone competent would write it: items sorted by length, batches of 32, no gradients, logits
at the answer position only where the model's forward offers it. It computes what a run computes, by the same
formulas, but shares nothing: each cell collects its own evidence and runs its own interventions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectbench.batch import Prepared
from affectbench.controls import layer_matched
from affectbench.dataset import Dataset, load_benchmark
from affectbench.engine import Engine
from affectbench.evidence import EvidencePass, requests_of
from affectbench.intervention import UNTOUCHED, Intervention, scale
from affectbench.lm_harness import choice_task
from affectbench.lm_harness import requests_of as lm_requests_of
from affectbench.model import Model
from affectbench.operating import judged, operating_of
from affectbench.outcomes import ANSWER_WORDS, Condition, Outcomes
from affectbench.placement import load_model
from affectbench.plan import Job
from affectbench.preservation import Preserver, degenerate
from affectbench.preservation_score import PreservationOutcomes, score_preservation
from affectbench.readout import Items, Readout, codes_of, margins_of, to_labels
from affectbench.registry import Registry
from affectbench.score_models import PreservationScore
from affectbench.selector import Selection
from affectbench.session import Session
from affectbench.study import Study
from affectbench.task import InterventionProtocol
from affectbench.word_score import is_able
from benchmarks.measuring import BenchmarkError, cpu_seconds
from benchmarks.ways import Hooks, Way, as_loaded

BATCH = 32
Inputs = list[tuple[list[int], dict[str, Any]]]
"""Batches: places of the items, and keyword arguments of the model's forward."""


def inputs_of(model: Model, items: Items, features: Mapping[str, Tensor] | None = None) -> Inputs:
    """Left-padded batches of items of like length.

    With `features` (log-mel frames by item id), audio goes in as features, so that the tower runs in each
    pass; without, as the embeddings that preparing the items gave.
    """
    places = sorted(range(len(items)), key=lambda place: len(items.items[place]))
    batches = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
    return [(batch, _inputs(model, [items.items[p] for p in batch], features)) for batch in batches]


def _inputs(model: Model, items: Sequence[Prepared], features: Mapping[str, Tensor] | None) -> dict[str, Any]:
    batch = model.collate(items)
    inputs: dict[str, Any] = {
        "attention_mask": batch.mask.long(),
        "position_ids": model.position_ids(batch.mask),
        "use_cache": False,
    }
    if "logits_to_keep" in signature(model.network.forward).parameters:
        inputs["logits_to_keep"] = 1
    if items[0].audio is not None and features is None:
        return inputs | {"inputs_embeds": batch.embeds}
    inputs["input_ids"] = torch.stack(
        [torch.nn.functional.pad(item.ids, (batch.mask.shape[1] - len(item), 0)) for item in items]
    )
    if items[0].audio is not None and features is not None:
        frames = [features[item.id] for item in items]
        longest = max(each.shape[1] for each in frames)
        padded = [torch.nn.functional.pad(each, (0, longest - each.shape[1])) for each in frames]
        mask = torch.stack([torch.arange(longest) < each.shape[1] for each in frames])
        inputs |= {"input_features": torch.stack(padded), "feature_attention_mask": mask.long()}
    return inputs


def features_of(model: Model, dataset: Dataset, split: str) -> dict[str, Tensor] | None:
    """Log-mel frames of a split's clips by item id; None for text."""
    extract = getattr(model, "features", None)
    examples = [example for example in dataset.splits[split] if example.audio is not None]  # type: ignore[index]
    if extract is None or not examples:
        return None
    return {each.id: torch.as_tensor(extract(each.waveform()), dtype=model.dtype) for each in examples}


@torch.no_grad()
def answers(
    way: Way, inputs: Inputs, items: Items, readout: Readout, interventions: Sequence[Intervention]
) -> np.ndarray:
    """Label scores (K, N, E), intervention by intervention, batch by batch."""
    if not readout.one_pass:
        raise BenchmarkError("the straightforward way is written for answers of one token")
    scores = np.empty((len(interventions), len(items), len(readout.labels)), dtype=np.float32)
    for row, intervention in enumerate(interventions):
        with way.edited(intervention) as forward:
            for places, batch in inputs:
                found = readout.first_scores(forward(batch)[:, -1].float()).numpy()
                orders = None if items.orders is None else items.orders[places]
                scores[row, places] = to_labels(found, orders)
    return scores


@dataclass(frozen=True)
class Found:
    """What the straightforward way gives for a cell."""

    selection: Selection
    outcomes: dict[str, Outcomes]
    preservation: list[PreservationScore]
    status: str


@dataclass
class OneAtATime:
    """All cells of a job with plain hooks. `parts` adds up CPU seconds by part.

    The model is loaded and the items are prepared once, as for ours.
    """

    registry: Registry
    job: Job
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def run(self) -> dict[str, Found]:
        """What was found, by selector."""
        with self._part("loading and items"):
            dataset = load_benchmark(self.job.benchmark)
            self.model = as_loaded(load_model(self.registry, self.job, "cpu"))
            self.session = Session(self.model, self.job.benchmark, dataset, self.registry.benchmark)
            self.way = Hooks(self.model)
            self.inputs = {
                split: inputs_of(
                    self.model, self.session.items(split), features_of(self.model, dataset, split)
                )
                for split in ("validation", "test")
            }
            self.inputs[ANSWER_WORDS] = inputs_of(self.model, self.session.answer_words)
        (protocol,) = self.job.protocols
        return {name: self._cell(name, protocol) for name in self.job.selectors}

    def _cell(self, name: str, protocol: InterventionProtocol) -> Found:
        with self._part("evidence and selection"):
            selection = self._selection(name, protocol)
            draws = layer_matched(selection, protocol.controls.random_draws, self.job.seed)
        conditions = [
            (arm, dose) for arm in ("suppress", "amplify") for dose in getattr(protocol.arms, arm).doses
        ]
        with self._part("answers"):
            outcomes = {
                "validation": self._outcomes("validation", selection, [], conditions, protocol),
                "test": self._outcomes("test", selection, draws, conditions, protocol),
            }
        kept = self._preservation(selection, conditions, protocol)
        if not self.session.no_answer_words(protocol):
            with self._part("answer words"):
                outcomes[ANSWER_WORDS] = self._answer_words(outcomes, kept, selection, protocol)
        with self._part("scores"):
            status = judged(outcomes, kept, self.job.seed)["status"]
        return Found(selection, outcomes, kept, status)

    def _answer_words(
        self,
        outcomes: dict[str, Outcomes],
        kept: list[PreservationScore],
        selection: Selection,
        protocol: InterventionProtocol,
    ) -> Outcomes:
        """The answer-word control at the operating doses, or without any where the model cannot do it."""
        base = self._outcomes(ANSWER_WORDS, selection, [], [], protocol)
        if not is_able(base):
            return base
        operating = operating_of(outcomes, kept, self.job.seed)[1]
        doses = (("suppress", operating.suppress_dose), ("amplify", operating.amplify_dose))
        chosen = [(arm, dose) for arm, dose in doses if dose is not None]
        return self._outcomes(ANSWER_WORDS, selection, [], chosen, protocol)

    def _selection(self, name: str, protocol: InterventionProtocol) -> Selection:
        selector = self.registry.selector(name)()
        items, readout, seed = self.session.items("identification"), self.session.readout, self.job.seed
        site, positions = protocol.site, protocol.statistics.positions
        requests = requests_of(selector.needs, site, positions)
        engine = Engine(self.model)
        found = EvidencePass(engine, items, readout, requests, True, None, seed).run()
        if int(found.counted[: len(readout.labels)].min()) < protocol.statistics.minimum_items:
            found = EvidencePass(engine, items, readout, requests, False, None, seed).run()
        study = Study(
            evidence=found.evidence(site, positions),
            shuffled=found.evidence(site, positions, shuffled=True),
            items=items,
            readout=readout,
            seed=seed,
            ask=lambda edits: engine.predict(items, readout, edits),
        )
        chosen: Selection = selector.select(study, max(1, round(protocol.fractions[0] * study.shape.units)))
        return chosen

    def _outcomes(
        self,
        split: str,
        selection: Selection,
        draws: Sequence[np.ndarray],
        conditions: Sequence[tuple[str, float]],
        protocol: InterventionProtocol,
    ) -> Outcomes:
        session, shape = self.session, self.model.shape
        items = session.answer_words if split == ANSWER_WORDS else session.items(split)  # type: ignore[arg-type]
        targets = len(selection.units)
        readout, inputs = self.session.readout, self.inputs[split]
        base = answers(self.way, inputs, items, readout, [UNTOUCHED])[0]
        made = []
        for arm, dose in conditions:
            sets = [*selection.units, *draws]
            edits = [scale(protocol.site, shape, units, dose, protocol.positions) for units in sets]
            scores = answers(self.way, inputs, items, readout, edits)
            codes, margins = codes_of(scores), margins_of(scores[:targets])
            own = np.stack([margins[target, :, target] for target in range(targets)])
            made.append(Condition(arm, dose, abs(dose - 1.0), codes[:targets], own, codes[targets:]))
        return Outcomes(
            labels=selection.labels,
            items=np.array(items.ids),
            gold=items.gold,
            clusters=np.array(items.clusters),
            base=codes_of(base),
            base_margin=margins_of(base),
            conditions=tuple(made),
        )

    def _preservation(
        self, selection: Selection, conditions: Sequence[tuple[str, float]], protocol: InterventionProtocol
    ) -> list[PreservationScore]:
        with self._part("loading and items"):
            measured = Preserved(self.way, self.session.preserver, self.parts, self._capability_features())
        base = measured.under(UNTOUCHED)
        scores = []
        for arm, dose in conditions:
            edits = [
                scale(protocol.site, self.model.shape, units, dose, protocol.positions)
                for units in selection.units
            ]
            scores.append(measured.score(arm, dose, base, edits, self.job.seed))
        return scores

    def _capability_features(self) -> dict[str, Tensor] | None:
        """Frames of the clips of the capability, where another benchmark serves as one."""
        capability = self.job.benchmark.preservation.capability
        if capability.kind != "benchmark":
            return None
        return features_of(self.model, load_benchmark(self.registry.benchmark(capability.task)), "test")

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        started = cpu_seconds()
        try:
            yield
        finally:
            self.parts[name] += cpu_seconds() - started


Kept = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""KL and NLL summed over each neutral document, correct answers, degenerate continuations (0 or 1)."""


class Preserved:
    """Preservation under one intervention at a time: neutral text in one pass, lm-eval's `HFLM` for multiple
    choice, the model's own `generate` for continuations."""

    def __init__(
        self,
        way: Hooks,
        preserver: Preserver,
        parts: dict[str, float],
        features: Mapping[str, Tensor] | None,
    ) -> None:
        from lm_eval.models.huggingface import HFLM

        self.way, self.preserver, self.parts = way, preserver, parts
        model = way.model
        longest = int(model.text_config.max_position_embeddings)
        self.lm = HFLM(
            pretrained=model.network,
            backend="causal",
            tokenizer=model.tokenizer,
            batch_size=BATCH,
            max_length=min(2048, longest),
        )
        encoded = [(self.lm.tok_encode(text), text) for text in preserver.neutral]
        by_length = sorted(encoded, key=lambda document: len(document[0]))
        texts = [tokens for tokens, _ in by_length]
        self.lengths = [len(tokens) for tokens in texts]
        self.n_bytes = [len(text.encode()) for _, text in by_length]
        if len(texts[-1]) > self.lm.max_length:
            raise BenchmarkError("neutral text is longer than one window of the model")
        self.documents = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        self.known: list[Tensor] = []
        capability = preserver.capability
        self.items = None if capability.items is None else inputs_of(model, capability.items, features)
        self.task = None if capability.items is not None else choice_task("choices", capability.docs)
        self.requests = [] if self.task is None else lm_requests_of(self.task)

    def under(self, intervention: Intervention) -> Kept:
        """Everything under one intervention. The untouched model comes first: divergence is from it."""
        return (
            *self._timed("neutral text", self._neutral, intervention),
            self._timed("capability", self._capability, intervention),
            self._timed("generation", self._degenerate, intervention),
        )

    def score(
        self, arm: Any, dose: float, base: Kept, edits: Sequence[Intervention], seed: int
    ) -> PreservationScore:
        """The score of one (arm, dose) over its interventions, by the formulas of a run."""
        found = [self.under(edit) for edit in edits]
        times = len(found)
        measured = PreservationOutcomes(
            arm=arm,
            dose=dose,
            kl=np.stack([kl for kl, _, _, _ in found]),
            nll=np.stack([nll for _, nll, _, _ in found]),
            nll_base=base[1],
            n_tokens=self.lengths,
            n_bytes=self.n_bytes,
            capability=np.stack([correct for _, _, correct, _ in found]),
            capability_base=np.repeat(base[2][None], times, axis=0),
            capability_task=self.preserver.capability.name,
            degenerate=np.stack([broken for _, _, _, broken in found]),
            degenerate_base=np.repeat(base[3][None], times, axis=0),
        )
        return score_preservation([measured], seed=seed)[0]

    @torch.no_grad()
    def _neutral(self, intervention: Intervention) -> tuple[np.ndarray, np.ndarray]:
        first = not self.known
        divergence: list[float] = []
        nll: list[float] = []
        with self.way.edited(intervention) as forward:
            for place, texts in enumerate(self.documents):
                ids, mask = self._padded([[self.lm.prefix_token_id, *text] for text in texts])
                inputs = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1].long()}
                logs = forward(inputs | {"use_cache": False}).float().log_softmax(-1)
                if first:
                    self.known.append(logs)
                counted = mask[:, 1:]
                likelihood = logs.gather(-1, ids[:, 1:, None]).squeeze(-1).double()
                nll += (-likelihood * counted).sum(1).tolist()
                each = torch.nn.functional.kl_div(logs, self.known[place], reduction="none", log_target=True)
                divergence += (each.sum(-1).double() * counted).sum(1).tolist()
        return np.array(divergence), np.array(nll)

    @staticmethod
    def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Right-padded token ids (B, T) and their mask."""
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        return ids, torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]

    def _capability(self, intervention: Intervention) -> np.ndarray:
        capability = self.preserver.capability
        if self.items is not None and capability.items is not None and capability.readout is not None:
            scores = answers(self.way, self.items, capability.items, capability.readout, [intervention])
            return np.asarray(codes_of(scores[0]) == capability.items.gold, dtype=np.int64)
        assert self.task is not None, "a capability is items or documents"
        flat = [request for requests in self.requests for request in requests]
        with self.way.edited(intervention):
            found = iter(self.lm.loglikelihood(flat, disable_tqdm=True))
        correct = [
            int(self.task.process_results(document, [next(found) for _ in requests])["acc"])
            for document, requests in zip(self.task.test_docs(), self.requests, strict=True)
        ]
        return np.array(correct, dtype=np.int64)

    @torch.no_grad()
    def _degenerate(self, intervention: Intervention) -> np.ndarray:
        model, prompts, most = self.way.model, self.preserver.prompts, self.preserver.max_new_tokens
        length = max(len(prompt) for prompt in prompts)
        ids = torch.stack([torch.nn.functional.pad(p.ids, (length - len(p), 0)) for p in prompts])
        mask = torch.stack([torch.arange(length) >= length - len(p) for p in prompts]).long()
        end = model.tokenizer.eos_token_id
        with self.way.edited(intervention):
            written = model.network.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=False,
                eos_token_id=end, pad_token_id=end,
            )[:, length:]  # fmt: skip
        chat = bool(getattr(model.tokenizer, "chat_template", None))
        endless = (written.shape[1] == most) & (written != end).all(-1)
        texts = model.tokenizer.batch_decode(written, skip_special_tokens=True)
        found = [degenerate(text, endless=chat and bool(e)) for text, e in zip(texts, endless, strict=True)]
        return np.array(found, dtype=np.int64)

    def _timed(self, part: str, call: Any, intervention: Intervention) -> Any:
        started = cpu_seconds()
        found = call(intervention)
        self.parts[part] += cpu_seconds() - started
        return found
