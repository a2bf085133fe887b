"""What the experiments on module types found, as parts of analyses: tables, matrices, curves and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from affectbench.analysis import Column, Curve, Finding, Matrix, Series, Table, Value, grid, numbers
from affectbench.module_change import METRICS, Metric
from affectbench.module_edit import Operation
from affectbench.module_experiments import SINGLE, Design, Measured, Mode, Trained, known
from affectbench.module_pairs import Changes
from affectbench.module_score import DRAWS, FloatArray, Quantity, accuracies, over_seeds, recalls, recovery
from affectbench.module_types import Modules
from affectbench.session import Session

GATE = "gate"
METRIC_NAMES = {
    "relative": "relative change (Frobenius, of the base's)",
    "absolute": "absolute change (Frobenius)",
    "rms": "RMS change",
    "top": "top singular value",
    "stable_rank": "stable rank",
}
Scores = dict[str, Quantity]


def scores_of(session: Session, measured: Measured, seed: int, stream: int) -> Scores:
    """UAR of each condition on the test items of a session's benchmark."""
    items = session.items("test")
    found = recalls(measured.codes, items.gold, items.clusters, seed, stream)
    return dict(zip(measured.names, found, strict=True))


def kept_of(measured: Measured, seed: int, stream: int) -> Scores:
    """Accuracy of each condition on the capability items; none where they were not asked."""
    if measured.kept is None:
        return {}
    return dict(zip(measured.names, accuracies(measured.kept, seed, stream), strict=True))


def margin(found: Mapping[str, Quantity], name: str = GATE) -> Quantity:
    """How far a single type is above the best other single type; in each draw the best of that draw."""
    others = [found[each] for each in SINGLE if each in found and each != name]
    return found[name] - Quantity.largest(others)


def stands_out(found: Mapping[str, Quantity], what: str, name: str, unit: str = "points") -> Finding:
    """Whether `gate` is above every other type, as a sentence with its interval."""
    lead = margin(found)
    estimate = lead.estimate()
    scale = 100 if unit == "points" else 1
    low, high = estimate.low or 0.0, estimate.high or 0.0
    singles = {each: found[each].value for each in SINGLE if each in found}
    best = max(singles, key=lambda each: singles[each])
    verdict = "above" if low > 0 else "below" if high < 0 else "not told apart from"
    place = sorted(singles.values(), reverse=True).index(singles[GATE]) + 1
    return Finding(
        name=name,
        text=(
            f"{what}: gate is {verdict} the best other type: {scale * lead.value:+.1f} {unit} "
            f"[{scale * low:+.1f}, {scale * high:+.1f}]; number {place} of {len(singles)}, {best} is first."
        ),
        value=estimate,
    )


def change_table(label: str, name: str, changes: Sequence[Changes], headline: Metric) -> Table:
    """All metrics by type, mean over layers, with intervals over adaptations (seeds)."""
    rows: list[list[Value]] = []
    modules = changes[0].modules
    order: list[Metric] = [headline, *(each for each in METRICS if each != headline)]
    for kind in (*modules.types, "attn", "mlp"):
        types = known([kind], modules)[kind]
        cells: list[Value] = [kind, 100 * modules.share(types)]
        for metric in order:
            values = np.array([each.over_layers(metric, types) for each in changes])
            cells.append(over_seeds(values) if np.isfinite(values).all() else None)
        rows.append(cells)
    titles = ["module type", "share of weights, %", *order]
    return Table(
        name=name,
        title=f"Change by module type: {label}",
        columns=[Column(name=title, digits=1 if "share" in title else 4) for title in titles],
        rows=rows,
        note=f"{METRIC_NAMES[headline][0].upper()}{METRIC_NAMES[headline][1:]} is the headline. Means over "
        f"layers; intervals over {len(changes)} adaptations (Student's t); none from a single one.",
    )


def change_matrix(label: str, name: str, changes: Sequence[Changes], metric: Metric) -> Matrix:
    """Change by type and layer, mean over adaptations."""
    modules = changes[0].modules
    values = np.mean([each.values(metric) for each in changes], axis=0)
    return Matrix(
        name=name,
        title=f"{metric.capitalize()} change by layer: {label}",
        row_label="module type",
        column_label="layer",
        rows=list(modules.types),
        columns=[str(layer) for layer in range(modules.layers)],
        values=grid(values),
    )


