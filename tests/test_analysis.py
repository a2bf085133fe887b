"""Analysis records and their store: what goes in comes out, and what is not right does not go in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from example_analyses import example_analysis
from pydantic import ValidationError

from affectbench.analysis import (
    Analysis,
    AnalysisStore,
    analyses_of,
    analysis_name,
    grid,
    numbers,
    read_analysis,
    write_analysis_schema,
)
from affectbench.analysis_gates import analysis_problems
from affectbench.errors import RecordError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def store(tmp_path: Path) -> AnalysisStore:
    return AnalysisStore(tmp_path)


def edited(path: Path, **changes: object) -> None:
    """Change a stored analysis by hand."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestRecord:
    def test_it_survives_its_own_json(self) -> None:
        found = example_analysis()
        assert Analysis.model_validate_json(found.canonical()) == found

    def test_its_hash_covers_all_but_cost_and_provenance(self) -> None:
        found = example_analysis()
        cost = found.cost.model_copy(update={"wall_s": 99.0})
        assert found.model_copy(update={"cost": cost}).content_hash() == found.hashes.record
        assert found.model_copy(update={"title": "Other"}).content_hash() != found.hashes.record

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_non_finite_numbers_cannot_enter(self, bad: float) -> None:
        content = example_analysis().model_dump()
        content["matrices"][0]["values"][0][0] = bad
        with pytest.raises(ValidationError, match="finite"):
            Analysis.model_validate(content)

    def test_arrays_become_numbers_or_none(self) -> None:
        assert numbers(np.array([1, np.nan, -np.inf])) == [1.0, None, None]
        assert grid(np.array([[1.0, np.nan], [2.0, 3.0]])) == [[1.0, None], [2.0, 3.0]]

    @pytest.mark.parametrize(
        ("part", "change", "message"),
        [
            ("curves", {"x": [3.0] * 12}, "x must ascend"),
            ("curves", {"x": [0.0, 1.0]}, "12 values for 2 x"),
            ("matrices", {"rows": ["one"]}, "values: not 1 x 6"),
            ("matrices", {"low": []}, "an interval has two ends"),
            ("matrices", {"columns": ["same"] * 6}, "'same' is there twice"),
            ("maps", {"x": [0.0]}, "each point needs x and y"),
            ("maps", {"panels": ["one"]}, "values: not 1 x 9"),
            ("tables", {"columns": [{"name": "one"}]}, "4 values for 1 columns"),
            ("curves", {"name": "geometry"}, "'geometry' is there twice"),
            ("curves", {"name": "x y"}, "match pattern"),
        ],
    )
    def test_parts_that_contradict_themselves_are_refused(
        self, part: str, change: dict[str, object], message: str
    ) -> None:
        content = example_analysis().model_dump()
        content[part][0] |= change
        with pytest.raises(ValidationError, match=message):
            Analysis.model_validate(content)

    def test_one_that_says_nothing_is_refused(self) -> None:
        empty = {key: [] for key in ("findings", "curves", "matrices", "maps", "tables")}
        with pytest.raises(ValidationError, match="says nothing"):
            Analysis.model_validate(example_analysis().model_dump() | empty)

    def test_names_tell_models_tasks_and_seeds_apart_and_are_safe_in_paths(self) -> None:
        names = {
            analysis_name("flow", "Org/Model", "a-b", seed=0),
            analysis_name("flow", "Org-Model", "a-b", seed=0),
            analysis_name("flow", "Org/Model", "a-b", seed=1),
            analysis_name("flow", "Org/Model", "", seed=0),
            analysis_name("flow", "m" * 300, "t", seed=0),
        }
        assert len(names) == 5
        assert all("/" not in name and len(name) <= 160 for name in names)


