"""Analyses of a suite: made once after the cells, kept while they follow from the same, named where not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from e2e_content import BENCHMARK, MODEL, PROTOCOL, Bench, Log, Outcome, suite_file

from affectbench import analyses, analysing
from affectbench.analyses import Asked, Known
from affectbench.analysis import Analysis, AnalysisStore
from affectbench.answer_vectors import answer_vectors, sound
from affectbench.dataset import load_benchmark
from affectbench.direction_geometry import GROUPED, PLACES
from affectbench.direction_geometry import analyse as geometry_of
from affectbench.errors import AffectbenchError
from affectbench.geometry import separation, similarity_of_emotions, without_groups
from affectbench.placement import Options, Order, Placement, content_hashes
from affectbench.plan import Job, jobs_of_suite
from affectbench.run import Run
from affectbench.sites import MIDDLE, RESIDUAL

GEOMETRY = "direction-geometry"


@pytest.fixture
def job(bench: Bench) -> Job:
    return replace(bench.job("magnitude"), analyses=(GEOMETRY,))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An analysis beside the ordinary one, which raises what it is told to."""
    raised: dict[str, BaseException] = {}
    whole = analyses.ANALYSES[GEOMETRY]
    monkeypatch.setitem(
        analyses.ANALYSES, "broken", replace(whole, title="Broken", settings={"broken": True})
    )

    def analyse(asked: Asked) -> Any:
        if "broken" in asked.settings:
            raise raised["error"]
        return geometry_of(asked)

    monkeypatch.setattr("affectbench.direction_geometry.analyse", analyse)
    return lambda error: raised.update(error=error)


def stored(output: Path) -> list[Analysis]:
    found, damaged = AnalysisStore(output).read_all()
    assert not damaged
    return found


def placed(bench: Bench, output: Path) -> Placement:
    job = bench.job("magnitude")
    dataset = load_benchmark(job.benchmark, bench.root / "data")
    options = Options(output, data=bench.root / "data")
    return Placement(bench.registry(), Order(job, dataset, (), ()), options, lambda _text: None)


