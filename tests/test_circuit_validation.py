"""What the units of a circuit do to the stream, against the same asked for one by one, and on a model that
knows emotions."""

from __future__ import annotations

import numpy as np
import pytest
from e2e_content import BENCHMARK, Bench
from test_circuit_selectors import EMOTIONS, study

from affectbench.analyses import ANALYSES, Asked
from affectbench.anatomy import Anatomy
from affectbench.circuit_validation import Trial, analyse
from affectbench.dataset import load_benchmark
from affectbench.intervention import UNTOUCHED, add, scale
from affectbench.placement import load_model
from affectbench.session import Session

DRAWS = 3


@pytest.fixture(scope="module")
def trial() -> Trial:
    here = study("neuron")
    anatomy = Anatomy(here)
    base = here.project([UNTOUCHED], anatomy.frame.reference)[0]
    return Trial(anatomy, here.items, base, DRAWS)


@pytest.mark.parametrize("site", ["neuron", "head"])
@pytest.mark.parametrize("arm", ["enhanced", "ablated"])
def test_best_units_are_those_that_write_most(trial: Trial, site: str, arm: str) -> None:
    study, gold, reference = trial.anatomy.study, trial.items.gold, trial.anatomy.frame.reference
    found = trial.effects(site, arm, [1, 3])  # type: ignore[arg-type]
    assert found.best.shape == (2, len(gold))
    assert found.random.shape == (DRAWS, 2)
    shape = study.site_shape(site)
    scores = trial.anatomy.neurons if site == "neuron" else trial.anatomy.heads
    means = study.statistic(f"{site}:mean")
    excess = (means - means.mean(axis=0)).reshape(EMOTIONS, shape.units, -1)
    sums, counts = np.zeros(len(gold)), np.zeros(len(gold))
    for emotion in range(EMOTIONS):
        units = np.argsort(-scores[emotion].ravel(), kind="stable")[:3]
        edit = scale(site, shape, units, 0.0, "answer")
        if arm == "enhanced":
            edit = add(site, shape, units, excess[emotion, units], "answer")
        moved = study.project([edit], reference)[0, :, emotion] - trial.base[:, emotion]
        own = gold == emotion
        gap = trial.base[own, emotion].mean() - trial.base[~own, emotion].mean()
        counted = own if arm == "ablated" else ~own
        sums[counted] += moved[counted] / gap
        counts[counted] += 1
    np.testing.assert_allclose(found.best[1], sums / counts, rtol=1e-3, atol=1e-4)


def test_on_a_model_that_knows_emotions_best_units_move_it_and_random_ones_do_not(bench: Bench) -> None:
    registry = bench.registry()
    benchmark = registry.benchmark(BENCHMARK)
    dataset = load_benchmark(benchmark, bench.root / "data", None)
    session = Session(load_model(registry, bench.suite()[0], "cpu"), benchmark, dataset, registry.benchmark)
    known = ANALYSES["circuit-validation"]
    content = analyse(Asked(session, 0, known.settings | {"random_draws": DRAWS, "units": [1, 8]}))
    curves = {curve.name: curve for curve in content.curves}
    assert set(curves) == {"neurons-enhanced", "neurons-ablated", "heads-enhanced", "heads-ablated"}
    assert curves["neurons-enhanced"].x == [1.0, 8.0]
    assert curves["heads-enhanced"].x == [1.0]
    for name, sign in (("neurons-enhanced", 1), ("neurons-ablated", -1)):
        best, drawn = (series.values for series in curves[name].series)
        assert None not in (*best, *drawn)
        assert sign * best[1] > sign * best[0] > 0  # type: ignore[operator]
        assert sign * best[1] > 2 * abs(drawn[1])  # type: ignore[operator]
    assert {finding.name for finding in content.findings} == {f"{name}-moved" for name in curves}
