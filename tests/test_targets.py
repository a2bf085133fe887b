"""What a selection becomes before it is run: units of single sites, what is added to them, random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from e2e_content import BENCHMARK, Bench, bench, write_protocol, write_selector  # noqa: F401
from safetensors.numpy import load_file, save_file

from affectbench.errors import AffectbenchError
from affectbench.evidence import Evidence
from affectbench.selector import Selection
from affectbench.sites import Kind, SiteShape
from affectbench.targets import Dosing, random_targets, targets_of, with_differences
from affectbench.task import InterventionProtocol, TaskFileError, load_as

LABELS = ("anger", "joy")
STREAM = SiteShape(4, 1, 3)
BOTH = SiteShape.joined(2, (Kind("neuron", 5, 1), Kind("head", 2, 3)))
ADDS = {"operation": "add", "doses": [0.5, 1]}


def protocol(folder: Path, **changes: object) -> InterventionProtocol:
    return load_as(write_protocol(folder, name="moves", **changes), InterventionProtocol)


def streams() -> Selection:
    vectors = (np.array([3.0, 0, 0, 0, 4, 0]), np.array([0, 0, 2.0]))
    return Selection("residual", STREAM, LABELS, (np.array([1, 2]), np.array([2])), vectors=vectors)


def joined() -> Selection:
    """Neurons 0 and 3 of layer 0 and head 1 of layer 1; neuron 1 of layer 1."""
    return Selection("component", BOTH, LABELS, (np.array([3, 13, 0]), np.array([8])))


def evidence(site: str) -> Evidence:
    kind = next(kind for kind in BOTH.kinds if kind.site == site)
    shape = SiteShape(2, kind.width, kind.size)
    sums = np.random.default_rng(kind.size).normal(size=(2, 2, shape.channels))
    return Evidence(LABELS, site, "answer", shape, np.full(2, 9), np.ones(2), {"mean": sums})


class TestUnits:
    def test_a_joined_site_is_edited_as_the_sites_that_it_joins(self) -> None:
        first, second = targets_of(joined())
        assert [(each.site, each.units.tolist()) for each in first] == [("neuron", [3, 0]), ("head", [3])]
        assert [(each.site, each.units.tolist()) for each in second] == [("neuron", [6])]

    def test_what_is_added_is_the_difference_of_means(self) -> None:
        neurons, heads = (evidence(site).mean for site in ("neuron", "head"))
        first, second = targets_of(with_differences(joined(), evidence))
        neuron, head = neurons - neurons.mean(axis=0), heads - heads.mean(axis=0)
        np.testing.assert_allclose(first[0].vectors, neuron[0, 0, [3, 0]])
        np.testing.assert_allclose(first[1].vectors, head[0, 1, 3:6])
        np.testing.assert_allclose(second[0].vectors, neuron[1, 1, [1]])
        plain = Selection("head", SiteShape(2, 2, 3), LABELS, (np.array([3]), np.array([0, 1])))
        found = with_differences(plain, evidence).vectors
        assert found is not None
        np.testing.assert_allclose(found[0], head[0, 1, 3:6])
        np.testing.assert_allclose(found[1], head[1, 0].ravel())
        own = streams()
        assert with_differences(own, evidence) is own


class TestRandomControls:
    def test_units_of_each_kind_and_layer_are_as_many(self) -> None:
        for target in random_targets(joined(), 20, seed=3):
            counts = {each.site: each.shape.histogram(each.units).tolist() for each in target}
            # Two emotions: one neuron each on average, and half a head, in these layers.
            assert sum(counts["neuron"]) + sum(counts.get("head", [0])) == 2
            assert counts["neuron"][0] == 1

    def test_as_much_is_added_elsewhere(self) -> None:
        selection = with_differences(joined(), evidence)
        known = np.concatenate(selection.vectors)  # type: ignore[arg-type]
        seen = set()
        for target in random_targets(selection, 30, seed=3):
            for each in target:
                assert np.isin(each.vectors, known).all()
                seen.update((each.site, unit) for unit in each.units.tolist())
        assert len(seen) > 5, "always the same units"

    def test_a_whole_stream_gets_a_random_direction_of_the_same_size(self) -> None:
        found = [target[0] for target in random_targets(streams(), 200, seed=1)]
        assert {tuple(each.units) for each in found} == {(1, 2)}
        rows = np.stack([each.vectors.reshape(2, 3) for each in found])  # type: ignore[union-attr]
        norms = np.linalg.norm(rows, axis=2)
        np.testing.assert_allclose(norms[:, 0], 3.0)
        assert {round(float(norm), 6) for norm in norms[:, 1]} == {4.0, 2.0}
        assert np.abs((rows / norms[..., None]).mean(axis=0)).max() < 0.15

    def test_the_same_seed_gives_the_same_draws(self) -> None:
        one, two = (random_targets(streams(), 3, seed=5) for _ in range(2))
        assert all((a[0].vectors == b[0].vectors).all() for a, b in zip(one, two, strict=True))


class TestDoses:
    def test_what_is_added_grows_with_the_dose_and_adds_up_over_targets(self, tmp_path: Path) -> None:
        chosen = protocol(tmp_path, site="residual", arms=ARMS["residual"])
        dosing, targets = Dosing(chosen, {}), targets_of(streams())
        (edit,) = dosing.of("amplify", 0.5, targets[0]).edits
        assert edit.relative
        np.testing.assert_allclose(edit.value, [1.5, 0, 0, 0, 2, 0])
        both = dosing.union(targets, 0.5).edits
        assert [each.value.tolist() for each in both] == [[1.5, 0, 0, 0, 2, 0], [0, 0, 1]]
        mixed = dosing.mixed(targets, [0.25, 0.75], 2.0).edits
        assert [each.value.tolist() for each in mixed] == [[1.5, 0, 0, 0, 2, 0], [0, 0, 3]]
        (taken,) = dosing.of("suppress", 0.0, targets[0]).edits
        np.testing.assert_allclose(taken.value, [1, 0, 0, 0, 1, 0])
        (left,) = dosing.of("suppress", 0.36, targets[0]).edits
        np.testing.assert_allclose(left.value, [0.8, 0, 0, 0, 0.8, 0])
        assert (chosen.alpha("amplify", 0.5), chosen.alpha("suppress", 0.25)) == (0.5, 0.75)

    def test_gains_of_several_sites_are_edits_of_each(self, tmp_path: Path) -> None:
        dosing, targets = Dosing(protocol(tmp_path, site="component"), {}), targets_of(joined())
        gains = {edit.site: edit for edit in dosing.mixed(targets, [0.5, 1.0], 3.0).edits}
        assert gains["neuron"].units.tolist() == [0, 3, 6]
        assert gains["neuron"].value.tolist() == [2, 2, 3]
        assert gains["head"].value.tolist() == [2]
        union = {edit.site: edit for edit in dosing.union(targets, 3.0).edits}
        assert union["neuron"].units.tolist() == [0, 3, 6]
        assert union["neuron"].value.tolist() == [3, 3, 3]

    @pytest.mark.parametrize(
        ("amplify", "message"),
        [
            ({"operation": "scale", "doses": [0.5]}, "factors above 1"),
            ({"operation": "scale", "doses": [2], "relative": True}, "only what operation add adds"),
            ({"operation": "add", "doses": [0]}, "doses"),
        ],
    )
    def test_a_dose_that_does_not_amplify_is_refused(
        self, tmp_path: Path, amplify: dict[str, object], message: str
    ) -> None:
        suppress = {"operation": "scale", "doses": [0]}
        with pytest.raises(TaskFileError, match=message):
            protocol(tmp_path, arms={"suppress": suppress, "amplify": amplify})


class TestFile:
    @pytest.mark.parametrize("selection", [streams(), joined(), with_differences(joined(), evidence)])
    def test_comes_back_as_it_was(self, selection: Selection, tmp_path: Path) -> None:
        selection.save(tmp_path / "kept.safetensors")
        found = Selection.load(tmp_path / "kept.safetensors")
        assert (found.site, found.shape, found.digest) == (selection.site, selection.shape, selection.digest)
        assert (found.vectors is None) == (selection.vectors is None)
        for one, two in zip(found.vectors or (), selection.vectors or (), strict=True):
            np.testing.assert_array_equal(one, two)

    def test_vectors_are_a_part_of_what_is_claimed(self, tmp_path: Path) -> None:
        path = tmp_path / "kept.safetensors"
        streams().save(path)
        from safetensors import safe_open

        with safe_open(path, framework="np") as stream:
            header = stream.metadata()
        tensors = load_file(path)
        tensors["vectors.0"] = tensors["vectors.0"] * 2
        save_file(tensors, path, metadata=header)
        with pytest.raises(AffectbenchError, match="do not match the digest"):
            Selection.load(path)

    def test_vectors_that_do_not_fit_are_named(self) -> None:
        with pytest.raises(AffectbenchError, match="one row of 6 numbers"):
            Selection("residual", STREAM, ("a",), (np.array([0, 1]),), vectors=(np.zeros(3),))


ARMS = {
    "head": {
        "suppress": {"operation": "mean", "doses": [0]},
        "amplify": {"operation": "scale", "doses": [2]},
    },
    "component": {"suppress": {"operation": "scale", "doses": [0]}, "amplify": ADDS},
    "residual": {
        "suppress": {"operation": "project", "doses": [0, 0.5]},
        "amplify": ADDS | {"relative": True, "targeting": ["two_pass", "union", "mix"]},
    },
    "attention": {"suppress": {"operation": "project", "doses": [0]}, "amplify": ADDS},
}


@pytest.mark.parametrize("site", ARMS)
def test_a_cell_at_any_site_goes_from_selection_to_scores(site: str, bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    write_protocol(tmp_path, name="moves", site=site, fractions=[0.5], arms=ARMS[site])
    spread = "units = tuple((np.arange(budget) + e) % study.shape.units for e in range(len(study.labels)))"
    path = write_selector(tmp_path, "first", spread, f'("{site}",)')
    if site == "component":
        path.write_text(path.read_text().replace('{"mean"}', '{"neuron:mean", "residual:rms"}'))
    # A random layer with its own difference of means would be no control of a stream.
    names = ["first"] if site in ("residual", "attention") else ["first", "random"]
    job = bench.job(*names, more=[tmp_path], task=BENCHMARK, protocol="moves")
    records, log = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert [record.reason for record in records if record.status == "error"] == [], log.notes
    for record in records:
        assert record.cell.site == site
        assert record.scores is not None
        assert all(dose.random is not None for dose in record.scores.doses)
    again, log = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert log.ran == []
    assert [record.content_hash() for record in again] == [record.content_hash() for record in records]


def test_adding_the_difference_steers_where_random_directions_do_not(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    """The toy model's answer is in its stream: adding an emotion's difference there makes it the answer."""
    arms = {"suppress": {"operation": "project", "doses": [0]}, "amplify": {"operation": "add", "doses": [2]}}
    write_protocol(tmp_path, name="moves", site="residual", positions="answer", fractions=[0.5], arms=arms)
    write_selector(tmp_path, "last", "units = tuple(np.array([1]) for _ in study.labels)", '("residual",)')
    job = bench.job("last", more=[tmp_path], protocol="moves")
    (record,), _ = bench.run(job, tmp_path / "out", more=[tmp_path])
    assert record.scores is not None
    amplified = next(dose for dose in record.scores.doses if dose.arm == "amplify")
    assert amplified.trs.value > 0.8
    assert amplified.random is not None
    assert amplified.random.trs_mean < 0.3


def test_nothing_is_left_to_do_for_an_emotion_without_units(tmp_path: Path) -> None:
    units = (np.array([1]), np.empty(0, dtype=np.int64))
    selection = Selection("residual", STREAM, LABELS, units, vectors=(np.ones(3), np.empty(0)))
    dosing = Dosing(protocol(tmp_path, site="residual", arms=ARMS["residual"]), {})
    assert dosing.of("amplify", 1.0, targets_of(selection)[1]).effective == ()
