"""How often each null calls independent series aligned: what a test that one may believe must keep to 5 %.

Both series are autoregressive noise of order 1 and know nothing of each other. Their RDMs correlate all the
same, for both are smooth in time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from affectbench.alignment.group import over_subjects, share_interval
from affectbench.alignment.metrics import MEASURES
from affectbench.alignment.nulls import (
    any_order,
    block_order,
    p_value,
    phases_randomised,
    reordering_null,
    shifted_order,
)
from affectbench.alignment.rdm import FloatArray
from affectbench.alignment.work import Arrays, Task, Workshop
from affectbench.analysis import Column, Curve, Finding, Series, Table
from affectbench.score_models import Estimate

PHIS = (0.0, 0.9, 0.97)
STEPS, CHANNELS, FEATURES = 60, 20, 20
DRAWS, SUBJECTS, SENTENCES = 199, 12, 10
NULLS = {
    "label permutation": "permute time labels (the paper's)",
    "circular shift": "shift in a circle",
    "block permutation": "permute blocks",
    "phase randomisation": "randomise phases",
    "mismatch": "states of other speech",
    "mismatch, lag taken out": "states of other speech, partial RSA",
    "subjects": "match minus mismatch, signs of subjects flipped",
}
LIMITS = {0.9: 0.10, 0.97: 0.12}
"""What the mismatch null may reach."""


def autoregressive(phi: float, steps: int, features: int, rng: np.random.Generator) -> FloatArray:
    """Independent AR(1) series (steps, features), the first step drawn from their stationary state."""
    from scipy.signal import lfilter

    noise = rng.normal(size=(steps, features))
    noise[0] /= np.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise, axis=0))


def one_run(_shared: Any, phi: float, run: int, seed: int) -> Arrays:
    """The p value of each null for one pair of independent series, and what RSA was: `p` (nulls,), `rsa`."""
    rng = np.random.default_rng([seed, run, round(1000 * phi)])
    spearman, partial = (MEASURES["debiased"][name].side for name in ("rsa_spearman", "rsa_lag_partial"))
    assert spearman is not None, "RSA is an inner product"
    assert partial is not None, "partial RSA is an inner product"
    eeg, states = (autoregressive(phi, STEPS, count, rng) for count in (CHANNELS, FEATURES))
    x, y = spearman(eeg, "correlation"), spearman(states, "correlation")
    observed = float(x @ y)
    p = [
        p_value(observed, reordering_null(x, y, draw, DRAWS, rng))
        for draw in (any_order, shifted_order, block_order)
    ]
    turned = [x @ spearman(phases_randomised(states, rng), "correlation") for _ in range(DRAWS)]
    p.append(p_value(observed, [float(each) for each in turned]))
    others = [autoregressive(phi, STEPS, FEATURES, rng) for _ in range(DRAWS)]
    p.append(p_value(observed, [float(x @ spearman(other, "correlation")) for other in others]))
    x = partial(eeg, "correlation")
    null = [float(x @ partial(other, "correlation")) for other in others]
    p.append(p_value(float(x @ partial(states, "correlation")), null))
    p.append(_group(phi, rng))
    return {"p": np.array(p), "rsa": np.array([observed])}


def _group(phi: float, rng: np.random.Generator) -> float:
    """The p value of the test over subjects who all heard the same sentences."""
    side = MEASURES["debiased"]["rsa_spearman"].side
    assert side is not None, "RSA is an inner product"
    heard = np.stack(
        [side(autoregressive(phi, STEPS, FEATURES, rng), "correlation") for _ in range(SENTENCES)]
    )
    effects = []
    for _ in range(SUBJECTS):
        eeg = [side(autoregressive(phi, STEPS, CHANNELS, rng), "correlation") for _ in range(SENTENCES)]
        table = np.stack(eeg) @ heard.T
        match = np.trace(table)
        effects.append((match - (table.sum() - match) / (SENTENCES - 1)) / SENTENCES)
    return float(over_subjects(np.array(effects)).p)


def study(workshop: Workshop, runs: int, seed: int) -> dict[str, Any]:
    """The parts of the analysis ``eeg-nulls`` over that many runs at each autocorrelation."""
    tasks = [Task(f"nulls {phi} {run} {seed}", (phi, run, seed)) for phi in PHIS for run in range(runs)]
    found = workshop.each("nulls", one_run, None, tasks)
    p = np.stack([each["p"] for each in found]).reshape(len(PHIS), runs, len(NULLS))
    rsa = np.stack([each["rsa"] for each in found]).reshape(len(PHIS), runs)
    hits = (p <= 0.05).sum(axis=1)
    rates = [[_rate(int(hits[phi, null]), runs) for phi in range(len(PHIS))] for null in range(len(NULLS))]
    return {
        "n": {"runs": runs, "draws": DRAWS, "time_steps": STEPS},
        "findings": _findings(rates),
        "tables": [_table(rates)],
        "curves": [_curve(rates)],
        "notes": [
            f"RSA of independent series is {rsa[1].mean():.2f} at an autocorrelation of 0.9 and "
            f"{rsa[2].mean():.2f} at 0.97: no null that destroys it may be compared with.",
            f"Series of {STEPS} time steps with {CHANNELS} channels and {FEATURES} features; {DRAWS} draws a "
            f"null; {SUBJECTS} subjects and {SENTENCES} sentences in the test over subjects.",
        ],
    }


def _rate(hits: int, runs: int) -> Estimate:
    low, high = share_interval(hits, runs)
    return Estimate(value=hits / runs, low=low, high=high)


def _findings(rates: list[list[Estimate]]) -> list[Finding]:
    names = list(NULLS)
    found = []
    for place, phi in enumerate(PHIS):
        if phi not in LIMITS:
            continue
        bad, good = rates[names.index("label permutation")][place], rates[names.index("mismatch")][place]
        tag = str(phi).replace(".", "-")
        found.append(
            Finding(
                name=f"invalid-{tag}",
                text=f"Permuting time labels calls {bad.value:.0%} of independent series aligned at "
                f"AR({phi}); 5 % would be right. It is not valid: it is shown to warn, and no alignment is "
                "tested by it.",
                value=bad,
            )
        )
        held = "within" if good.value <= LIMITS[phi] else "above"
        found.append(
            Finding(
                name=f"mismatch-{tag}",
                text=f"The mismatched stimulus does so for {good.value:.1%} at AR({phi}), {held} the "
                f"limit of {LIMITS[phi]:.0%}.",
                value=good,
            )
        )
    return found


def _table(rates: list[list[Estimate]]) -> Table:
    columns = [Column(name="null"), *(Column(name=f"AR({phi})") for phi in PHIS)]
    rows: list[list[Any]] = [[text, *rates[place]] for place, text in enumerate(NULLS.values())]
    return Table(
        name="false-positives", title="False-positive rate at a nominal 5 %", columns=columns, rows=rows
    )


def _curve(rates: list[list[Estimate]]) -> Curve:
    series = [
        Series(
            label=name,
            values=[rate.value for rate in rates[place]],
            low=[rate.low for rate in rates[place]],
            high=[rate.high for rate in rates[place]],
        )
        for place, name in enumerate(NULLS)
    ]
    return Curve(
        name="rates", title="False positives by autocorrelation", x_label="autocorrelation of one step "
        "(AR 1)",
        y_label="share of p at most 0.05", x=list(PHIS), series=series, reference=0.05,
        reference_label="nominal",
    )  # fmt: skip
