"""Judged replies of one cell, one row a text, and their Parquet file beside the predictions."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from affectbench.errors import RecordError
from affectbench.outcomes import Array

LABELS_KEY: Final = b"affectbench_labels"
COLUMNS: Final = (
    "prompt", "condition", "dose", "target", "item", "cluster", "gold", "text", "code", "masked_code",
    "failure", "noun", "stem", "degenerate", "capped", "topicality",
)  # fmt: skip
WORDS: Final = frozenset({"prompt", "condition", "target", "item", "cluster", "text", "failure"})
FLAGS: Final = frozenset({"noun", "stem", "degenerate", "capped"})


@dataclass(frozen=True)
class Replies:
    """Texts (N,) with what was said and measured of them.

    `prompt`: ``elicited`` or ``plain``. `condition`, `dose` and `target`: base (dose NaN, no target), or the
    arm, its dose and the emotion whose units were edited. `gold`: the index of the emotion that the prompt
    demanded or, where it demanded none, of the target; -1 where there is neither. `code` and `masked_code`:
    the judgement of the text, and of it without emotion words (`affectbench.outcomes` has the codes);
    `failure` says why there is none. `noun`, `stem`: the text says the noun, or a word, of the gold emotion.
    `topicality`: cosine with the scenario and event, in [0, 1].
    """

    labels: tuple[str, ...]
    columns: dict[str, Array]

    def __len__(self) -> int:
        return len(self.columns["text"])

    def where(self, chosen: Array) -> Replies:
        """The rows where `chosen` (N,) is true."""
        return Replies(self.labels, {name: values[chosen] for name, values in self.columns.items()})

    def __getattr__(self, name: str) -> Array:
        columns: dict[str, Array] = self.__dict__.get("columns", {})
        if name not in columns:
            raise AttributeError(name)
        return columns[name]

    @property
    def digest(self) -> str:
        """sha256 of all rows in their order, 16 hex."""
        digest = hashlib.sha256("\0".join(self.labels).encode())
        for name in COLUMNS:
            values = self.columns[name]
            if name in WORDS:
                digest.update("\0".join(map(str, values)).encode())
            else:
                kind = "<f8" if name == "dose" else "<f4" if name == "topicality" else "<i2"
                digest.update(np.ascontiguousarray(values, dtype=kind).tobytes())
        return digest.hexdigest()[:16]

    def to_parquet(self) -> bytes:
        """The bytes of a Parquet file with a column of each name; the labels are in its metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds: dict[str, Any] = dict.fromkeys(WORDS, pa.string())
        kinds |= dict.fromkeys(FLAGS, pa.bool_())
        kinds |= {"dose": pa.float64(), "topicality": pa.float32()}
        arrays = {
            name: pa.array(self.columns[name].tolist(), kinds.get(name, pa.int16())) for name in COLUMNS
        }
        metadata = {LABELS_KEY: json.dumps(list(self.labels)).encode()}
        sink = io.BytesIO()
        pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), sink, compression="zstd")
        return sink.getvalue()


def read_replies(path: Path) -> Replies:
    """Read a file of `Replies.to_parquet`. Raises `RecordError` where it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        labels = tuple(json.loads(table.schema.metadata[LABELS_KEY]))
        columns = {}
        for name in COLUMNS:
            values = table[name].to_numpy()
            columns[name] = values.astype(object) if name in WORDS else values
        return Replies(labels, columns)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"the replies in {path} are damaged: {error}", hint="run the cell again") from error
