"""What a judge card says: who reads generated text, and with which settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from affectbench.task_file import TaskFile
from affectbench.task_parts import Count, Number, Text
from affectbench.yaml_loading import reject


class JudgeCard(TaskFile):
    """A judge of expressed emotion.

    `reader`: ``local``, a classifier that `train-judge` wrote to the folder `checkpoint` beside the card;
    ``hf``, a text classifier of transformers at `checkpoint` (a folder beside the card, or a hub id, there
    at `revision`); ``openai``, the chat model `model` of an OpenAI-compatible endpoint.

    `label_map` gives for each of the judge's own labels the benchmark's, or null for none of them; a label
    without an entry stands for itself. `threshold`: a likeliest label below this probability counts as none
    (a local judge brings its own). `base_url` is the endpoint (the library's default where it is left out),
    `key_variable` the environment variable that holds its key. `timeout_s` is of one request, `retries` says
    how often it is sent again, `concurrency` how many are under way at once.
    """

    digest_without: ClassVar[frozenset[str]] = frozenset(
        {"timeout_s", "retries", "concurrency", "key_variable"}
    )

    kind: Literal["judge"]
    reader: Literal["local", "hf", "openai"]
    licence: Text
    checkpoint: Text | None = None
    revision: Text | None = None
    label_map: dict[str, str | None] = Field(default_factory=dict)
    threshold: Annotated[Number, Field(ge=0, lt=1)] | None = None
    model: Text | None = None
    base_url: Text | None = None
    key_variable: Text = "OPENAI_API_KEY"
    max_tokens: Count = 200
    timeout_s: Annotated[Number, Field(gt=0)] = 60.0
    retries: Annotated[int, Field(strict=True, ge=0, le=20)] = 4
    concurrency: Annotated[int, Field(strict=True, ge=1, le=64)] = 4

    @model_validator(mode="after")
    def _complete(self) -> JudgeCard:
        needed = "model" if self.reader == "openai" else "checkpoint"
        if getattr(self, needed) is None:
            reject(needed, f"missing: a judge of reader {self.reader} needs it")
        return self

    @property
    def folder(self) -> Path | None:
        """The folder beside the card that holds the judge; None where there is none."""
        if self.checkpoint is None:
            return None
        found = (self.path.parent if self.path is not None else Path()) / self.checkpoint
        return found if found.is_dir() else None
