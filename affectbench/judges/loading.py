"""From a judge card to a judge."""

from __future__ import annotations

from collections.abc import Sequence

from affectbench.judge_card import JudgeCard
from affectbench.judges.judgement import Judge


def load_judge(card: JudgeCard, labels: Sequence[str], device: str = "cpu") -> Judge:
    """The judge of a card, for the labels of a benchmark. Raises `AffectbenchError` where it is missing,
    damaged, or answers with labels that nobody mapped."""
    if card.reader == "hf":
        from affectbench.judges.hub import HubJudge

        return HubJudge(card, labels, device)
    if card.reader == "openai":
        from affectbench.judges.chat import ChatJudge, cache_folder

        return ChatJudge(card, labels, cache_folder())
    from affectbench.judges.local import LocalJudge

    return LocalJudge(card, labels)
