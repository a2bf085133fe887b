"""The answer-word control: a benchmark's own answers, demanded for a reason that has no emotion in it.

Units that write a label's token look specific on the task without knowing anything of emotion. Here the same
answers are right because a word stands in quotation marks: to be copied, or to be found among the options.
Under lettered options the letter of that word is the answer. The prompts are text only, also for a benchmark
of sounds: a sound carries the affect that has to be absent.
"""

from __future__ import annotations

import hashlib

from affectbench.examples import Example, RenderedPrompt
from affectbench.identity import digest_of
from affectbench.prompts import prompt_text
from affectbench.task import Benchmark, RecognitionBenchmark

__all__ = ["answer_word_items", "answer_words_digest", "answer_words_size"]

CARRIERS = (
    'The label on the third drawer reads "{word}".',
    'Line nine of the index is "{word}".',
    'The clerk typed "{word}" into the first box.',
    'The password of the printer is "{word}".',
    'The code on the parcel is "{word}".',
    'The key beside the door has the tag "{word}".',
    'The second column has the heading "{word}".',
    'The file in the folder is called "{word}".',
)
COPY = (
    "Text: {text} Question: which word is in quotation marks? Word:",
    "{text} Copy the quoted word. Word:",
)
PICK = (
    "Options: {options}. Text: {text} Question: which option is the quoted word? Word:",
    "{text} Options: {options}. Pick the option that names the quoted word. Word:",
)
LETTERED = (
    "Text: {text} Options:\n{options}\nQuestion: which option is the quoted word? Answer:",
    "{text} Pick the option that names the quoted word.\n{options}\nAnswer:",
)
CLUSTERS = 16
"""Pairs of a form and a carrier sentence. Each pair asks for every label once."""


def answer_words_size(benchmark: Benchmark) -> int:
    """How many items the control of a benchmark has."""
    if not isinstance(benchmark, RecognitionBenchmark):
        return 0
    return CLUSTERS * len(benchmark.labels)


def answer_word_items(benchmark: Benchmark) -> list[tuple[Example, RenderedPrompt]]:
    """The control's items for a benchmark, each with its prompt: 16 of every label.

    A form and a carrier are one cluster, in which every label is asked for once. Nothing is drawn but the
    order of the options, from a hash of benchmark and item, as the task's own lettered options are. Replies
    that are judged have no set answers, and so there is no item.
    """
    if not isinstance(benchmark, RecognitionBenchmark):
        return []
    lettered = benchmark.readout.kind == "letters"
    forms = LETTERED if lettered else COPY + PICK
    # What the task's prompt ends in, the answer follows; so the same tokens follow here.
    ending = benchmark.prompt[len(benchmark.prompt.rstrip()) :]
    stride = len(forms) * len(CARRIERS) // CLUSTERS
    items = []
    for number, form in enumerate(forms):
        asked = benchmark.model_copy(update={"prompt": form + ending})
        for carrier in range(number % stride, len(CARRIERS), stride):
            for label in benchmark.labels:
                example = _example(benchmark, label, f"{number}-{carrier}", CARRIERS[carrier])
                items.append((example, prompt_text(asked, example)))
    return items


def answer_words_digest(benchmark: Benchmark) -> str:
    """Hash of the control's prompts and answers, 16 hex."""
    return digest_of(
        repr((example.id, example.label, prompt)) for example, prompt in answer_word_items(benchmark)
    )


def _example(benchmark: Benchmark, label: str, cluster: str, carrier: str) -> Example:
    name = f"answer-word-{cluster}-{label}"
    words = {known: benchmark.verbaliser(known).strip() for known in benchmark.labels}
    order = sorted(
        benchmark.labels,
        key=lambda known: hashlib.sha256(f"{benchmark.name}\n{name}\n{known}".encode()).digest(),
    )
    return Example(
        id=name,
        text=carrier.replace("{word}", words[label]),
        audio=None,
        label=label,
        cluster=f"answer-word-{cluster}",
        fields={"options": ", ".join(words[known] for known in order)},
    )
