"""(2) What a no-op costs beside a bare forward pass, and (3) what the evidence pass costs beside one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from affectbench.dataset import load_benchmark
from affectbench.engine import Engine
from affectbench.evidence import ATTRIBUTION, EvidencePass, Key, merged, requests_of
from affectbench.intervention import scale
from affectbench.placement import load_model
from affectbench.plan import Job, jobs_of_suite
from affectbench.readout import Items
from affectbench.registry import Registry
from affectbench.selector import usable_selector
from affectbench.session import Session
from benchmarks.measuring import Report, Result, Settings, agree, compared, in_turn
from benchmarks.one_at_a_time import Inputs, answers, inputs_of
from benchmarks.ways import Hooks

REPEATS = 15
"""Passes take a tenth of a second, so many are taken."""


def no_op(settings: Settings) -> Report:
    """`Engine.predict` with a gain of 1, beside the model's own forward on the same batches."""
    results = []
    for session, _ in _sessions(settings):
        items, readout, model = session.items("test"), session.readout, session.model
        nothing = scale("gate", model.shape, np.arange(model.shape.units), 1.0)
        inputs = inputs_of(model, items)
        hooks = Hooks(model)
        ours = Engine(model).predict(items, readout, [nothing]).scores
        theirs = answers(hooks, inputs, items, readout, [nothing])
        agree(np.allclose(ours, theirs, rtol=0, atol=1e-3), "a no-op changes the scores")
        results.append(
            _compared(
                f"{model.card.name}: bare forward pass over a no-op ({len(items)} items)",
                lambda: Engine(model).predict(items, readout, [nothing]),  # noqa: B023
                lambda: bare(model.network, inputs),  # noqa: B023
                settings,
            )
        )
    return Report(results)


def evidence(settings: Settings) -> Report:
    """The statistics of all selectors of the quick start in one pass, beside a bare pass over the split."""
    results = []
    for session, requests in _sessions(settings):
        items, name = session.items("identification"), session.model.card.name
        inputs = inputs_of(session.model, items)
        plain = frozenset(key for key in requests if key[-1] != ATTRIBUTION)
        for what, wanted in (
            ("all statistics, with the backward pass of attribution", requests),
            ("all statistics without a gradient", plain),
        ):
            results.append(
                _compared(
                    f"{name}: bare forward pass over evidence, {what} ({len(items)} items)",
                    lambda: collect(session, items, wanted),  # noqa: B023
                    lambda: bare(session.model.network, inputs),  # noqa: B023
                    settings,
                )
            )
    return Report(results)


def collect(session: Session, items: Items, requests: frozenset[Key]) -> EvidencePass:
    """One evidence pass of an engine that knows nothing yet."""
    return EvidencePass(Engine(session.model), items, session.readout, requests).run()


@torch.no_grad()
def bare(network: torch.nn.Module, inputs: Inputs) -> None:
    """The model's own forward on ready batches; nothing is read from it."""
    for _, batch in inputs:
        network(**batch)


def _compared(
    name: str, ours: Callable[[], object], other: Callable[[], object], settings: Settings
) -> Result:
    repeats = 2 if settings.quick else REPEATS
    ours(), other()
    times = in_turn({"ours": ours, "other": other}, repeats)
    result = compared(name, times["ours"], times["other"], "CPU s")
    settings.say(f"{name}: {result.ours:.3f} s, bare {result.other:.3f} s")
    return result


def _sessions(settings: Settings) -> list[tuple[Session, frozenset[Key]]]:
    """The planted reference models on their full benchmarks, with what the quick start's selectors need."""
    registry = Registry()
    jobs = jobs_of_suite(registry, "quickstart", None)
    wanted = ("reference-text",) if settings.quick else ("reference-text", "reference-audio")
    return [
        (_session(registry, job, settings), _requests(registry, job))
        for job in jobs
        if job.card.name in wanted
    ]


def _session(registry: Registry, job: Job, settings: Settings) -> Session:
    dataset = load_benchmark(job.benchmark, limit=4 if settings.quick else None)
    return Session(load_model(registry, job, "cpu"), job.benchmark, dataset, registry.benchmark)


def _requests(registry: Registry, job: Job) -> frozenset[Key]:
    (protocol,) = job.protocols
    positions = protocol.statistics.positions
    return merged(
        [
            requests_of(usable_selector(name, registry.selector).needs, protocol.site, positions)
            for name in job.selectors
        ]
    )
