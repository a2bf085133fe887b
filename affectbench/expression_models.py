"""What a record says of expressed emotions: judged matrices, and what else is known of the texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from affectbench.score_models import Estimate, Result


class ReplyScore(Result):
    """Texts under one condition, over all emotions that were demanded or steered to.

    `matrix` has a row for each of these and a column for each label, then one for none of them: the share of
    texts that were judged so, out of all texts; `low` and `high` are its intervals. Without an emotion (plain
    prompts, no edit) there is one row. Suppressed replies are those whose demanded emotion is the suppressed
    one. `accuracy`: the mean of the diagonal; None without an emotion. `masked_accuracy`: the same of texts
    without emotion words.

    `judged_share` of texts have a judgement; `accuracy_judged` leaves the others out: `n_request` where the
    judge was not reached, `n_parse` where it was not understood, `n_model` where the model's numbers were not
    finite. `noun` and `stem`: texts that say the emotion's noun, or any word of its list. `capped`: texts cut
    at the token limit. `distinct_3`: different word triples over all triples. `topicality`: TF-IDF cosine
    with scenario and event.
    """

    prompt: Literal["elicited", "plain"]
    condition: Literal["base", "suppress", "amplify"]
    dose: float | None
    rows: list[str]
    matrix: list[list[float]]
    low: list[list[float]]
    high: list[list[float]]
    n: int
    n_clusters: int
    accuracy: Estimate | None
    accuracy_judged: float | None
    masked_accuracy: Estimate | None
    none: Estimate
    judged_share: float
    n_request: int
    n_parse: int
    n_model: int
    noun: Estimate | None
    stem: Estimate | None
    degenerate: Estimate
    capped: Estimate
    distinct_3: float | None
    topicality: Estimate


class ReplyExample(Result):
    """One text for people to read: `item` names its scenario, outcome and, where it was demanded, emotion."""

    prompt: Literal["elicited", "plain"]
    condition: Literal["base", "suppress", "amplify"]
    dose: float | None
    target: str
    item: str
    text: str
    judged: str


class Expression(Result):
    """The test replies of a cell. `prompting`: the emotion demanded, nothing edited; `plain`: neither.

    `conditions` are suppressed elicited replies and steered plain ones, at all doses. `judge` names who read
    the texts, `digest` is its content hash. `n_groups` scenarios with outcome, of which all emotions were
    accepted, were what units were identified on, out of `n_asked`; 0 where units came from elsewhere.
    `examples` are all texts of one scenario and outcome, but those of other emotions' suppressed units.
    """

    judge: str
    digest: str
    n_groups: int = 0
    n_asked: int = 0
    prompting: ReplyScore
    plain: ReplyScore
    conditions: list[ReplyScore] = Field(default=[])
    examples: list[ReplyExample] = Field(default=[])

    @property
    def failed(self) -> bool:
        """Whether a text has no judgement."""
        return any(each.judged_share < 1 for each in (self.prompting, self.plain, *self.conditions))