class TestRun:
    def test_a_suites_analyses_are_made_once_and_then_kept(self, bench: Bench, tmp_path: Path) -> None:
        path = suite_file(tmp_path / "own", "with-analyses", PROTOCOL)
        path.write_text(path.read_text() + f"analyses: [{GEOMETRY}]\n")
        jobs = jobs_of_suite(bench.registry(tmp_path / "own"), "with-analyses", None)
        assert [each.analyses for each in jobs] == [(GEOMETRY,)]
        records, log = bench.run(jobs, tmp_path / "out")
        assert log.analyses == [(GEOMETRY, False)]
        (found,) = stored(tmp_path / "out")
        assert (found.model, found.task, found.kind) == (MODEL, BENCHMARK, GEOMETRY)
        assert found.hashes.inputs == {"task": records[0].hashes.task, "model": records[0].hashes.model}
        assert found.cost.forward_passes > 0
        before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json")}
        _, again = bench.run(jobs, tmp_path / "out")
        assert again.analyses == [(GEOMETRY, True)]
        assert not again.ran
        assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json")} == before

    def test_one_that_is_missing_is_made_without_running_finished_cells(
        self, bench: Bench, job: Job, tmp_path: Path
    ) -> None:
        bench.run(replace(job, analyses=()), tmp_path)
        _, log = bench.run(job, tmp_path)
        assert (log.skipped, log.ran, log.analyses) == (["magnitude"], [], [(GEOMETRY, False)])
        assert not (tmp_path / "partial").exists()

    def test_an_interrupted_one_leaves_the_cells_and_is_made_next_time(
        self, bench: Bench, job: Job, tmp_path: Path, broken: Any
    ) -> None:
        broken(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            bench.run(replace(job, analyses=("broken", GEOMETRY)), tmp_path)
        assert stored(tmp_path) == []
        _, log = bench.run(job, tmp_path)
        assert (log.skipped, log.ran, log.analyses) == (["magnitude"], [], [(GEOMETRY, False)])

    def test_it_is_made_again_when_its_code_or_settings_change(
        self, bench: Bench, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.run(job, tmp_path)
        known = analyses.ANALYSES[GEOMETRY]
        monkeypatch.setitem(
            analyses.ANALYSES, GEOMETRY, replace(known, settings=known.settings | {"bootstrap_draws": 20})
        )
        _, log = bench.run(job, tmp_path)
        assert log.analyses == [(GEOMETRY, False)]
        assert any("made from something else; the analysis is made again" in note for note in log.notes)
        monkeypatch.setitem(
            analyses.ANALYSES, GEOMETRY, replace(analyses.ANALYSES[GEOMETRY], uses=("geometry",))
        )
        assert bench.run(job, tmp_path)[1].analyses == [(GEOMETRY, False)]

    def test_a_damaged_one_is_set_aside_and_made_again(self, bench: Bench, job: Job, tmp_path: Path) -> None:
        bench.run(job, tmp_path)
        (found,) = stored(tmp_path)
        path = AnalysisStore(tmp_path).path(found.name)
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
        _, log = bench.run(job, tmp_path)
        assert any("edited by hand or damaged; the analysis is made again" in note for note in log.notes)
        assert path.with_name(f"{path.name}.damaged").is_file()
        assert stored(tmp_path)[0].hashes.record == found.hashes.record

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (AffectbenchError("too few items", hint="use more"), "analysis broken: too few items (use more)"),
            (ValueError("shapes differ\nmore"), "analysis broken failed: ValueError: shapes differ"),
            (RuntimeError(), "analysis broken failed: RuntimeError: no message"),
        ],
    )
    def test_a_failure_is_named_and_the_others_are_made(
        self, bench: Bench, job: Job, tmp_path: Path, broken: Any, error: BaseException, message: str
    ) -> None:
        broken(error)
        log = Log()
        run = Run(bench.registry(), Options(tmp_path, data=bench.root / "data"), log)
        records = run.run([replace(job, analyses=("broken", GEOMETRY))])
        assert [record.status for record in records] == ["ok"]
        assert log.analyses == [(GEOMETRY, False)]
        assert run.failures == [f"{MODEL} on {BENCHMARK}: {message}"]
        assert (tmp_path / "partial").exists(), "what the failed one may go on from is kept"

    def test_one_that_needs_features_is_refused_where_there_are_none(
        self, bench: Bench, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = replace(analyses.ANALYSES[GEOMETRY], features=True)
        monkeypatch.setitem(analyses.ANALYSES, "of-features", known)
        run = Run(bench.registry(), Options(tmp_path, data=bench.root / "data"), Log())
        records = run.run([replace(job, analyses=("of-features", GEOMETRY))])
        assert [record.status for record in records] == ["ok"]
        assert "has no sparse autoencoders" in run.failures[0]
        assert [found.kind for found in stored(tmp_path)] == [GEOMETRY]

    def test_an_unknown_name_in_a_suite_is_an_error_with_a_suggestion(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        path = suite_file(tmp_path, "typo", PROTOCOL)
        path.write_text(path.read_text() + "analyses: [direction-geometri]\n")
        with pytest.raises(AffectbenchError, match="did you mean 'direction-geometry'"):
            jobs_of_suite(bench.registry(tmp_path), "typo", None)

    def test_a_suite_without_analyses_has_the_hash_it_had(self, bench: Bench, tmp_path: Path) -> None:
        path = suite_file(tmp_path, "plain", PROTOCOL)
        before = bench.registry(tmp_path).suite("plain").digest
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"analyses": []}))
        assert bench.registry(tmp_path).suite("plain").digest == before

    def test_planned_hashes_are_those_of_the_cells(self, bench: Bench, job: Job) -> None:
        dataset = load_benchmark(job.benchmark, bench.root / "data")
        task, model = content_hashes(bench.registry(), job, dataset)
        found = analysing.inputs_of(bench.registry(), job, dataset, ())
        assert found == {"task": task, "model": model}


