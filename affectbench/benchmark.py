"""What a benchmark file says: items with emotion labels, how they are split, what is asked of the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from affectbench.sources import (
    FolderSource,
    GeneratorSource,
    HubSource,
    LinesSource,
    RowSource,
    ScenarioSource,
    Source,
)
from affectbench.task_file import Modality, TaskFile
from affectbench.task_parts import (
    PLACEHOLDER,
    ClusterSplit,
    Frozen,
    GivenSplit,
    JudgeReadout,
    Limits,
    Name,
    Preservation,
    Readout,
    Split,
    Text,
)
from affectbench.yaml_loading import reject, suggest

SCENARIO_FIELDS = ("scenario", "event", "theme", "valence")
"""What the prompts of an expression benchmark may hold, beside the emotion that is demanded."""


class Benchmark(TaskFile):
    """What all benchmarks share.

    `labels` fixes the order of emotions everywhere. `cluster` names what makes items dependent (speaker,
    document, frame, scenario). `data` is the folder of this benchmark below the data directory. For people:
    `obtain` says how to get the data and where they must lie, `protocol` which published protocol is
    followed, and where not.
    """

    modality: Modality
    metric: Literal["uar"] = "uar"
    licence: Text
    citation: str = ""
    obtain: str = ""
    protocol: str = ""
    data: Text | None = None
    source: Source | ScenarioSource
    labels: Annotated[tuple[Text, ...], Field(min_length=2, max_length=26)]
    cluster: Name
    split: Split
    limits: Limits = Limits()
    readout: Readout | JudgeReadout
    preservation: Preservation

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            reject("", f"{twice[0]!r} is listed twice")
        return labels

    def verbaliser(self, label: str) -> str:
        """The words that stand for `label` in an answer."""
        return f" {label}"


class RecognitionBenchmark(Benchmark):
    """Items with emotion labels, and how the model's answer is read.

    `label_map` turns raw labels into labels (null drops the item); a raw label that is a label already needs
    no entry, and `label_notes` says why labels are mapped as they are. For the folder reader `cluster` is the
    pattern group that holds it. `prompt` holds ``{text}`` or ``{audio}``, and the names of any other fields.
    """

    kind: Literal["benchmark"]
    source: Source
    label_map: dict[str, str | None] = Field(default_factory=dict)
    label_notes: str = ""
    multi_label: Literal["drop", "first", "error"] = "error"
    prompt: Text
    readout: Readout

    @model_validator(mode="after")
    def _labels_agree(self) -> RecognitionBenchmark:
        for raw, label in self.label_map.items():
            if label is not None and label not in self.labels:
                reject(("label_map", raw), f"{label!r} is not a label{suggest(label, self.labels)}")
        for label in self.readout.verbalisers:
            if label not in self.labels:
                place = ("readout", "verbalisers", label)
                reject(place, f"{label!r} is not a label{suggest(label, self.labels)}")
        words = [self.verbaliser(label).strip().lower() for label in self.labels]
        if len(set(words)) != len(words) or "" in words:
            reject("readout", "verbalisers must differ from each other and not be blank")
        return self

    @model_validator(mode="after")
    def _prompt_fits(self) -> RecognitionBenchmark:
        holders = PLACEHOLDER.findall(self.prompt)
        for needed in [self.modality, *(["options"] if self.readout.kind == "letters" else [])]:
            if (count := holders.count(needed)) != 1:
                reject("prompt", f"expected {{{needed}}} exactly once, found it {count} times")
        if self.modality == "text" and "audio" in holders:
            reject("prompt", "{audio} in a benchmark of modality text")
        return self

    @model_validator(mode="after")
    def _source_fits(self) -> RecognitionBenchmark:
        source = self.source
        given = source.gives_splits if isinstance(source, RowSource) else source.reader == "generator"
        if given == isinstance(self.split, ClusterSplit):
            found = "gives" if given else "does not give"
            reject("split", f"expected `by: {'given' if given else 'cluster'}`: the source {found} splits")
        if self.data is None and not isinstance(source, (GeneratorSource, HubSource)):
            reject("data", "missing: name the folder below the data directory that holds the files")
        self._fields_exist()
        if isinstance(source, (RowSource, LinesSource)):
            content = source.columns if isinstance(source, RowSource) else source
            if getattr(content, self.modality) is None:
                key = "columns" if isinstance(source, RowSource) else "source"
                reject("source", f"{key}: no {self.modality} in a benchmark of modality {self.modality}")
        return self

    def _fields_exist(self) -> None:
        """What `cluster` and `split.field` name is a field of the items."""
        source, unit = self.source, getattr(self.split, "field", None)
        if isinstance(source, RowSource) and unit is not None and unit not in source.columns.fields:
            reject(("split", "field"), f"source.columns.fields has no {unit!r}")
        if not isinstance(source, (FolderSource, LinesSource)):
            return
        more = source.fields if isinstance(source, LinesSource) else {}
        for key, name in (("cluster", self.cluster), ("split", unit)):
            if name is not None and f"(?P<{name}>" not in source.pattern and name not in more:
                reject(key, f"the source's pattern has no group (?P<{name}>...)")

    def verbaliser(self, label: str) -> str:
        """The words that stand for `label` in an answer."""
        return self.readout.verbalisers.get(label, f" {label}")


class Turns(Frozen):
    """What is said to the model: a system line, and what the user says. ``{emotion}`` and the fields of an
    item (``{scenario}``, ``{event}``, ``{theme}``, ``{valence}``) may stand in both."""

    system: Text
    user: Text


class ExpressionBenchmark(Benchmark):
    """Scenarios that a model replies to in an emotion; a judge reads the replies.

    An item is a scenario, an outcome and an emotion. `elicit` demands the emotion; its ``{emotion}`` is the
    item's label. `plain` is the same without emotion, so all emotions of a scenario and outcome share it.
    Models without a chat template get `flat`, in which ``{system}`` and ``{user}`` stand for the turns.
    `double_special`: after a chat template the tokenizer adds its special tokens again, as in the authors'
    code.
    """

    kind: Literal["expression"]
    modality: Literal["text"] = "text"
    source: ScenarioSource
    cluster: Literal["scenario"] = "scenario"
    split: GivenSplit = GivenSplit(by="given")
    elicit: Turns
    plain: Turns
    flat: Text = "{system}\n{user}\nReply:"
    double_special: Annotated[bool, Field(strict=True)] = False
    readout: JudgeReadout

    @model_validator(mode="after")
    def _prompts_fit(self) -> ExpressionBenchmark:
        demanded = PLACEHOLDER.findall(self.elicit.system + self.elicit.user)
        if "emotion" not in demanded:
            reject("elicit", "{emotion} stands nowhere: nothing would demand it")
        for name, turns in (("elicit", self.elicit), ("plain", self.plain)):
            known = {*SCENARIO_FIELDS, *(["emotion"] if name == "elicit" else [])}
            for key in ("system", "user"):
                for holder in PLACEHOLDER.findall(getattr(turns, key)):
                    if holder not in known:
                        reject((name, key), f"{{{holder}}} is no field{suggest(holder, known)}")
        if sorted(PLACEHOLDER.findall(self.flat)) != ["system", "user"]:
            reject("flat", "expected {system} and {user}, each exactly once")
        return self
