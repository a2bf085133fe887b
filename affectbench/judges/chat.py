"""A judge that is a chat model behind an OpenAI-compatible endpoint.

Temperature 0, one request a text, an answer in JSON. What was answered is kept by content, so that a text is
paid for once; failures are never kept. A request that fails is sent again, later and later.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from affectbench.errors import AffectbenchError
from affectbench.identity import digest_of
from affectbench.judge_card import JudgeCard
from affectbench.judges.judgement import NONE, NONE_LABEL, Judgement, codes_of
from affectbench.outcomes import ERROR
from affectbench.store import write_atomically

RUBRIC: Final = """\
You read one short reply and say which emotion its writer expresses. Judge the tone of the reply, its choice
of words and its attitude, not whether what it is about is good or bad: one can tell bad news cheerfully.
Choose exactly one of: {labels}. If the reply expresses none of these, or several equally, choose {none}.
Answer with a JSON object and nothing else: {{"emotion": "<your choice>", "why": "<at most ten words>"}}"""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
FENCE: Final = re.compile(r"```[a-zA-Z]*\s*(.*?)```", re.DOTALL)


class ChatJudge:
    """Judges by asking a chat model. `cache`: the folder that answers are kept in; None keeps none. `wait` is
    given the seconds before a request is sent again. See `Judge`."""

    def __init__(
        self,
        card: JudgeCard,
        labels: Sequence[str],
        cache: Path | None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = card.name
        self._card, self._cache, self._wait = card, cache, wait
        own = [*card.label_map, *(label for label in labels if label not in card.label_map.values())]
        self._own = [name for name in own if name != NONE_LABEL]
        self._codes = dict(zip(self._own, codes_of(self._own, card, labels), strict=True))
        self._rubric = RUBRIC.format(labels=", ".join(self._own), none=NONE_LABEL)
        self._client = _client(card)
        self.digest = digest_of([card.digest, self._rubric, *labels])

    def judge(self, texts: Sequence[str]) -> list[Judgement]:
        """A judgement for each text. Raises `AffectbenchError` where the endpoint refuses the key or the
        model, which no later request would change."""
        with ThreadPoolExecutor(self._card.concurrency) as pool:
            return list(pool.map(self._one, texts))

    def _one(self, text: str) -> Judgement:
        if not text.strip():
            return Judgement(NONE)
        path = self._path(text)
        if path is not None and path.is_file():
            kept = self._read(path.read_text(encoding="utf-8"))
            if kept.code != ERROR:
                return kept
        answer, problem = self._asked(text)
        if answer is None:
            return Judgement(ERROR, "request", problem)
        found = self._read(answer)
        if path is not None and found.code != ERROR:
            write_atomically(path, answer.encode(), durable=False)
        return found

    def _path(self, text: str) -> Path | None:
        """The file of an answer: named after the model, its settings, the rubric and the text."""
        if self._cache is None:
            return None
        card = self._card
        asked = json.dumps([card.base_url, card.model, card.max_tokens, self._rubric, text])
        key = hashlib.sha256(asked.encode()).hexdigest()
        return self._cache / key[:2] / f"{key}.txt"

    def _read(self, answer: str) -> Judgement:
        """The judgement in an answer, in a code fence or among other words."""
        for part in (*FENCE.findall(answer), answer[answer.find("{") : answer.rfind("}") + 1]):
            try:
                content = json.loads(part)
            except json.JSONDecodeError:
                continue
            named = content.get("emotion") if isinstance(content, dict) else None
            if isinstance(named, str):
                return self._named(named.strip().lower())
        return Judgement(ERROR, "parse", f"no JSON with a key `emotion` in {answer[:80]!r}")

    def _named(self, name: str) -> Judgement:
        if name == NONE_LABEL:
            return Judgement(NONE)
        known = {own.lower(): code for own, code in self._codes.items()}
        if name not in known:
            return Judgement(ERROR, "parse", f"answered {name[:40]!r}, which was not to choose from")
        return Judgement(known[name])

    def _asked(self, text: str) -> tuple[str | None, str]:
        """The endpoint's answer, or None and why there is none."""
        import openai

        problem = ""
        for attempt in range(self._card.retries + 1):
            after = FIRST_WAIT * 2**attempt
            try:
                return self._request(text), ""
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise AffectbenchError(
                    f"judge {self._card.name}: {self._client.base_url} refuses: {_first_line(error)}",
                    hint=f"check `model` and `base_url` of its card, and {self._card.key_variable}",
                ) from error
            except openai.APIStatusError as error:
                problem = _first_line(error)
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    break
                after = _asked_to_wait(error.response.headers.get("retry-after")) or after
            except (
                openai.APIError,
                ValueError,
            ) as error:  # No connection, a time-out, a body that is no JSON.
                problem = _first_line(error)
            if attempt < self._card.retries:
                self._wait(min(after, LONGEST_WAIT))
        return None, problem

    def _request(self, text: str) -> str:
        found = self._client.chat.completions.create(
            model=self._card.model,
            messages=[
                {"role": "system", "content": self._rubric},
                {"role": "user", "content": f"Reply:\n{text}"},
            ],
            temperature=0,
            max_tokens=self._card.max_tokens,
        )
        return str(found.choices[0].message.content or "") if found.choices else ""


def _client(card: JudgeCard) -> Any:
    try:
        import openai
    except ImportError as error:
        raise AffectbenchError(
            f"judge {card.name} needs the package openai", hint="pip install 'affectbench[judge]'"
        ) from error
    key = os.environ.get(card.key_variable)
    if not key and card.base_url is None:
        raise AffectbenchError(
            f"judge {card.name}: {card.key_variable} holds no key", hint=f"export {card.key_variable}=..."
        )
    return openai.OpenAI(api_key=key or "none", base_url=card.base_url, timeout=card.timeout_s, max_retries=0)


def _asked_to_wait(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:  # A date.
        return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
