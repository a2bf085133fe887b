"""What scoring returns: frozen, validated result models. Every number in them is finite or absent.

Effects are differences of rates, as fractions in [-1, 1]. Matrices have one row an emotion that an
intervention targets and one column a gold emotion, both in the benchmark's label order.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Arm = Literal["suppress", "amplify"]
ARMS: tuple[Arm, Arm] = ("suppress", "amplify")
"""Each has one operating dose, or none."""


class Result(BaseModel):
    """Base of all result models: immutable, no unknown keys, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(Result):
    """An interval, absent on both sides where it cannot be estimated."""

    low: float | None
    high: float | None


class Estimate(Result):
    """A statistic with its 95 % percentile cluster-bootstrap interval and the bootstrap's standard deviation.

    `low`, `high` and `se` are None where there are too few clusters to resample.
    """

    value: float
    low: float | None = None
    high: float | None = None
    se: float | None = None


class EmotionScore(Result):
    """One emotion under the intervention that targets it.

    `spec` is the direction times the row gap (effect on its own items minus the mean effect on the others').
    `p` is the two-sided clustered sign-flip test of that gap, `p_holm` the same after Holm over the emotions.
    `z_random` and `p_random` place `spec` among the random draws' gaps for the same emotion.
    """

    label: str
    n_items: int
    base_recall: float
    self_effect: Estimate
    spec: Estimate
    trs: Estimate
    p: float | None
    p_holm: float | None
    z_random: float | None
    p_random: float | None


class RandomControl(Result):
    """The same statistics for layer-matched random units: the distribution under "any units would do".

    Control j takes its row s from draw (j + s) modulo the number of draws, because one draw used for all rows
    has a gap of exactly 0 by construction. `p` is (b + 1) / (n_draws + 1), b controls at or above the cell.
    """

    n_draws: int
    spec: list[float]
    spec_mean: float
    spec_sd: float
    z: float | None
    p: float
    trs_mean: float
    trs_sd: float
    self_mean: float
    cross_mean: float


Untold = Literal["two_pass", "mix", "union"]
"""Ways to amplify without knowing an item's emotion."""
Targeting = Literal[Untold, "oracle"]


class Recognition(Result):
    """Accuracy and macro-F1 (mean over emotions of 2 hits / (gold + answered)) without intervention and under
    it, on the same items, and the change of macro-F1 with its paired interval over clusters."""

    accuracy_before: float
    accuracy_after: float
    macro_f1_before: float
    macro_f1_after: float
    macro_f1_change: Estimate


class LabelFree(Result):
    """Recognition when units are amplified without a gold label to say which; never part of a rank.

    `uar_change` and `accuracy_change` are against the model without intervention, on the same items. Random
    units are put in the emotions' places: `random_mean` and `random_sd` are of their UAR change, `p_random`
    is (b + 1) / (n_draws + 1), b controls at or above. `largest_share` is that of the most frequent answer.
    `oracle` is told the gold label: an upper bound, not a method.
    """

    targeting: Targeting
    uar_change: Estimate
    accuracy_change: Estimate
    largest_share: float
    flip_rate: float
    n_draws: int
    random_mean: float | None
    random_sd: float | None
    p_random: float | None
    recognition: Recognition | None = Field(default=None, exclude_if=lambda value: value is None)


