"""Rows of a data set of the Hugging Face hub, or of a local copy of one, through the `datasets` library."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affectbench.audio_io import AudioError, Waveform, read_waveform
from affectbench.examples import DatasetError, MissingDataError
from affectbench.sources import HubSource
from affectbench.table_rows import Cells
from affectbench.yaml_loading import suggest


@dataclass(frozen=True)
class SoundCell:
    """The sound in one cell of a data set: fetched and decoded when called, so that none stays in memory."""

    rows: Any = field(repr=False)
    index: int
    column: str
    where: str
    root: Path | None

    def __call__(self) -> Waveform:
        """Mono float32 at 16 kHz, shape (samples,). Raises `AudioError`."""
        cell = self.rows[self.index][self.column]
        data, path = (None, cell) if isinstance(cell, str) else map((cell or {}).get, ("bytes", "path"))
        if data is not None:
            return read_waveform(io.BytesIO(data))
        if path is None:
            raise AudioError("the cell holds no sound")
        return read_waveform((self.root or Path()) / path)


def hub_rows(source: HubSource, split: str, local: Path | None) -> Iterator[tuple[int, Cells]]:
    """Rows of one split, with their numbers from 0; class labels as their names, sounds as `SoundCell`.

    `local`: a copy to be read in place of the hub. Nothing of the data set's own code is run.

    Raises:
        DatasetError: the data set, its configuration, its split or a column is not there.
    """
    rows = _loaded(source, split, local)
    wanted = [str(column) for column in (*source.columns.used(), *source.keep)]
    for column in wanted:
        if column not in rows.column_names:
            near = suggest(column, rows.column_names)
            raise DatasetError(
                f"{source.path}, split {split}: there is no column {column!r}{near}",
                hint=f"columns: {', '.join(rows.column_names)}",
            )
    audio = source.columns.audio
    plain = rows.select_columns([column for column in dict.fromkeys(wanted) if column != audio])
    names = {
        column: feature.names for column, feature in plain.features.items() if hasattr(feature, "int2str")
    }
    for index, cells in enumerate(plain if plain.column_names else ({} for _ in range(len(rows)))):
        for column, known in names.items():
            cells[column] = _named(cells[column], known)
        if audio is not None:
            where = f"{source.path}, split {split}, row {index}"
            cells[audio] = SoundCell(rows, index, str(audio), where, local)
        yield index, cells


def _named(value: Any, names: list[str]) -> Any:
    """The name of a class label; -1 is the library's mark for none."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _loaded(source: HubSource, split: str, local: Path | None) -> Any:
    import datasets

    path, revision = (source.path, source.revision) if local is None else (str(local), None)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(path, source.name, split=split, revision=revision)
        # We decode sounds ourselves; the library would need torchcodec.
        for column, feature in rows.features.items():
            if isinstance(feature, datasets.Audio):
                rows = rows.cast_column(column, datasets.Audio(decode=False))
        return rows
    except (OSError, ValueError, RuntimeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = MissingDataError if isinstance(error, OSError) else DatasetError
        raise kind(
            f"data set {path}, configuration {source.name or 'default'}, split {split}: {problem}",
            hint="without a network, a copy of the repository in the data directory is read",
        ) from error
