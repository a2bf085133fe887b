"""Models beside each other: ranks, agreement of measures, relative depth, affect by family of measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from example_analyses import example_analysis
from scipy.stats import rankdata, spearmanr

from affectbench.alignment import group
from affectbench.alignment.components import Reduced
from affectbench.alignment.features import States
from affectbench.alignment.grid import COMPONENTS
from affectbench.alignment.metrics import MEASURES, measure
from affectbench.alignment.over_models import over_depth
from affectbench.alignment.published import late_window
from affectbench.alignment_task import AlignmentTask
from affectbench.analysis import Matrix, Topography

ROOT = Path(__file__).resolve().parent.parent


def states(tokens: int, channels: int, seed: int = 0) -> list[States]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(channels, channels)) * np.linspace(3, 0.1, channels)[:, None]
    return [
        States(("a", "b"), rng.normal(size=(2, tokens, channels)) @ mix, np.zeros((tokens, 2)))
        for _ in range(3)
    ]


class TestReduction:
    @pytest.mark.parametrize(("tokens", "channels"), [(40, 9), (3, 30)])
    def test_axes_are_the_first_right_singular_vectors(self, tokens: int, channels: int) -> None:
        found = states(tokens, channels)
        reduction = Reduced.of(found, 4).reduction
        for point in range(2):
            stacked = np.concatenate([each.values[point] for each in found])
            _, _, expected = np.linalg.svd(stacked - stacked.mean(axis=0), full_matrices=False)
            axes = reduction.axes[point]
            assert axes.shape == (channels, 4)
            np.testing.assert_allclose(np.abs(np.diag(expected[:4] @ axes)), 1, atol=1e-6)
            np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-6)

    def test_the_largest_entry_of_an_axis_is_positive(self) -> None:
        axes = Reduced.of(states(40, 9), 5).reduction.axes
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
        assert (largest > 0).all()


@pytest.mark.parametrize("found", [m for each in MEASURES.values() for m in each.values()])
def test_what_is_prepared_once_gives_the_measure(found: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(15, 6)), rng.normal(size=(15, 3))
    joined = found.joined(found.prepared(x, "correlation"), found.prepared(y, "correlation"))
    assert joined == pytest.approx(found(x, y), abs=1e-12)


class TestRanks:
    def test_they_are_those_of_the_means_and_the_interval_holds_them(self) -> None:
        rng = np.random.default_rng(2)
        scores = rng.normal(size=(9, 3, 5)) * 0.1 + np.arange(5)
        value, low, high = group.rank_spread(scores, seed=0)
        np.testing.assert_array_equal(value, [rankdata(-row) for row in scores.mean(axis=0)])
        assert (low <= value).all()
        assert (value <= high).all()
        assert (value == [5, 4, 3, 2, 1]).all()

    def test_what_is_alike_has_a_wide_interval(self) -> None:
        _, low, high = group.rank_spread(np.random.default_rng(3).normal(size=(10, 1, 4)), seed=0)
        assert (high - low).mean() > 1


class TestFamilySplit:
    FAMILIES = ("geometric", "geometric", "covariance", "covariance")

    def test_it_is_the_mean_of_pairs_within_less_between(self) -> None:
        scores = np.random.default_rng(4).normal(size=(8, 4, 7))
        value, low, high = group.family_split(scores, self.FAMILIES, seed=0)
        rho = spearmanr(scores.mean(axis=0).T).statistic
        within, between = [rho[0, 1], rho[2, 3]], [rho[0, 2], rho[0, 3], rho[1, 2], rho[1, 3]]
        assert value == pytest.approx(np.mean(within) - np.mean(between))
        assert low <= high

    def test_families_that_rank_in_opposite_ways_are_two_apart(self) -> None:
        order = np.arange(6.0)
        scores = np.stack([np.stack([order, order + 1, -order, -order])] * 5)
        np.testing.assert_allclose(group.family_split(scores, self.FAMILIES, seed=0), 2)

    def test_one_family_has_no_split(self) -> None:
        assert np.isnan(group.family_split(np.zeros((3, 2, 4)), ("a", "a"), seed=0)).all()
        assert np.isnan(group.family_split(np.zeros((3, 2, 4)), ("a", "b"), seed=0)).all()


def test_layers_of_models_of_unlike_depth_lie_at_the_same_share_of_it() -> None:
    effects = np.zeros((4, 3, 5))
    effects[:, 1] = np.arange(5.0)  # One lag alone is high, and there layers rise.
    found = over_depth(effects, np.array([0, 0.125, 0.5, 1.0]))
    np.testing.assert_allclose(found, [[0, 0.5, 2, 4]] * 4)
    np.testing.assert_allclose(over_depth(effects[..., ::2], np.array([0.5, 1.0])), [[2, 4]] * 4)


@pytest.mark.slow
class TestStudy:
    """Two made-up models, one of which the listeners hear."""

    @pytest.fixture(scope="class")
    def parts(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        pytest.importorskip("mne", reason="the extra `eeg` is not installed")
        from test_alignment_units import spoken

        from affectbench.alignment import study_alignment
        from affectbench.alignment.comparison import compared
        from affectbench.alignment.ground import SimulatedGround
        from affectbench.alignment.head import head_model
        from affectbench.alignment.simulation import Plant
        from affectbench.alignment.story import reference_story
        from affectbench.alignment.work import Workshop

        story = reference_story(14, segments=2, seed=1)
        content = yaml.safe_load((ROOT / "tasks/alignments/reference-eeg.yaml").read_text())
        metrics = ["rsa_spearman", "rsa_pearson", "cka_linear", "dcor_squared"]
        task = AlignmentTask.model_validate(
            content | {"metrics": metrics, "lags": {"until": 0.4, "step": 0.1}}
        )
        heard, other = spoken(story), spoken(story, seed=9)
        ground = SimulatedGround(story, heard, Plant(1, 0.3, 8.0), head_model(), 3, 100.0, 0)
        workshop = Workshop(tmp_path_factory.mktemp("w"), "models", "one", lambda *_: None, lambda _: None)
        models = {"heard": Reduced.of(heard, 20), "other": Reduced.of(other, 20)}
        found = study_alignment.found(workshop, compared(ground, task, tuple(range(14)), models))
        return study_alignment.study(found, 0)

    def matrix(self, parts: dict[str, Any], name: str) -> Matrix:
        return next(each for each in parts["matrices"] if each.name == name)

    def test_the_model_that_is_heard_is_first_by_every_measure(self, parts: dict[str, Any]) -> None:
        values = self.matrix(parts, "by-measure")
        assert values.rows == ["heard", "other"]
        assert values.columns == [measure(each, "debiased").title for each in (
            "rsa_spearman", "rsa_pearson", "cka_linear", "dcor_squared")]  # fmt: skip
        assert all(value > 0.1 for value in values.values[0])
        assert all(abs(value) < 0.1 for value in values.values[1])
        assert self.matrix(parts, "ranks").values == [[1.0] * 4, [2.0] * 4]

    def test_curves_of_all_models_share_one_axis_of_depth(self, parts: dict[str, Any]) -> None:
        curves = {each.name: each for each in parts["curves"]}
        for family in ("geometric", "covariance"):
            drawn = curves[f"depth-{family}"]
            assert (drawn.x[0], drawn.x[-1]) == (0.0, 1.0)
            heard = drawn.series[0]
            assert [each.label for each in drawn.series] == ["heard", "other"]
            assert np.argmax(heard.values) == len(drawn.x) // 2  # Layer b of a, b, c.

    def test_agreement_and_the_split_of_families_are_told(self, parts: dict[str, Any]) -> None:
        findings = {each.name: each for each in parts["findings"]}
        assert findings["concordance"].value.value > 0.5
        split = findings["rank-split"].value
        assert split.low <= split.value <= split.high
        agreement = self.matrix(parts, "agreement")
        assert [agreement.values[at][at] for at in range(4)] == pytest.approx([1.0] * 4)
        assert not any(each.name == "agreement-models" for each in parts["matrices"])  # Of two models, none.

    def test_the_record_says_how_eeg_was_filtered(self, parts: dict[str, Any]) -> None:
        """The mains of simulated listeners, 60 Hz, are above what 100 Hz can hold."""
        assert parts["notes"][-1] == "EEG was filtered from 0.5 to 20 Hz, with a notch at no frequency."

    def test_affect_is_contrasted_by_family(self, parts: dict[str, Any]) -> None:
        found = self.matrix(parts, "affect-families-1")
        assert found.columns == ["geometric", "covariance", "consensus"]
        table = next(each for each in parts["tables"] if each.name == "affect-1")
        own = [r[2].value for r in table.rows if r[0].startswith("heard") and r[1] == "geometric"]
        assert found.values[0][0] == pytest.approx(np.mean(own))

    def test_negative_prosody_is_the_lowest_third_that_consensus_tells(self, parts: dict[str, Any]) -> None:
        """Of 14 pieces 5 are the lowest third; of the model that nobody hears fewer agree with anything."""
        (table,) = [each for each in parts["tables"] if "negative prosody" in each.title]
        assert table.title.endswith("both where consensus tells")
        pairs = [part.split(" against ") for part in table.note.split(" pieces")[0].split(", ")]
        assert all(1 < int(one) <= 5 and 1 < int(other) <= 9 for one, other in pairs)
        finding = {each.name: each for each in parts["findings"]}["negative-prosody-geometric"]
        own = [r[2].value for r in table.rows if r[0].startswith("heard") and r[1] == "geometric"]
        assert finding.value.value == pytest.approx(np.mean(own))
        assert "The paper: lower." in finding.text

    def test_the_depth_of_the_peak_is_told(self, parts: dict[str, Any]) -> None:
        finding = {each.name: each for each in parts["findings"]}["depth-peak"]
        assert finding.value.value == 0.5  # Layer b of a, b, c.


def test_a_late_rise_is_read_at_a_layer_that_other_subjects_choose() -> None:
    windows = np.zeros((3, len(COMPONENTS), 4))
    windows[:, :, 2] = [0.1, 0.3, 9.0, 0.6, 9.0, 9.0]  # N1 and P2 end by 250 ms; the fourth is 250-500 ms.
    windows[0, :, 1] = 100.0  # One subject's own best layer, which is not the others'.
    found = late_window(windows)
    np.testing.assert_allclose(found, [0.6 - 0.2, 0.0, 0.0])
    np.testing.assert_allclose(late_window(windows[1:]), [0.4, 0.4])


class TestTopomap:
    @staticmethod
    def made(values: list[list[float | None]]) -> Topography:
        angle = np.linspace(0, 2 * np.pi, 13)[:-1]
        x, y = np.append(0.8 * np.sin(angle), 0.0), np.append(0.8 * np.cos(angle), 0.0)
        return Topography(
            name="electrodes", title="t & <t>", points=[f"E{n}" for n in range(13)],
            x=x.tolist(), y=y.tolist(),
            panels=[f"{n}-{n + 1} ms" for n in range(len(values))], values=values,
        )  # fmt: skip

    def test_every_panel_is_drawn_and_the_same_values_give_the_same_file(self, tmp_path: Path) -> None:
        pytest.importorskip("mne", reason="the extra `eeg` is not installed")
        from affectbench.alignment.topomap import topomap, write_topomaps

        rng = np.random.default_rng(0)
        rows: list[list[float | None]] = [rng.normal(size=13).tolist() for _ in range(4)]
        rows[1][3] = None
        drawn = topomap(self.made(rows))
        text = "".join(ElementTree.fromstring(drawn).itertext())
        assert all(f"{n}-{n + 1} ms" in text for n in range(4))
        assert "t & <t>" in text
        assert topomap(self.made(rows)) == drawn
        assert topomap(self.made([row[::-1] for row in rows])) != drawn
        analysis = example_analysis(maps=[self.made(rows)])
        (path,) = write_topomaps([analysis], tmp_path)
        assert path == tmp_path / "topomaps" / f"{analysis.name}.electrodes.svg"
        assert path.read_bytes() == drawn