class DoseScore(Result):
    """One arm at one dose, over all emotions.

    `spec` is the direction (-1 suppress, +1 amplify) times `gap`; `spec_corrected` is its interval widened to
    hold for all conditions of the cell at once. `trs` is the target-rate shift: amplify, over items of other
    emotions, the gain in answers of the target; suppress, over items of the target, their loss.
    `collapse_share` is the largest share of one answered label minus its value without intervention, for the
    worst target. `label_free` is there where the protocol asks for it.
    `p` is the smallest Holm-adjusted p among emotions whose `spec` is above 0, 1 if none is.
    """

    arm: Arm
    dose: float
    alpha: float
    effect_matrix: list[list[float]]
    self_effect: Estimate
    cross_effect: Estimate
    cross_row: list[float]
    cross_column: list[float]
    gap: float
    spec: Estimate
    spec_corrected: Interval
    gap_abs: Estimate
    uar: float
    uar_change: Estimate
    collapse_share: float
    collapsed: bool
    n_unparsed: int
    n_error: int
    emotions: list[EmotionScore]
    trs: Estimate
    flip_rate: float
    margin_mean: float | None
    random: RandomControl | None
    p: float | None
    significant: bool
    label_free: list[LabelFree] = Field(default=[], exclude_if=lambda value: not value)


class StrengthScore(Result):
    """The amplify arm over its doses.

    `strength` is the area under the target-rate shift as a function of alpha (0 at alpha 0), divided by the
    largest alpha. `slope` is the mean over items and targets of a line fitted to the margin against alpha,
    `anti_steerable_share` the share of those slopes below 0; both None where the readout has no margins.
    `max_trs` is the largest shift at a dose that does not collapse, None where all collapse.
    """

    strength: Estimate
    per_emotion: list[float]
    slope: float | None
    anti_steerable_share: float | None
    max_trs: float | None


class Baseline(Result):
    """The model without intervention. Unparsed and failed items count as wrong.

    `recall` is None for a label without items, and then there is no `uar`. `uar_interval` holds the 95 %
    percentiles of the cluster bootstrap; None where clusters are too few. `confusion` has gold rows and
    answered columns, and leaves unparsed and failed items out.
    """

    uar: float | None
    uar_interval: Interval | None = None
    accuracy: float
    recall: list[float | None]
    n_items: int
    n_clusters: int
    n_unparsed: int
    n_error: int
    confusion: list[list[int]]


class Scores(Result):
    """All that one cell's predictions on one split say. `insufficient` always comes with a reason."""

    labels: list[str]
    baseline: Baseline
    doses: list[DoseScore]
    strength: StrengthScore | None
    status: Literal["ok", "insufficient"]
    reason: str
    seed: int
    bootstrap_draws: int


class AnswerWords(Result):
    """The answer-word control: the task's answers, right for a reason that has no emotion in it.

    `doses` holds the operating doses, scored as the task's are; empty where the model cannot do the control.
    """

    baseline: Baseline
    doses: list[DoseScore]


class WordConfound(Result):
    """Specificity on the answer-word control over specificity on the task, by arm, at the operating doses.

    Near 0: the units act on the emotion; near 1: on any prompt that demands these words. `uar` is that of the
    control without intervention and `bar` what it takes to be able to do it. An arm without a ratio is None,
    and `reason` says why. A ratio has no standard error: its resamples have heavy tails.
    """

    suppress: Estimate | None = None
    amplify: Estimate | None = None
    uar: float | None = None
    bar: float
    reason: str = ""


class TransferRatio(Result):
    """Specificity of units from another benchmark over that of units identified on the tested one.

    Of the suppress arm at the operating doses, on the items of the labels that both benchmarks have; `own` is
    what it is over. `answers` is the hash of the predictions that `own` is from. Without a ratio, `reason`
    says why. It has no standard error, as no ratio here.
    """

    ratio: Estimate | None = None
    own: Estimate | None = None
    answers: str = ""
    reason: str = ""


class PreservationCounts(Result):
    """What the interval of `pres` is resampled from: sums over the interventions of one dose, as numbers with
    spaces between them, which keeps a record small.

    `kl` in nats summed over the tokens of each neutral document, and how many `tokens` that were; of each
    capability item, under how many interventions it was answered right (`correct`), and `correct_base`, that
    number without intervention; under how many interventions each open prompt had a `degenerate` reply.
    Where random units are asked too: under how many of their draws each capability item was answered right
    (`random_correct`), and how many items were under each draw (`random_totals`).
    """

    interventions: int
    kl: str
    tokens: str
    correct: str
    correct_base: str
    degenerate: str
    random_correct: str = Field(default="", exclude_if=lambda value: not value)
    random_totals: str = Field(default="", exclude_if=lambda value: not value)


