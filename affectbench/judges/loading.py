"""From a judge card to a judge."""

from __future__ import annotations

from collections.abc import Sequence

from affectbench.identity import file_digest
from affectbench.judge_card import JudgeCard
from affectbench.judges.judgement import Judge
from affectbench.registry import Registry
from affectbench.task import Benchmark, ExpressionBenchmark


def judge_digests(registry: Registry, benchmark: Benchmark) -> list[str]:
    """Hashes of the judge of a benchmark of expression, its card and the files beside it; nothing is loaded.
    Empty for other benchmarks."""
    if not isinstance(benchmark, ExpressionBenchmark):
        return []
    card = registry.judge(benchmark.readout.judge)
    files = sorted(path for path in card.folder.rglob("*") if path.is_file()) if card.folder else []
    return [card.digest, *(part for path in files for part in (path.name, file_digest(path)))]


def judge_of(registry: Registry, benchmark: Benchmark, device: str) -> Judge | None:
    """Who reads the replies to a benchmark of expression; None for others. Raises as `load_judge`."""
    if not isinstance(benchmark, ExpressionBenchmark):
        return None
    return load_judge(registry.judge(benchmark.readout.judge), benchmark.labels, device)


def load_judge(card: JudgeCard, labels: Sequence[str], device: str = "cpu") -> Judge:
    """The judge of a card, for the labels of a benchmark. Raises `AffectbenchError` where it is missing,
    damaged, or answers with labels that nobody mapped."""
    if card.reader == "hf":
        from affectbench.judges.hub import HubJudge

        return HubJudge(card, labels, device)
    if card.reader == "openai":
        from affectbench.judges.chat import ChatJudge
        from affectbench.store import cache_folder

        return ChatJudge(card, labels, cache_folder("judgements"))
    from affectbench.judges.local import LocalJudge

    return LocalJudge(card, labels)