def change_lead(changes: Sequence[Changes], seed: int, stream: int, metric: Metric) -> Quantity | None:
    """How far gate's change is above the largest other type's; draws are Student's, over seeds.
    None from a single adaptation. Leads of one `stream` are drawn together."""
    if len(changes) < 2:
        return None
    values = _leads(changes, metric)[1]
    found = over_seeds(values)
    random = np.random.default_rng([seed, 82, stream])
    return Quantity(
        found.value, found.value + (found.se or 0) * random.standard_t(len(values) - 1, size=DRAWS)
    )


def _leads(changes: Sequence[Changes], metric: Metric) -> tuple[dict[str, float], FloatArray]:
    """Mean change of each type, and gate's lead over the largest other one in each adaptation."""
    types = [each for each in SINGLE if each in changes[0].modules.types]
    found = np.array([[each.over_layers(metric, [kind]) for kind in types] for each in changes])
    place = types.index(GATE)
    rest = np.delete(found, place, axis=1).max(axis=1)
    return dict(zip(types, found.mean(axis=0).tolist(), strict=True)), found[:, place] - rest


def change_finding(label: str, name: str, changes: Sequence[Changes], metric: Metric) -> Finding:
    """The lead of gate over the largest other type in change, over seeds."""
    means, values = _leads(changes, metric)
    lead = over_seeds(values)
    order = sorted(means, key=lambda kind: -means[kind])
    told = ", ".join(f"{kind} {means[kind]:.3f}" for kind in order)
    word = "no interval from one adaptation"
    if lead.low is not None and lead.high is not None:
        word = "above" if lead.low > 0 else "below" if lead.high < 0 else "not told apart from"
        word = f"gate is {word} the largest other type"
    return Finding(name=name, text=f"{label}: {metric} change is {told}; {word}.", value=lead)


def transfer_table(title: str, name: str, scores: Scores, modules: Modules) -> Table:
    """Score and recovery of each transfer."""
    base, adapted = scores["none"], scores["adapted"]
    rows: list[list[Value]] = []
    for each, score in scores.items():
        share = recovery(score, base, adapted)
        types = known([each], modules).get(each, ())
        own = 100 * modules.share(types) if types else None
        rows.append([each, own, score.estimate(), None if share is None else share.estimate()])
    weak = recovery(adapted, base, adapted) is None
    return Table(
        name=name,
        title=title,
        columns=[
            Column(name="transferred", digits=0),
            Column(name="share of weights, %", digits=1),
            Column(name="UAR", digits=3),
            Column(name="recovery R", digits=3),
        ],
        rows=rows,
        note="R = (S - S(base)) / (S(adapted) - S(base)). "
        + ("It is left out: the adaptation gains less than two standard errors." if weak else ""),
    )


def recoveries(scores: Scores) -> Scores:
    """R of every transfer for which it is defined."""
    base, adapted = scores["none"], scores["adapted"]
    found = {name: recovery(score, base, adapted) for name, score in scores.items()}
    return {name: share for name, share in found.items() if share is not None}


def drops(scores: Scores, operation: Operation) -> Scores:
    """What each type's damage costs."""
    found = {name.removesuffix(f" {operation}"): score for name, score in scores.items() if operation in name}
    return {name: scores["adapted"] - score for name, score in found.items()}


def specificities(task: Scores, kept: Scores, operation: Operation) -> Scores:
    """Drop on the task less the drop on the control under the same damage."""
    own, other = drops(task, operation), drops(kept, operation)
    return {name: own[name] - other[name] for name in own}


def damage_table(
    title: str, name: str, task: Scores, kept: Scores, modules: Modules, design: Design
) -> Table:
    """Drops on the task and on the capability, and their difference, for each type and kind of damage."""
    rows: list[list[Value]] = []
    for operation in design.operations:
        own, other = drops(task, operation), drops(kept, operation)
        specific = specificities(task, kept, operation)
        for kind in known(design.damaged, modules):
            rows.append(
                [
                    f"{kind}, {operation}",
                    own[kind].estimate(),
                    other[kind].estimate(),
                    specific[kind].estimate(),
                ]
            )
    return Table(
        name=name,
        title=title,
        columns=[
            Column(name="damage", digits=0),
            Column(name="drop in UAR", digits=3),
            Column(name="drop in capability", digits=3),
            Column(name="specificity", digits=3),
        ],
        rows=rows,
        note="reset: back to the base; zero: no weights; noise: Gaussian noise of the change's norm in its "
        "place; shuffle: its rows permuted. Specificity: first drop less the second. What the base could do "
        "already, no reset can take away: for the capability, zero is the damage that could.",
    )


