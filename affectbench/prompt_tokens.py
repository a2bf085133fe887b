"""From a rendered prompt to token ids: chat templates, special tokens, answers that follow a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from affectbench.errors import AffectbenchError

if TYPE_CHECKING:
    from affectbench.dataset import RenderedPrompt
    from affectbench.task import ModelCard


class PromptTokens:
    """What a model wrapper needs of its tokenizer."""

    tokenizer: Any
    card: ModelCard

    def render(self, prompt: RenderedPrompt) -> tuple[str, tuple[int, int] | None]:
        """The full text of a prompt and where the item's own words stand in it, through the chat template
        where the checkpoint has one."""
        if not self._templated:
            return prompt.text, prompt.content_span
        text = self._chat(prompt.text)
        shift = text.find(prompt.text)
        if shift < 0 or prompt.content_span is None:
            return text, None
        return text, (prompt.content_span[0] + shift, prompt.content_span[1] + shift)

    def continuation(self, prompt: RenderedPrompt, answer: str) -> list[int]:
        """Token ids of `answer` as they follow `prompt`."""
        text, _ = self.render(prompt)
        if self._templated:
            answer = answer.lstrip()
        before, _ = self._tokens(text)
        both, _ = self._tokens(text + answer)
        tokens = both[len(before) :] if both[: len(before)] == before else []
        if not tokens:
            tokens = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise AffectbenchError(f"the answer {answer!r} has no tokens in {self.card.name}'s vocabulary")
        return list(tokens)

    def _chat(self, content: str | list[dict[str, str]]) -> str:
        """What the chat template makes of one message of the user, up to where the answer begins."""
        message = [{"role": "user", "content": content}]
        text: str = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return text

    @property
    def _templated(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def _tokens(self, text: str, *, offsets: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a rendered prompt, and on demand where each stands in it.

        A chat template has written the special tokens already. A closing end-of-text token that the
        tokenizer adds is dropped: the answer is read at the end of the prompt.
        """
        special = not self._templated
        found = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=offsets)
        ids = list(found["input_ids"])
        places = list(found["offset_mapping"]) if offsets else []
        end = self.tokenizer.eos_token
        if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id and not text.endswith(end or " "):
            return ids[:-1], places[:-1]
        return ids, places