class PreservationScore(Result):
    """What is left of the language model at one dose.

    `kl` in nats a token, base to intervened; `perplexity_change` relative (0 = unchanged); `capability` an
    accuracy and `capability_change` its paired difference. `pres` is the harmonic mean of exp(-kl),
    min(1, capability / capability_base) and 1 - degenerate_rate, 0 if a part is 0, None if a part is missing.
    Intervals are percentiles of a bootstrap over neutral documents, capability items and open prompts, each
    resampled for itself; `counts` is what they are made of. `targeting`: all emotions' units are amplified
    at once; None for the mean over the emotions, one at a time.
    """

    arm: Arm
    dose: float
    targeting: Literal["union"] | None = Field(default=None, exclude_if=lambda value: value is None)
    kl: Estimate
    bits_per_byte: Estimate
    bits_per_byte_base: float
    perplexity_change: Estimate
    capability: Estimate | None
    capability_base: float | None
    capability_change: Estimate | None
    capability_task: str
    degenerate_rate: Estimate | None
    degenerate_rate_base: float | None
    pres: Estimate | None
    counts: PreservationCounts


class RandomNecessity(Result):
    """`Necessity` of random modules with as many parameters: means over the draws, the interval of the mean
    difference over items, and `p` = (b + 1) / (n_draws + 1), b draws whose difference is at or above the
    cell's."""

    n_draws: int
    task: float
    control: float
    difference: Estimate
    p: float


class Necessity(Result):
    """What the suppress arm at one dose takes from the emotion task and from the control task.

    `task` is the drop of UAR on the test items, `control` that of the capability's accuracy, `difference` the
    first less the second, with both samples resampled. The last three are None where nothing stands beside
    the task: no capability, or no random modules.
    """

    dose: float
    task: Estimate
    control: Estimate | None
    difference: Estimate | None
    random: RandomNecessity | None


class Recovery(Result):
    """How much of what an adaptation gained the base has with some of its modules at one dose.

    `share` is R = (UAR - UAR of the base) / (UAR of the adapted model - UAR of the base), None with a
    `reason` where the adaptation gained less than two standard errors. `random` is the mean R of random
    modules with as many parameters, `p` = (b + 1) / (n_draws + 1), b draws that recover as much or more.
    """

    dose: float
    share: Estimate | None
    reason: str = ""
    n_draws: int = 0
    random: Estimate | None = None
    p: float | None = None


class ModuleFindings(Result):
    """What only cells of the site `module` have. By emotion, `parameters` of the selected modules (weights,
    biases left out), their `share` of those of all modules, and `adapter_share` of those of the LoRA that the
    model was adapted with, None where it was adapted otherwise. Where modules are put into the base, there is
    nothing to damage, hence no `necessity`: `adapted_uar` is that of the adapted model, and `recovery` has
    each dose of the amplify arm.
    """

    parameters: list[int]
    share: list[float]
    adapter_share: list[float] | None
    necessity: list[Necessity]
    adapted_uar: Estimate | None = Field(default=None, exclude_if=lambda value: value is None)
    recovery: list[Recovery] = Field(default=[], exclude_if=lambda value: not value)


class Calibration(Result):
    """How well a ranking finds units known to carry each emotion; None for emotions that have none.

    `auroc` is planted units against all other units, `decoy_auroc` planted units against the same emotion's
    decoys (units that correlate with it and do nothing), `precision_at_k` the planted share of the first k
    units, k the number planted. The three totals are means over the emotions that have a value.
    """

    auroc: float
    decoy_auroc: float | None
    precision_at_k: float
    auroc_per_emotion: list[float | None]
    decoy_auroc_per_emotion: list[float | None]
    precision_per_emotion: list[float | None]
