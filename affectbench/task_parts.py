"""The parts a benchmark file is made of: where items come from, how they are split, asked and read."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from affectbench.yaml_loading import reject, suggest

SplitName = Literal["identification", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("identification", "validation", "test")
Positions = Literal["all", "content", "audio", "answer"]
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=80)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Column = Annotated[int, Field(strict=True, ge=0)] | Text
PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


class Frozen(BaseModel):
    """Base of all that is read from YAML: immutable; an unknown key is an error with a suggestion.

    `later`: keys that were added after results had been published. They are dumped, and so enter a digest,
    only where they are set: files that do not use them keep the digest they had.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unset_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        for key in self.later:
            default = type(self).model_fields[key].get_default(call_default_factory=True)
            if getattr(self, key) == default:
                content.pop(key, None)
        return content

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    reject(str(key), f"unknown key{suggest(key, cls.model_fields)} (known keys: {known})")
        return data


class PerSplit(Frozen):
    """One count for each split."""

    identification: Count
    validation: Count
    test: Count


class GivenSplit(Frozen):
    """The source says which split an item belongs to.

    `overlap`: a cluster in two splits is an error, or, with ``drop``, stays in the later one only (test, then
    validation); what is left out is counted.
    """

    by: Literal["given"]
    overlap: Literal["error", "drop"] = "error"

    later = frozenset({"overlap"})


class ClusterLists(Frozen):
    """Clusters of each split, by name."""

    identification: Annotated[tuple[Text, ...], Field(min_length=1)]
    validation: Annotated[tuple[Text, ...], Field(min_length=1)]
    test: Annotated[tuple[Text, ...], Field(min_length=1)]


class Fractions(Frozen):
    """Share of the clusters in each split; they sum to 1."""

    identification: Annotated[Number, Field(gt=0, lt=1)]
    validation: Annotated[Number, Field(gt=0, lt=1)]
    test: Annotated[Number, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _sum(self) -> Fractions:
        if abs(self.identification + self.validation + self.test - 1) > 1e-6:
            reject("", "the three fractions must sum to 1")
        return self


class ClusterSplit(Frozen):
    """Whole clusters go to a split: listed by name, or shared out by a hash of `seed` and their name.

    `field`: share out by the values of this field of the items, which holds whole clusters (sessions of
    dialogues, say), and list those under `clusters`.
    """

    by: Literal["cluster"]
    clusters: ClusterLists | None = None
    fractions: Fractions | None = None
    seed: Seed = 0
    field: Text | None = None

    later = frozenset({"field"})

    @model_validator(mode="after")
    def _one_rule(self) -> ClusterSplit:
        if (self.clusters is None) == (self.fractions is None):
            reject("", "give either `clusters` (lists of names) or `fractions`")
        if self.clusters is not None:
            seen: dict[str, str] = {}
            for split in SPLITS:
                for cluster in getattr(self.clusters, split):
                    if cluster in seen:
                        reject("clusters", f"cluster {cluster!r} is in {seen[cluster]} and in {split}")
                    seen[cluster] = split
        return self


Split = Annotated[GivenSplit | ClusterSplit, Field(discriminator="by")]


class Limits(Frozen):
    """Most items of each label in each split; null for all. A hash of the item id decides which."""

    identification: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class LabelsReadout(Frozen):
    """The answer is the label whose verbaliser is likeliest at the answer position."""

    kind: Literal["labels"]
    verbalisers: dict[str, Text] = Field(default_factory=dict)


class LettersReadout(Frozen):
    """The answer is a lettered option; ``{options}`` of the prompt lists them.

    Their order is drawn for each item. `verbalisers` are the words shown after the letters.
    """

    kind: Literal["letters"]
    verbalisers: dict[str, Text] = Field(default_factory=dict)


class GenerateReadout(Frozen):
    """The answer is parsed from greedily generated text."""

    kind: Literal["generate"]
    verbalisers: dict[str, Text] = Field(default_factory=dict)
    max_new_tokens: Count = 20


class JudgeReadout(Frozen):
    """The answer is greedily generated text, and `judge` says which label it expresses, or none.

    The last three are as in transformers' ``generate``; they hold for the untouched model and under every
    intervention alike.
    """

    later = frozenset({"min_new_tokens", "repetition_penalty", "no_repeat_ngram_size"})

    kind: Literal["judge"]
    judge: Name
    max_new_tokens: Count = 100
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    repetition_penalty: Annotated[float, Field(ge=1.0)] = 1.0
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> JudgeReadout:
        if self.min_new_tokens > self.max_new_tokens:
            reject("min_new_tokens", f"at most max_new_tokens ({self.max_new_tokens})")
        return self


Readout = Annotated[LabelsReadout | LettersReadout | GenerateReadout, Field(discriminator="kind")]


class GeneratedItems(Frozen):
    """The first `n` items of a generator."""

    reader: Literal["generator"]
    module: Literal["narratives", "speech"]
    n: Count
    seed: Seed


class FileItems(Frozen):
    """JSON lines in a file whose path is relative to the benchmark; `n` takes the first ones only."""

    reader: Literal["file"]
    path: Text
    n: Count | None = None


Items = Annotated[GeneratedItems | FileItems, Field(discriminator="reader")]


class ChoiceCapability(Frozen):
    """Multiple-choice items, scored by the log-likelihood of each choice."""

    kind: Literal["multiple_choice"]
    source: Items


class BenchmarkCapability(Frozen):
    """The test split of another benchmark."""

    kind: Literal["benchmark"]
    task: Name


Capability = Annotated[ChoiceCapability | BenchmarkCapability, Field(discriminator="kind")]


class Preservation(Frozen):
    """What must survive an intervention: neutral text, a capability, answers to open prompts."""

    neutral: Items
    capability: Capability
    prompts: Annotated[tuple[Text, ...], Field(min_length=1)]
    max_new_tokens: Count = 40
