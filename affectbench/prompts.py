"""What is put to a model for one item, and how a generated answer is read back."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Sequence

from affectbench.benchmark import Turns
from affectbench.examples import DatasetError, Example, RenderedPrompt
from affectbench.task import Benchmark, ExpressionBenchmark, RecognitionBenchmark
from affectbench.task_parts import PLACEHOLDER

UNPARSED = -1


def prompt_text(benchmark: Benchmark, example: Example) -> RenderedPrompt:
    """Fill the benchmark's prompt for one item.

    ``{audio}`` stays as it is, for the model to put the sound there. Lettered options come in an order drawn
    from sha256(benchmark name, item id): neither item order nor batch size matters. Raises `DatasetError`
    for a placeholder that the item has no field for. Of an expression benchmark it is the prompt that demands
    the item's emotion.
    """
    if isinstance(benchmark, ExpressionBenchmark):
        return _spoken(benchmark, benchmark.elicit, example)
    assert isinstance(benchmark, RecognitionBenchmark)
    values = {**example.fields, "audio": "{audio}"}
    if example.text is not None:
        values["text"] = example.text
    options, order = _options(benchmark, example.id)
    if order is not None:
        words = [benchmark.verbaliser(benchmark.labels[label]).strip() for label in order]
        values["options"] = "\n".join(f"{string.ascii_uppercase[k]}. {word}" for k, word in enumerate(words))
    text, span, end = "", None, 0
    for match in PLACEHOLDER.finditer(benchmark.prompt):
        name = match.group(1)
        if name not in values:
            raise DatasetError(
                f"benchmark {benchmark.name}: prompt: item {example.id} has nothing for {{{name}}}",
                hint=f"it has {', '.join(sorted(values))}",
            )
        text += benchmark.prompt[end : match.start()]
        if name == "text":
            span = (len(text), len(text) + len(values[name]))
        text += values[name]
        end = match.end()
    return RenderedPrompt(text + benchmark.prompt[end:], span, options, order)


def plain_prompt(benchmark: ExpressionBenchmark, example: Example) -> RenderedPrompt:
    """The same prompt without its emotion: equal for all items of one scenario and outcome."""
    return _spoken(benchmark, benchmark.plain, example)


def _spoken(benchmark: ExpressionBenchmark, turns: Turns, example: Example) -> RenderedPrompt:
    values = {**example.fields, "emotion": example.label}
    system, user = (
        PLACEHOLDER.sub(lambda match: values[match.group(1)], text) for text in (turns.system, turns.user)
    )
    before, after = benchmark.flat.split("{user}")
    text = (before + user + after).replace("{system}", system)
    start = text.index(user) if "{system}" in after else text.rindex(user)
    options = tuple(benchmark.labels)
    span = (start, start + len(user))
    return RenderedPrompt(text, span, options, None, (system, user), benchmark.double_special)


def _options(benchmark: RecognitionBenchmark, item_id: str) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Answers in label order, and the label behind each letter where there are letters."""
    if benchmark.readout.kind != "letters":
        return tuple(benchmark.verbaliser(label) for label in benchmark.labels), None
    count = len(benchmark.labels)
    order = sorted(
        range(count),
        key=lambda label: hashlib.sha256(f"{benchmark.name}\n{item_id}\n{label}".encode()).digest(),
    )
    letters = [f" {string.ascii_uppercase[order.index(label)]}" for label in range(count)]
    return tuple(letters), tuple(order)


def parse_answer(text: str, options: Sequence[str]) -> int:
    """Index of the option that a generated answer names, or -1.

    Words: the answer starts with exactly one option, or names exactly one as a whole word, in any case.
    Letters (every option is one character): the letter alone, or one capital letter set off as an answer:
    ``B.``, ``(B)``, ``B: sadness``, ``the answer is B``. An answer that names several is not parsed.
    """
    names = [option.strip() for option in options]
    if all(len(name) == 1 for name in names):
        return _parse_letter(text, names)
    known = {name.lower(): index for index, name in enumerate(names)}
    alternatives = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")
    start = pattern.match(text.lower().lstrip(string.whitespace + string.punctuation))
    if start is not None:
        return known[start.group()]
    found = {known[match.group()] for match in pattern.finditer(text.lower())}
    return found.pop() if len(found) == 1 else UNPARSED


def _parse_letter(text: str, letters: Sequence[str]) -> int:
    alone = re.fullmatch(r"\W*([A-Za-z])\W*", text)
    if alone is not None:
        found = {alone.group(1).upper()}
    else:
        marked = r"(?<!\w)([A-Z])(?=[.:,)\]\n]|$)|(?i:answer)(?: is|:)\W*([A-Z])\b"
        found = {first or second for first, second in re.findall(marked, text.strip())}
    letter = found.pop() if len(found) == 1 else ""
    return letters.index(letter) if letter in letters else UNPARSED