class TestStore:
    def test_what_is_written_is_read_and_found_finished(self, store: AnalysisStore) -> None:
        found = example_analysis()
        path = store.write(found)
        assert store.read_all() == ([found], [])
        assert path.read_text() == found.canonical()
        assert store.finished(found.name, found.hashes, found.settings) == found

    def test_other_inputs_code_or_settings_are_not_finished(self, store: AnalysisStore) -> None:
        found = example_analysis()
        store.write(found)
        other = found.hashes.model_copy(update={"code": "0" * 16})
        moved = found.hashes.model_copy(update={"inputs": {"task": "0" * 16}})
        assert store.finished(found.name, other, found.settings) is None
        assert store.finished(found.name, moved, found.settings) is None
        assert store.finished(found.name, found.hashes, found.settings | {"top": 50}) is None
        assert store.finished("another", found.hashes, found.settings) is None

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda path: edited(path, title="Better"), "edited by hand"),
            (lambda path: edited(path, n={"items": -0.5}), "does not fit the schema: n.items"),
            (lambda path: path.write_text("{"), "not valid JSON"),
            (lambda path: path.write_bytes(b"\xff"), "cannot be read"),
            (lambda path: path.rename(path.with_name("other.json")), "misplaced"),
        ],
    )
    def test_damage_is_found_and_never_finished(self, store: AnalysisStore, damage, reason: str) -> None:
        found = example_analysis()
        damage(store.write(found))
        analyses, damaged = store.read_all()
        assert analyses == []
        assert reason in damaged[0].reason
        assert store.finished(found.name, found.hashes, found.settings) is None

    def test_a_folder_without_any_has_none(self, store: AnalysisStore) -> None:
        assert store.read_all() == ([], [])

    def test_equal_ones_of_two_folders_are_one_and_others_an_error(self, tmp_path: Path) -> None:
        one, other = AnalysisStore(tmp_path / "one"), AnalysisStore(tmp_path / "other")
        found = example_analysis()
        one.write(found)
        other.write(found)
        folders = [tmp_path / "one", tmp_path / "other"]
        assert analyses_of(folders) == ([found], [])
        other.write(found.model_copy(update={"title": "Other"}))
        with pytest.raises(RecordError, match="two analyses are called"):
            analyses_of(folders)

    def test_the_shipped_schema_is_current_and_accepts_an_analysis(self, tmp_path: Path) -> None:
        import jsonschema

        (path,) = write_analysis_schema(tmp_path)
        shipped = ROOT / "leaderboard" / "schema" / path.name
        assert shipped.read_bytes() == path.read_bytes()
        schema = json.loads(path.read_text())
        jsonschema.validate(json.loads(example_analysis().canonical()), schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(example_analysis().canonical()) | {"rank": 1}, schema)

    def test_the_file_name_is_read_back_alone(self, store: AnalysisStore) -> None:
        found = example_analysis()
        assert read_analysis(store.write(found)) == found


class TestGates:
    def folders(self, tmp_path: Path) -> tuple[AnalysisStore, AnalysisStore]:
        base, head = AnalysisStore(tmp_path / "base"), AnalysisStore(tmp_path / "head")
        for store in (base, head):
            store.write(example_analysis())
        return base, head

    def problems(self, tmp_path: Path) -> list[str]:
        return list(analysis_problems(tmp_path / "base", tmp_path / "head"))

    def test_what_did_not_change_and_what_is_new_passes(self, tmp_path: Path) -> None:
        _, head = self.folders(tmp_path)
        head.write(example_analysis("small-text"))
        assert self.problems(tmp_path) == []

    def test_an_edit_by_hand_stops_it(self, tmp_path: Path) -> None:
        _, head = self.folders(tmp_path)
        edited(head.path(example_analysis().name), title="Better")
        assert any("edited by hand" in problem for problem in self.problems(tmp_path))

    def test_a_lost_one_stops_it(self, tmp_path: Path) -> None:
        _, head = self.folders(tmp_path)
        head.path(example_analysis().name).unlink()
        assert self.problems(tmp_path) == [f"{example_analysis().name}: published, and not in the change"]

    def test_other_content_made_from_the_same_stops_it_and_from_new_code_does_not(
        self, tmp_path: Path
    ) -> None:
        _, head = self.folders(tmp_path)
        changed = example_analysis(n={"items": 7})
        head.write(changed)
        assert "says something else" in self.problems(tmp_path)[0]
        code = changed.hashes.model_copy(update={"code": "d" * 16})
        head.write(changed.model_copy(update={"hashes": code}))
        assert self.problems(tmp_path) == []

    def test_markup_and_odd_names_stop_it(self, tmp_path: Path) -> None:
        _, head = self.folders(tmp_path)
        odd = example_analysis(name="odd", model="../up", notes=["<script>"])
        head.write(odd)
        problems = self.problems(tmp_path)
        assert any("is no name" in problem for problem in problems)
        assert any("markup" in problem for problem in problems)