class TestVectors:
    def test_they_are_the_hidden_states_of_the_public_forward(self, bench: Bench, tmp_path: Path) -> None:
        import torch

        session = placed(bench, tmp_path).session
        items, network = session.items("identification"), session.model.network
        found = answer_vectors(session.engine, items, [(RESIDUAL, 0), (MIDDLE, 1)])
        told: list[int] = []
        again = answer_vectors(session.engine, items, [(RESIDUAL, 0), (MIDDLE, 1)], told.append)
        assert sum(told) == len(items)
        assert np.array_equal(found, again)
        for place, item in enumerate(items.items):
            with torch.no_grad():
                states = network(input_ids=item.ids[None], output_hidden_states=True).hidden_states
            assert found[place, 0] == pytest.approx(states[1][0, -1].numpy(), abs=2e-5)
        assert sound(found).all()
        found[3, 1, 2] = np.nan
        assert np.flatnonzero(~sound(found)).tolist() == [3]

    def test_passes_of_a_stopped_analysis_are_not_made_again(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from affectbench.journal import Journal

        session, passes = placed(bench, tmp_path).session, [0]
        engine, decode = session.engine, session.model.decode
        engine.tokens = 40  # So that there are several batches.
        asked = Asked(session, 0, analyses.ANALYSES[GEOMETRY].settings)
        whole = geometry_of(asked)
        every = engine.cost.forward_passes
        assert every > 4

        def counted(*given: Any, **named: Any) -> Any:
            if passes[0] == stop:
                raise KeyboardInterrupt
            passes[0] += 1
            return decode(*given, **named)

        def journal() -> Journal:
            return Journal(tmp_path / "pieces", "f" * 16, pytest.fail)

        monkeypatch.setattr(session.model, "decode", counted)
        engine.journal, stop = journal(), 3
        with pytest.raises(KeyboardInterrupt):
            geometry_of(asked)
        engine.journal.close()
        engine.journal, stop, passes[0] = journal(), -1, 0
        before = replace(engine.cost)
        assert geometry_of(asked) == whole
        assert passes[0] == every - 3
        assert engine.cost.since(before).forward_passes == every, "at the cost that they had"

    def test_the_geometry_is_that_of_the_vectors(self, bench: Bench, tmp_path: Path) -> None:
        session = placed(bench, tmp_path).session
        items = session.items("identification")
        points = [(place, layer) for layer in range(2) for place in PLACES]
        vectors = answer_vectors(session.engine, items, points).astype(np.float64)
        centred = without_groups(vectors, items.gold, items.clusters)
        assert centred is not None, "each person lives through every emotion twice"
        expected = separation(centred, items.gold, items.clusters, draws=0, seed=0, grouped=True)
        content = geometry_of(Asked(session, 0, analyses.ANALYSES[GEOMETRY].settings))
        (curve, _), (emotions, sites) = content.curves, content.matrices
        assert curve.series[0].values == pytest.approx(expected.values.tolist())
        assert curve.x == [0.5, 1.0, 1.5, 2.0]
        best = int(expected.values.argmax())
        means = np.stack([vectors[items.gold == e].mean(axis=0) for e in range(3)])
        cosines = similarity_of_emotions(means - means.mean(axis=0))[best]
        assert np.array(emotions.values) == pytest.approx(cosines, abs=1e-6)
        assert len(sites.rows) == 4
        assert content.n == {"items": len(items), "clusters": 4}
        assert content.notes == [GROUPED]

    def test_items_that_failed_are_left_out_and_counted(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = placed(bench, tmp_path).session

        def damaged(*given: Any) -> Any:
            found = answer_vectors(*given)
            found[0] = np.inf
            return found

        monkeypatch.setattr("affectbench.direction_geometry.answer_vectors", damaged)
        content = geometry_of(Asked(session, 0, analyses.ANALYSES[GEOMETRY].settings))
        assert content.n["unusable_items"] == 1

        def lost(*given: Any) -> Any:
            found = answer_vectors(*given)
            found[session.items("identification").gold == 0] = np.nan
            return found

        monkeypatch.setattr("affectbench.direction_geometry.answer_vectors", lost)
        with pytest.raises(AffectbenchError, match="'anger' has fewer than 2 usable items"):
            geometry_of(Asked(session, 0, analyses.ANALYSES[GEOMETRY].settings))


class TestCommands:
    def test_one_alone_is_made_printed_and_kept(
        self, bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]
    ) -> None:
        own = ("--include", bench.root, "--data", bench.root / "data", "--output", tmp_path)
        line = ("analyse", GEOMETRY, "--model", MODEL, "--task", BENCHMARK, "--threads", 1, *own)
        code, said, _ = run_cli(*line)
        assert code == 0, said
        assert "Geometry of emotion directions" in said
        assert "Depth in layers at which emotions separate" in said
        (found,) = stored(tmp_path)
        before = AnalysisStore(tmp_path).path(found.name).read_bytes()
        assert run_cli(*line)[0] == 0
        assert AnalysisStore(tmp_path).path(found.name).read_bytes() == before
        for form, start in (
            ("text", "analysis"),
            ("csv", "analysis,model"),
            ("md", "| analysis"),
            ("json", "["),
        ):
            code, said, _ = run_cli("table", tmp_path, "--analyses", "--format", form)
            assert code == 0
            assert said.lstrip().startswith(start)
        rows = json.loads(said)
        assert len(rows) == len(found.findings)
        assert rows[0]["value"] == found.findings[0].value.value
        code, said, _ = run_cli("leaderboard", "--results", tmp_path, "--output", tmp_path / "site")
        assert code == 0
        assert (tmp_path / "site" / "analyses" / f"{found.name}.html").is_file()

    def test_the_run_says_where_to_look(
        self, bench: Bench, tmp_path: Path, run_cli: Callable[..., Outcome]
    ) -> None:
        path = suite_file(tmp_path / "own", "with-analyses", PROTOCOL)
        path.write_text(path.read_text() + f"analyses: [{GEOMETRY}]\n")
        include = ("--include", bench.root, "--include", tmp_path / "own")
        line = ("run", "with-analyses", *include, "--data", bench.root / "data", "-o", tmp_path / "out")
        code, said, _ = run_cli(*line)
        assert code == 0, said
        assert f"{MODEL} · {BENCHMARK} · {GEOMETRY}: Depth in layers" in said
        assert f"table {tmp_path / 'out'} --analyses" in said
        code, said, _ = run_cli("check", tmp_path / "out")
        assert code == 0
        assert "1 analyses too" in said
        edited = next((tmp_path / "out" / "analyses").glob("*.json"))
        edited.write_text(edited.read_text().replace("Geometry", "Geography"))
        code, _, said = run_cli("check", tmp_path / "out")
        assert code == 1
        assert "edited by hand" in said

    def test_what_is_not_there_is_named(self, tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
        code, _, said = run_cli("analyse", "direction-geometri", "--model", "reference-text")
        assert code == 1
        assert "did you mean 'direction-geometry'" in said
        code, _, said = run_cli("table", tmp_path, "--analyses")
        assert code == 1
        assert "holds no analyses" in said
        code, said, _ = run_cli("list", "analyses")
        assert code == 0
        assert GEOMETRY in said


def test_every_analysis_has_a_module_with_the_sources_it_names() -> None:
    for name, found in analyses.ANALYSES.items():
        assert isinstance(found, Known)
        assert len(found.code) == 16, name
        assert found.summary.endswith(".")
