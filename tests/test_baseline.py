"""The baseline file: it holds what the comparison needs, is small, and says when it is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from affectbench.baseline import META, of_folder, read_results, write_baseline
from affectbench.errors import RecordError
from affectbench.regression import compare


@pytest.fixture
def baseline(done: Path, tmp_path: Path) -> Path:
    path = tmp_path / "baseline.parquet"
    write_baseline(path, of_folder(done))
    return path


def test_a_file_compares_like_the_folder_it_was_made_from(done: Path, baseline: Path) -> None:
    folder, file = of_folder(done), read_results(baseline)
    assert sorted(r.canonical() for r in file.records) == sorted(r.canonical() for r in folder.records)
    for record in file.records:
        kept, full = file.answers(record)["test"], folder.answers(record)["test"].ordered()
        for name in ("items", "gold", "clusters", "base"):
            np.testing.assert_array_equal(getattr(kept, name), getattr(full, name))
        assert [c.name for c in kept.conditions] == ["suppress 0", "amplify 2", "amplify 4"]
        for mine, theirs in zip(kept.conditions, full.conditions, strict=True):
            np.testing.assert_array_equal(mine.predictions, theirs.predictions)
    assert {cell.verdict for cell in compare(file, folder).cells} == {"same"}
    assert {cell.verdict for cell in compare(folder, file).cells} == {"same"}


def test_a_file_is_much_smaller_than_the_folder(done: Path, baseline: Path) -> None:
    folder = sum(path.stat().st_size for path in done.rglob("*") if path.is_file())
    assert baseline.stat().st_size < folder / 2


def test_records_without_predictions_are_kept_without_answers(done: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(done, tmp_path / "copy"))
    shutil.rmtree(copy / "predictions")
    write_baseline(tmp_path / "bare.parquet", of_folder(copy))
    file = read_results(tmp_path / "bare.parquet")
    assert [file.answers(record) for record in file.records] == [{}, {}]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def change(path: Path, edit: Callable[[list[dict]], list[dict]], version: int | None = None) -> None:
    """Write the rows again, edited, under the old checksum."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    seal = json.loads(table.schema.metadata[META])
    schema = table.schema.with_metadata({META: json.dumps(seal | ({"version": version} if version else {}))})
    pq.write_table(pa.Table.from_pylist(edit(table.to_pylist()), schema), path)


def other_answer(rows: list[dict]) -> list[dict]:
    rows[0]["base"][0] = (rows[0]["base"][0] + 1) % 3
    return rows


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "is damaged"),
        (flip_a_byte, "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_text("hello"), "is damaged"),
        (lambda path: change(path, other_answer), "does not match its checksum"),
        (lambda path: change(path, lambda rows: rows[1:]), "does not match its checksum"),
        (lambda path: change(path, lambda rows: rows, version=3), "version 3, this program reads 2"),
    ],
)
def test_damage_is_told(baseline: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(baseline)
    with pytest.raises(RecordError, match=said) as caught:
        read_results(baseline)
    assert str(baseline) in caught.value.message
    assert caught.value.hint is not None


def test_a_predictions_file_is_no_baseline(done: Path) -> None:
    predictions = next((done / "predictions").glob("*.parquet"))
    with pytest.raises(RecordError, match="is not a baseline"):
        read_results(predictions)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no baseline at"):
        read_results(tmp_path / "nothing.parquet")
    with pytest.raises(RecordError, match="holds no records"):
        read_results(tmp_path)


def test_a_folder_with_damage_is_refused(done: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(done, tmp_path / "copy"))
    mine, other = sorted((copy / "predictions").iterdir())
    mine.write_bytes(other.read_bytes())
    found = of_folder(copy)
    with pytest.raises(RecordError, match="not the answers of its record"):
        list(map(found.answers, found.records))
    record = next((copy / "records").iterdir())
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(RecordError, match="1 damaged records"):
        read_results(copy)


def test_a_cell_in_error_makes_no_baseline(done: Path, tmp_path: Path) -> None:
    from example_records import failed

    folder = of_folder(done)
    broken = [failed(folder.records[0], "error", "out of memory"), *folder.records[1:]]
    with pytest.raises(RecordError, match="no baseline written: magnitude: out of memory"):
        write_baseline(tmp_path / "b.parquet", of_folder(done, broken))
    with pytest.raises(RecordError, match="holds no records"):
        write_baseline(tmp_path / "b.parquet", of_folder(done, []))
    assert not (tmp_path / "b.parquet").exists()
