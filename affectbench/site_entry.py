"""What an entry's page shows, taken from its record alone: a panel a dose, curves, and one plain sentence."""

from __future__ import annotations

from dataclasses import dataclass

from affectbench import figures
from affectbench.record import Record, cell_id
from affectbench.score_models import Arm, DoseScore, EmotionScore, Estimate
from affectbench.site_expression import ReplyPanel, reply_panels
from affectbench.site_format import Bar, bar, general, interval, number, shared_scale
from affectbench.word_score import is_high

ARMS: tuple[Arm, Arm] = ("suppress", "amplify")


@dataclass(frozen=True)
class EmotionRow:
    """One emotion at one dose, with its bar on an axis shared by the panel."""

    score: EmotionScore
    spec: Bar | None


@dataclass(frozen=True)
class Panel:
    """One condition: its numbers, its heat map and the random draws beside it."""

    id: str
    dose: DoseScore
    operating: bool
    matrix: str
    strip: str
    emotions: list[EmotionRow]
    n_draws_below: int


@dataclass(frozen=True)
class Axis:
    """One of the headline numbers with its own bar."""

    name: str
    meaning: str
    bar: Bar | None
    missing: str


@dataclass(frozen=True)
class WordPanel:
    """One arm of the answer-word control: its effect matrix and the task's, on one scale of colours."""

    arm: Arm
    control: DoseScore
    task: DoseScore
    ratio: Estimate | None
    high: bool
    matrices: tuple[str, str]


@dataclass(frozen=True)
class Entry:
    """An entry page's content. Figures are SVG text, empty where there is nothing to draw."""

    id: str
    record: Record
    sentence: str
    axes: list[Axis]
    panels: list[Panel]
    curves: list[tuple[Arm, str]]
    label_free: list[DoseScore]
    words: list[WordPanel]
    replies: list[ReplyPanel]
    layers: str
    confusion: str


def entry(record: Record) -> Entry:
    """The content of one record's page."""
    scores, selection = record.scores, record.selection
    labels = record.task.labels
    return Entry(
        id=cell_id(record.cell),
        record=record,
        sentence=sentence(record),
        axes=_axes(record),
        panels=_panels(record),
        curves=[(arm, curve) for arm in ARMS if (curve := _curve(record, arm))],
        words=_word_panels(record),
        replies=reply_panels(record.expression, labels),
        label_free=[dose for dose in scores.doses if dose.label_free] if scores else [],
        layers=(
            figures.layer_histogram("layers", "Selected units by layer", labels, selection.layer_histogram)
            if selection and selection.layer_histogram and selection.layer_histogram[0]
            else ""
        ),
        confusion=(
            figures.confusion("confusion", "Answers without intervention", labels, scores.baseline.confusion)
            if scores
            else ""
        ),
    )


def sentence(record: Record) -> str:
    """The suppress arm at its operating dose in words; empty where there is no such dose."""
    dose = _operating_dose(record, "suppress")
    if dose is None:
        return ""
    own, other = dose.self_effect, dose.cross_effect
    text = (
        f"Suppressing an emotion's units (dose {general(dose.dose)}) changes recall on that emotion by "
        f"{number(own.value)} {interval(own)} and on the others by {number(other.value)} {interval(other)}."
    )
    random = dose.random
    if random is None:
        return text + " It was not compared with random units, so it cannot count as significant."
    below = sum(value < dose.spec.value for value in random.spec)
    return text + (
        f" Its specificity of {number(dose.spec.value)} lies above {below} of {random.n_draws} "
        f"matched random draws (their mean: {number(random.spec_mean)})."
    )


def _operating_dose(record: Record, arm: Arm) -> DoseScore | None:
    chosen = getattr(record.operating, f"{arm}_dose") if record.operating else None
    if record.scores is None or chosen is None:
        return None
    return next((d for d in record.scores.doses if (d.arm, d.dose) == (arm, chosen)), None)


def _axes(record: Record) -> list[Axis]:
    headline = record.headline
    if headline is None:
        return []
    shown = [
        ("Specificity", "suppress arm", headline.spec, "not measured"),
        ("Specificity", "amplify arm", headline.spec_amplify, "no operating dose in the amplify arm"),
        ("Strength", "amplify arm, all doses", headline.strength, "no amplify arm"),
        ("Preservation", "lower of both arms", headline.pres, "not measured"),
        ("Aggregate", "harmonic mean", headline.agg, "an axis is missing or flagged"),
    ]
    scale = shared_scale([estimate for *_, estimate, _ in shown], least=1.0)
    return [Axis(name, meaning, bar(estimate, scale), none) for name, meaning, estimate, none in shown]


def _word_panels(record: Record) -> list[WordPanel]:
    words, confound = record.answer_words, record.word_confound
    found = []
    for arm in ARMS:
        control = next((dose for dose in words.doses if dose.arm == arm), None) if words else None
        task = _operating_dose(record, arm)
        if confound is None or control is None or task is None or control.dose != task.dose:
            continue
        values = [abs(value) for dose in (task, control) for row in dose.effect_matrix for value in row]
        top, labels, ratio = max([0.1, *values]), record.task.labels, getattr(confound, arm)
        shown = (("t", "Effect matrix on the task", task), ("w", "Effect matrix on the control", control))
        matrices = [
            figures.effect_matrix(f"words-{arm}-{key}", f"{title}, {arm}", labels, dose.effect_matrix, top)
            for key, title, dose in shown
        ]
        found.append(WordPanel(arm, control, task, ratio, is_high(ratio), (matrices[0], matrices[1])))
    return found


def _panels(record: Record) -> list[Panel]:
    if record.scores is None:
        return []
    doses = sorted(record.scores.doses, key=lambda dose: (ARMS.index(dose.arm), dose.alpha, dose.dose))
    values = [abs(value) for dose in doses for row in dose.effect_matrix for value in row]
    top = max([0.1, *values])
    chosen = [_operating_dose(record, arm) for arm in ARMS]
    return [_panel(record, f"d{i}", dose, top, dose in chosen) for i, dose in enumerate(doses)]


def _panel(record: Record, name: str, dose: DoseScore, top: float, operating: bool) -> Panel:
    scale = shared_scale(emotion.spec for emotion in dose.emotions)
    heading = f"Effect matrix, {dose.arm} at dose {general(dose.dose)}"
    draws = dose.random.spec if dose.random else []
    return Panel(
        id=name,
        dose=dose,
        operating=operating,
        matrix=figures.effect_matrix(f"{name}-m", heading, record.task.labels, dose.effect_matrix, top),
        strip=(
            figures.random_strip(f"{name}-s", "Specificity among random draws", dose.spec, draws)
            if draws
            else ""
        ),
        emotions=[EmotionRow(emotion, bar(emotion.spec, scale)) for emotion in dose.emotions],
        n_draws_below=sum(value < dose.spec.value for value in draws),
    )


def _curve(record: Record, arm: Arm) -> str:
    if record.scores is None:
        return ""
    doses = sorted((dose for dose in record.scores.doses if dose.arm == arm), key=lambda dose: dose.alpha)
    if len({dose.alpha for dose in doses}) < 2:
        return ""
    points = [
        figures.CurvePoint(
            alpha=dose.alpha,
            dose=dose.dose,
            shift=dose.trs,
            by_emotion=[emotion.trs.value for emotion in dose.emotions],
            collapsed=dose.collapsed,
        )
        for dose in doses
    ]
    title = f"Target-rate shift by dose, {arm} arm"
    return figures.dose_curve(f"curve-{arm}", title, record.task.labels, points)
