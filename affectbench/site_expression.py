"""What an entry's page shows of judged replies: a matrix a condition, what was measured, and a few texts."""

from __future__ import annotations

from dataclasses import dataclass

from affectbench.analysis import Matrix
from affectbench.expression_models import Expression, ReplyScore
from affectbench.figures_analysis import matrix_figure
from affectbench.site_format import general

PROMPTING, PLAIN = "told to, nothing edited", "not told to, nothing edited"


@dataclass(frozen=True)
class ReplyPanel:
    """One condition: its name in words, its numbers and its heat map."""

    name: str
    score: ReplyScore
    matrix: str


def reply_panels(expression: Expression | None, labels: list[str]) -> list[ReplyPanel]:
    """A panel for prompting, for plain replies and for each dose; none where nothing was expressed."""
    if expression is None:
        return []
    shown = [(PROMPTING, expression.prompting), (PLAIN, expression.plain)]
    shown += [(_name(score), score) for score in expression.conditions]
    return [
        ReplyPanel(name, score, _matrix(f"r{k}", name, score, labels))
        for k, (name, score) in enumerate(shown)
    ]


def _name(score: ReplyScore) -> str:
    dose = general(score.dose)
    if score.condition == "suppress":
        return f"told to, its units suppressed (dose {dose})"
    return f"not told to, units amplified (dose {dose})"


def _matrix(name: str, title: str, score: ReplyScore, labels: list[str]) -> str:
    """Shares of texts, one row an emotion that was demanded or steered to."""
    return matrix_figure(
        name,
        Matrix(
            name=name,
            title=f"Judged replies: {title}",
            rows=score.rows,
            columns=[*labels, "none"],
            values=[list(row) for row in score.matrix],
            row_label="aimed at",
            column_label="judged",
            scale="sequential",
        ),
    )
