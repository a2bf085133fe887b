"""Records as flat rows, one a condition, for tables and exports."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from affectbench.expression_models import ReplyScore
from affectbench.record import Record
from affectbench.score_models import DoseScore, Estimate


def rows(record: Record) -> list[dict[str, Any]]:
    """Flat rows for tables, one a condition; a record without scores gives one row with its status."""
    cell_columns = _cell_columns(record)
    if record.scores is None or not record.scores.doses:
        return [cell_columns | dict.fromkeys(_DOSE_COLUMNS) | {"operating": False}]
    return [cell_columns | _dose_columns(record, dose) for dose in record.scores.doses]


_DOSE_COLUMNS = (
    "arm", "dose", "self", "cross", "spec", "spec_low", "spec_high", "spec_corrected_low",
    "spec_corrected_high", "gap_abs", "z_random", "p", "p_random", "significant", "trs", "kl", "kl_low",
    "kl_high", "perplexity_change", "capability", "capability_low", "capability_high", "capability_base",
    "degenerate", "degenerate_low", "degenerate_high", "pres", "pres_low", "pres_high", "uar", "collapsed",
    "word_confound", "word_confound_low", "word_confound_high",
    "transfer_ratio", "transfer_ratio_low", "transfer_ratio_high",
    "necessity", "necessity_low", "necessity_high", "necessity_task", "necessity_control", "necessity_random",
    "necessity_p_random", "recovery", "recovery_low", "recovery_high", "recovery_random", "recovery_p_random",
    "expressed", "expressed_low", "expressed_high", "expressed_masked", "expressed_none",
)  # fmt: skip


def _cell_columns(record: Record) -> dict[str, Any]:
    cell, scores, headline, calibration = record.cell, record.scores, record.headline, record.calibration
    strength = scores.strength.strength if scores and scores.strength else None
    expression = record.expression
    return {
        **{name: getattr(cell, name) for name in ("model", "task", "selector", "intervention")},
        **{name: getattr(cell, name) for name in ("fraction", "seed", "site", "positions")},
        "identified_on": cell.origin,
        "identification_items": cell.identification.items if cell.identification else None,
        "identification_draw": cell.identification.draw if cell.identification else None,
        "status": record.status,
        "control": record.control,
        **_with_bounds("strength", strength),
        **_with_bounds("agg", headline.agg if headline else None),
        "uar_base": scores.baseline.uar if scores else None,
        "prompted": expression.prompting.accuracy.value
        if expression and expression.prompting.accuracy
        else None,
        "n_items": scores.baseline.n_items if scores else None,
        "n_clusters": scores.baseline.n_clusters if scores else None,
        "auroc": calibration.auroc if calibration else None,
        "decoy_auroc": calibration.decoy_auroc if calibration else None,
        "precision_at_k": calibration.precision_at_k if calibration else None,
        **_sizes(record),
    }


def _sizes(record: Record) -> dict[str, float | None]:
    """Means over emotions of how large the selected modules are."""
    found = record.modules
    return {
        "module_parameters": fmean(found.parameters) if found else None,
        "module_share": fmean(found.share) if found else None,
        "adapter_share": fmean(found.adapter_share) if found and found.adapter_share else None,
    }


def _necessity(record: Record, dose: DoseScore) -> dict[str, float | None]:
    """What damage to modules takes from the task, from the control task, and from the first more."""
    found = record.modules.necessity if record.modules and dose.arm == "suppress" else []
    own = next((each for each in found if each.dose == dose.dose), None)
    random = own.random if own else None
    return {
        **_with_bounds("necessity", own.difference if own else None),
        "necessity_task": own.task.value if own else None,
        "necessity_control": own.control.value if own and own.control else None,
        "necessity_random": random.difference.value if random else None,
        "necessity_p_random": random.p if random else None,
    }


def _recovery(record: Record, dose: DoseScore) -> dict[str, float | None]:
    """What of an adaptation's gain the base has with modules put in."""
    found = record.modules.recovery if record.modules and dose.arm == "amplify" else []
    own = next((each for each in found if each.dose == dose.dose), None)
    return {
        **_with_bounds("recovery", own.share if own else None),
        "recovery_random": own.random.value if own and own.random else None,
        "recovery_p_random": own.p if own else None,
    }


def _with_bounds(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """A number and the ends of its interval as three columns."""
    ends = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _dose_columns(record: Record, dose: DoseScore) -> dict[str, Any]:
    told = [p for p in record.preservation if p.targeting is None]
    kept = next((p for p in told if (p.arm, p.dose) == (dose.arm, dose.dose)), None)
    chosen = record.operating and getattr(record.operating, f"{dose.arm}_dose")
    confound = record.word_confound if chosen == dose.dose else None
    ratio: Estimate | None = getattr(confound, dose.arm) if confound else None
    replies = _replies(record, dose)
    moved = record.transfer if (dose.arm, dose.dose) == ("suppress", chosen) else None
    return {
        "arm": dose.arm,
        "dose": dose.dose,
        "self": dose.self_effect.value,
        "cross": dose.cross_effect.value,
        **_with_bounds("spec", dose.spec),
        "spec_corrected_low": dose.spec_corrected.low,
        "spec_corrected_high": dose.spec_corrected.high,
        "gap_abs": dose.gap_abs.value,
        "z_random": dose.random.z if dose.random else None,
        "p": dose.p,
        "p_random": dose.random.p if dose.random else None,
        "significant": dose.significant,
        "trs": dose.trs.value,
        **_with_bounds("kl", kept.kl if kept else None),
        "perplexity_change": kept.perplexity_change.value if kept else None,
        **_with_bounds("capability", kept.capability if kept else None),
        "capability_base": kept.capability_base if kept else None,
        **_with_bounds("degenerate", kept.degenerate_rate if kept else None),
        **_with_bounds("pres", kept.pres if kept else None),
        "uar": dose.uar,
        "collapsed": dose.collapsed,
        "operating": chosen == dose.dose,
        **_with_bounds("word_confound", ratio),
        **_with_bounds("transfer_ratio", moved.ratio if moved else None),
        **_necessity(record, dose),
        **_recovery(record, dose),
        **_with_bounds("expressed", replies.accuracy if replies else None),
        "expressed_masked": replies.masked_accuracy.value if replies and replies.masked_accuracy else None,
        "expressed_none": replies.none.value if replies else None,
    }


def _replies(record: Record, dose: DoseScore) -> ReplyScore | None:
    """The judged replies of a condition, where there are any."""
    found = record.expression.conditions if record.expression else []
    return next((each for each in found if (each.condition, each.dose) == (dose.arm, dose.dose)), None)
