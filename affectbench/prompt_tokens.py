"""From a rendered prompt to token ids: chat templates, special tokens, answers that follow a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from affectbench.errors import AffectbenchError

if TYPE_CHECKING:
    from affectbench.dataset import RenderedPrompt
    from affectbench.task import ModelCard


Content = str | list[dict[str, str]]
DAY = {
    "%A": "Friday", "%a": "Fri", "%B": "July", "%b": "Jul", "%-d": "26", "%d": "26", "%m": "07", "%Y": "2024",
    "%y": "24", "%H": "00", "%M": "00", "%S": "00",
}  # fmt: skip
"""The day that templates are told, by the codes of `strftime`. Several write today's date into the prompt: it
would be another task tomorrow. This one is what those of Llama fall back to."""
_DATED = "".join(f" | replace('{code}', '{text}')" for code, text in DAY.items())
SAME_DAY = "{% macro strftime_now(format) %}{{ format" + _DATED + " }}{% endmacro %}{{ '' }}"


class PromptTokens:
    """What a model wrapper needs of its tokenizer."""

    tokenizer: Any
    card: ModelCard

    def render(self, prompt: RenderedPrompt) -> tuple[str, tuple[int, int] | None]:
        """The full text of a prompt and where the item's own words stand in it, through the chat template
        where the checkpoint has one."""
        if not self._templated:
            return prompt.text, prompt.content_span
        if prompt.turns is not None:
            return self._spoken(*prompt.turns)
        text = self._chat(prompt.text)
        words = prompt.text.strip()  # Templates trim.
        shift = text.find(words)
        if shift < 0 or prompt.content_span is None:
            return text, None
        shift -= len(prompt.text) - len(prompt.text.lstrip())
        return text, (prompt.content_span[0] + shift, prompt.content_span[1] + shift)

    def _spoken(self, system: str, user: str) -> tuple[str, tuple[int, int] | None]:
        """A system's line and the user's words through the chat template, and where the latter stand. Where
        the template takes no system line, it comes before the user's words."""
        try:
            text = self._chat(user, system=system)
        except Exception:  # Templates refuse in their own ways.
            text = ""
        if system.strip() not in text:
            text = self._chat(f"{system}\n\n{user}")
        start = text.rfind(user.strip())
        return text, None if start < 0 else (start, start + len(user.strip()))

    def continuation(self, prompt: RenderedPrompt, answer: str) -> list[int]:
        """Token ids of `answer` as they follow `prompt`. Behind a chat template it begins as the template
        lets the assistant's words begin: at once, or after a space."""
        text, _ = self.render(prompt)
        if self._templated:
            answer = self._gap + answer.lstrip()
        before, _ = self._tokens(text)
        both, _ = self._tokens(text + answer)
        tokens = both[len(before) :] if both[: len(before)] == before else []
        if not tokens:
            tokens = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise AffectbenchError(f"the answer {answer!r} has no tokens in {self.card.name}'s vocabulary")
        return list(tokens)

    @property
    def _gap(self) -> str:
        """The blanks that the chat template writes between where an answer begins and the answer. Tried out:
        empty where the template's own answer does not continue its prompt for one."""
        try:
            before, whole = self._chat("words"), self._chat("words", "answer")
        except Exception:  # Templates may refuse what they do not know.
            return ""
        gap, found, _ = whole.removeprefix(before).partition("answer")
        return gap if found and whole.startswith(before) and not gap.strip() else ""

    def _chat(self, content: Content, answer: str | None = None, system: str = "") -> str:
        """What the chat template makes of one message of the user, after a `system` line if there is one, up
        to where the answer begins, or with the `answer`. The day is held fixed, and where the model may think
        aloud first, it is told not to: the answer is read at the first token."""
        turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        turns.append({"role": "user", "content": content})
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
        template = self.tokenizer.get_chat_template()
        text: str = self.tokenizer.apply_chat_template(
            turns,
            chat_template=SAME_DAY + template if "strftime_now" in template else template,
            tokenize=False,
            add_generation_prompt=answer is None,
            enable_thinking=False,
        )
        return text

    @property
    def _templated(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def _tokens(
        self, text: str, *, offsets: bool = False, again: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a rendered prompt, and on demand where each stands in it.

        A chat template has written the special tokens already; the tokenizer adds them `again` where asked
        to. A closing end-of-text token that the tokenizer adds is dropped: the answer is read at the end of
        the prompt.
        """
        special = again or not self._templated
        found = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=offsets)
        ids = list(found["input_ids"])
        places = list(found["offset_mapping"]) if offsets else []
        end = self.tokenizer.eos_token
        if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id and not text.endswith(end or " "):
            return ids[:-1], places[:-1]
        return ids, places