def damage_matrix(title: str, name: str, scores: Scores, modules: Modules, design: Design) -> Matrix:
    """Drops by type and kind of damage."""
    names = list(known(design.damaged, modules))
    found = [[drops(scores, operation)[kind] for operation in design.operations] for kind in names]
    estimates = [[each.estimate() for each in row] for row in found]
    return Matrix(
        name=name,
        title=title,
        row_label="damaged",
        column_label="damage",
        rows=names,
        columns=list(design.operations),
        values=grid([[each.value for each in row] for row in estimates]),
        low=grid([[each.low for each in row] for row in estimates]),  # type: ignore[arg-type]
        high=grid([[each.high for each in row] for row in estimates]),  # type: ignore[arg-type]
        scale="diverging",
    )


def adaptation_table(title: str, name: str, trained: Mapping[str, Trained], scores: Scores) -> Table:
    """Test UAR of each adaptation by label, and the share of the gain of adapting all that it keeps."""
    base, everything = scores["none"], scores["all"]
    rows: list[list[Value]] = []
    for label, each in trained.items():
        kept = recovery(scores[label], base, everything)
        own = 100 * each.parameters / trained["all"].parameters
        share = None if kept is None else kept.estimate()
        rows.append([label, each.rank, each.parameters, own, each.rate, scores[label].estimate(), share])
    titles = [
        ("adapted", 0), ("rank", 0), ("parameters", 0), ("of all, %", 1), ("learning rate", 4), ("UAR", 3),
        ("share of the gain", 3),
    ]  # fmt: skip
    return Table(
        name=name,
        title=title,
        columns=[Column(name=title, digits=digits) for title, digits in titles],
        rows=rows,
        note="Rate and step were chosen on validation items. Share of the gain: of adapting all types.",
    )


def adaptation_curve(title: str, name: str, trained: Sequence[Trained]) -> Curve:
    """UAR on validation over updates, mean over seeds."""
    series = [Series(label=each.name, values=numbers(np.mean(each.curves, axis=0))) for each in trained]
    return Curve(
        name=name,
        title=title,
        x_label="updates",
        y_label="UAR on validation items",
        x=[float(step) for step in trained[0].steps],
        series=series,
    )


TESTS: dict[Mode, dict[str, str]] = {
    "sound": {
        "change": "Change (relative)",
        "transfer": "Transfer",
        "necessity": "Necessity (reset)",
        "specificity": "Specificity (noise, beside the capability)",
        "adaptation": "Adaptation at equal rank",
        "matched": "Adaptation with equal parameters",
    },
    "paper": {
        "change": "Change (absolute)",
        "transfer": "Transfer",
        "necessity": "Necessity (zero)",
        "adaptation": "Adaptation at equal rank",
    },
}
"""The tests that the claim has to pass, in the order of the paper's argument."""


def difference_finding(text: str, name: str, found: Quantity) -> Finding:
    """A difference with its interval, and on which side of 0 it is."""
    estimate = found.estimate()
    low, high = estimate.low or 0.0, estimate.high or 0.0
    word = "above 0" if low > 0 else "below 0" if high < 0 else "not told apart from 0"
    told = f"{found.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    return Finding(name=name, text=f"{text}: {told}, {word}.", value=estimate)


def verdict_finding(leads: Mapping[str, Quantity], mode: Mode = "sound") -> Finding:
    """Whether gate stands out: above the best other type in every test made, and further than on the control
    where there is one."""
    titles = TESTS[mode]
    tests = [test for test in titles if test in leads]
    passed = [test for test in tests if _above(leads[test])]
    shared = [
        test for test in passed
        if f"control-{test}" in leads and not _above(leads[test] - leads[f"control-{test}"])
    ]  # fmt: skip
    missing = [titles[test] for test in titles if test not in leads]
    failed = [titles[test] for test in tests if test not in passed]
    stands = bool(tests) and not failed and not shared
    text = "gate_proj stands out here" if stands else "gate_proj does not stand out here"
    text += f": it is above the best other type in {len(passed)} of {len(tests)} tests"
    text += f" ({', '.join(titles[test] for test in passed)})" if passed else ""
    text += f"; not in {', '.join(failed)}" if failed else ""
    if shared:
        text += f"; no further than on the control task in {', '.join(titles[test] for test in shared)}"
    text += f". Not tested, or nothing to test: {', '.join(missing)}." if missing else "."
    if not any(name.startswith("control-") for name in leads):
        text += " No control task was learnt beside it."
    return Finding(name="verdict", text=text)


def _above(found: Quantity) -> bool:
    low = found.estimate().low
    return low is not None and low > 0
