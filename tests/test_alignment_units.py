"""Units switched off under EEG: drops, the controls beside them, the suite, and the board made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from e2e_content import Outcome, run_cli  # noqa: F401

from affectbench.alignment.affect import BETWEEN, CALM, WEAK
from affectbench.alignment.components import Reduced
from affectbench.alignment.drops import KINDS, LAYERS, LOUDNESS, among, parted
from affectbench.alignment.features import States
from affectbench.alignment.ground import SimulatedGround
from affectbench.alignment.matched import NEAREST, activation_matched, loudness
from affectbench.alignment.metrics import measure
from affectbench.alignment.simulation import Plant
from affectbench.alignment.story import Story, reference_story
from affectbench.alignment_suite import AlignmentSuite
from affectbench.alignment_task import AlignmentTask
from affectbench.analysis import AnalysisStore
from affectbench.errors import AffectbenchError
from affectbench.registry import Registry
from affectbench.selector import Selection
from affectbench.site_alignment import intervention_boards
from affectbench.sites import SiteShape

ROOT = Path(__file__).resolve().parent.parent
EMOTIONS = ("anger", "joy", "neutral")
LABELS = np.array(["anger", "neutral", "joy", "anger", "neutral", "joy", "joy"])


class TestDrops:
    def test_they_are_what_plain_loops_give(self) -> None:
        rng = np.random.default_rng(0)
        draws = {LAYERS: 4, LOUDNESS: 3}
        effects = rng.normal(size=(5, 1 + 3 + 7, len(LABELS)))
        found = parted(effects, EMOTIONS, draws, LABELS, "neutral")

        def drop(subject: int, condition: int, label: str) -> float:
            pieces = [place for place, each in enumerate(LABELS) if each == label]
            return float(np.mean([effects[subject, 0, p] - effects[subject, condition, p] for p in pieces]))

        for s in range(5):
            assert found.own[s] == pytest.approx((drop(s, 1, "anger") + drop(s, 2, "joy")) / 2)
            assert found.still[s] == pytest.approx((drop(s, 1, "neutral") + drop(s, 2, "neutral")) / 2)
            others = [drop(s, 2, "anger"), drop(s, 3, "anger"), drop(s, 1, "joy"), drop(s, 3, "joy")]
            assert found.others[s] == pytest.approx(np.mean(others))
            for kind, first, count in ((LAYERS, 4, 4), (LOUDNESS, 8, 3)):
                for draw in range(count):
                    both = (drop(s, first + draw, "anger") + drop(s, first + draw, "joy")) / 2
                    assert found.drawn[kind][draw, s] == pytest.approx(both)
                    assert found.drawn_still[kind][draw, s] == pytest.approx(drop(s, first + draw, "neutral"))
            assert found.specific[s] == pytest.approx(found.own[s] - found.others[s])
            random = found.drawn[LAYERS][:, s].mean() - found.drawn_still[LAYERS][:, s].mean()
            assert found.beyond()[s] == pytest.approx(found.own[s] - found.still[s] - random)

    def test_an_edit_that_changes_nothing_loses_nothing(self) -> None:
        effects = np.repeat(np.random.default_rng(1).normal(size=(4, 1, len(LABELS))), 8, axis=1)
        found = parted(effects, EMOTIONS, {LAYERS: 2, LOUDNESS: 2}, LABELS, "neutral")
        assert not found.own.any()
        assert not found.beyond().any()

    def test_units_are_given_to_other_emotions_in_all_ways(self) -> None:
        names = ("anger", "fear", "joy", "neutral")
        labels = np.array([*names, *names])
        effects = np.random.default_rng(4).normal(size=(3, 1 + 4, 8))
        found = parted(effects, names, {}, labels, "neutral")
        drops = (effects[:, :1] - effects[:, 1:]).mean(axis=0)

        def lost(units: int, pieces: int) -> float:
            return float((drops[units, pieces] + drops[units, pieces + 4]) / 2)

        ways = [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
        expected = [np.mean([lost(units, at) for at, units in enumerate(way)]) for way in ways]
        np.testing.assert_allclose(found.swapped, expected)
        assert found.own.mean() == pytest.approx(np.mean([lost(at, at) for at in range(3)]))

    def test_one_emotion_has_no_others(self) -> None:
        labels = np.array(["affective", "neutral", "neutral"])
        effects = np.random.default_rng(5).normal(size=(4, 2, 3))
        found = parted(effects, ("affective",), {}, labels, "neutral")
        np.testing.assert_allclose(found.own, (effects[:, 0] - effects[:, 1])[:, 0])
        assert np.isnan(found.specific).all()
        assert not found.swapped.size

    def test_p_among_draws_counts_the_selection_in(self) -> None:
        assert among(1.0, np.array([0.0, 2.0, 1.0])) == (2, 0.75)
        assert among(3.0, np.arange(3.0)) == (0, 0.25)

    def test_units_that_are_the_same_for_all_emotions_are_as_good_as_their_exchanges(self) -> None:
        names = ("anger", "fear", "joy", "neutral")
        labels = np.array([*names, *names])
        rng = np.random.default_rng(6)
        effects = np.concatenate(
            [rng.normal(size=(7, 1, 8)), rng.normal(size=(7, 1, 8)).repeat(4, 1)], axis=1
        )
        found = parted(effects, names, {}, labels, "neutral")
        assert among(float(found.own.mean()), found.swapped) == (5, 1.0)


class TestMatched:
    SHAPE = SiteShape(layers=3, width=60)

    def selection(self) -> Selection:
        units = (np.array([0, 1, 2, 61]), np.array([3, 4, 62, 63]))
        return Selection("gate", self.SHAPE, ("anger", "joy"), units)

    def test_stand_ins_are_of_the_layer_as_loud_and_not_selected(self) -> None:
        loud = np.random.default_rng(2).uniform(0.1, 1, (3, 60))
        loud[:, :10] += 20  # What is selected is loud; of the others, some are.
        loud[:, 40:55] += 20
        named = {0, 1, 2, 3, 4, 61, 62, 63}
        sets = activation_matched(self.selection(), loud, 30, seed=1)
        for units in sets:
            assert len(set(units.tolist())) == 4
            assert not named & set(units.tolist())
            layers = np.bincount(units // 60, minlength=3).tolist()
            assert layers in ([2, 2, 0], [3, 1, 0])  # 2.5 and 1.5 units a layer on average, rounded.
            assert (loud.ravel()[units] > 1).all()
        assert len({tuple(units.tolist()) for units in sets}) > 20
        again = activation_matched(self.selection(), loud, 30, seed=1)
        assert all((one == other).all() for one, other in zip(sets, again, strict=True))

    def test_a_stand_in_is_among_the_nearest(self) -> None:
        loud = np.tile(np.arange(60.0), (3, 1))
        selection = Selection("gate", self.SHAPE, ("anger",), (np.array([30]),))
        chosen = {int(units[0]) for units in activation_matched(selection, loud, 200, seed=0)}
        assert chosen == set(range(25, 36)) - {30}
        assert len(chosen) == NEAREST

    def test_loudness_is_the_root_mean_square_over_all_tokens(self) -> None:
        rng = np.random.default_rng(3)
        values = [rng.normal(size=(2, tokens, 6)) for tokens in (3, 5)]
        states = [States(("a", "b"), each, np.zeros((each.shape[1], 2))) for each in values]
        joined = np.concatenate(values, axis=1)
        np.testing.assert_allclose(loudness(states), np.sqrt((joined**2).mean(axis=1)))
        heads = np.sqrt((joined.reshape(2, 8, 3, 2) ** 2).sum(axis=3).mean(axis=1))
        np.testing.assert_allclose(loudness(states, size=2), heads)


def task(**changes: Any) -> AlignmentTask:
    content = yaml.safe_load((ROOT / "tasks/alignments/reference-eeg.yaml").read_text())
    return AlignmentTask.model_validate(content | changes)


@pytest.fixture(scope="module")
def story() -> Story:
    return reference_story(20, segments=2, seed=1)


def spoken(story: Story, seed: int = 0) -> list[States]:
    """States that nobody computed: smooth noise at three points, a token every 80 ms."""
    rng = np.random.default_rng(seed)
    found = []
    for piece in story.pieces:
        tokens = int(piece.seconds / 0.08)
        spans = np.stack([np.arange(tokens) * 0.08, (np.arange(tokens) + 1) * 0.08], axis=1)
        noise = rng.normal(size=(3, tokens + 2, 10))
        values = (noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]) / 3
        found.append(States(("a", "b", "c"), values, spans))
    return found


class TestStudy:
    """A story whose listeners hear states that are made up, so that what an edit destroys is known."""

    def made(self, story: Story, destroyed: Callable[[str, str], bool], **changes: Any) -> tuple[Any, Any]:
        """The study's parts where the units of an emotion destroy the states of the pieces that `destroyed`
        names (emotion, affect of the piece), and random units those of none; `changes` to the task."""
        pytest.importorskip("mne", reason="the extra `eeg` is not installed")
        from affectbench.alignment import study_intervention as study
        from affectbench.alignment.head import head_model
        from affectbench.alignment.work import Workshop

        states, asked = spoken(story), task(**changes)
        ground = SimulatedGround(story, states, Plant(1, 0.3, 8.0), head_model(), 4, 100.0, 0)
        found = study.untouched(
            ground, asked, tuple(range(len(story.pieces))), Reduced.of(states, asked.components)
        )
        workshop = Workshop(self.folder, "units", "one", lambda *_: None, lambda _: None)
        places = study.peaks(workshop, found, 0)
        labels = found.scene.affect.labels
        emotions = tuple(sorted(set(labels) - {BETWEEN, CALM}))
        noise = spoken(story, seed=9)
        edited = [
            [
                study.at_points(found, places, noise[at] if destroyed(emotion, label) else states[at])
                for emotion in ("", *emotions, *[""] * 8)
            ]
            for at, label in enumerate(labels)
        ]
        shared = study.edited(found, places, emotions, dict.fromkeys(KINDS, 4), edited)
        return study.study(workshop, shared, "made-up", 0), (study, shared, places, found)

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def test_units_that_matter_where_speech_is_affective_are_found(self, story: Story) -> None:
        parts, (_, shared, places, _) = self.made(story, lambda emotion, label: emotion == label != "neutral")
        assert {point for _, point in places} == {1}
        assert abs(shared.lags[0] - 0.3) <= 0.05
        findings = {each.name: each for each in parts["findings"]}
        assert findings["affective-more-than-neutral"].value.low > 0.05
        # Neutral pieces lose nothing themselves; destroyed ones are among their mismatches.
        assert abs(findings["neutral"].value.value) < 0.05 * findings["more-than-random"].value.value
        assert findings["contrast-among-draws"].p == pytest.approx(1 / 5)

    def test_layers_below_the_units_are_not_looked_at(self, story: Story) -> None:
        _, (study, _, places, found) = self.made(story, lambda *_: False)
        from affectbench.alignment.work import Workshop

        workshop = Workshop(self.folder, "above", "two", lambda *_: None, lambda _: None)
        assert {point for _, point in places} == {1}  # Where it was planted, layer 0 writes.
        assert {point for _, point in study.peaks(workshop, found, 1)} == {2}

    def test_it_is_so_by_weak_labels_too(self, story: Story) -> None:
        parts, _ = self.made(story, lambda emotion, label: emotion == label, affect="weak")
        findings = {each.name: each for each in parts["findings"]}
        assert findings["affective-more-than-neutral"].value.low > 0.05
        assert abs(findings["neutral"].value.value) < 0.05 * findings["more-than-random"].value.value
        assert parts["n"] == {"subjects": 4, "pieces": 20, "affective": 7, "neutral": 7, "draws": 4}
        assert parts["notes"][0] == WEAK
        (row, _) = next(table for table in parts["tables"] if table.name == "summary").rows
        assert row[-2:] == [None, None]  # One set of units: there are no other emotions.

    def test_units_that_matter_everywhere_show_no_contrast(self, story: Story) -> None:
        parts, _ = self.made(story, lambda emotion, _label: emotion not in ("", "neutral"))
        findings = {each.name: each for each in parts["findings"]}
        lost = findings["more-than-random"].value.value
        assert lost > 0.05
        assert abs(findings["affective-more-than-neutral"].value.value) < 0.4 * lost

    def test_an_effect_is_the_match_less_the_mean_mismatch(self, story: Story) -> None:
        """By each measure itself, pair by pair, from the untouched states."""
        _, (study, shared, places, found) = self.made(story, lambda *_: False)
        from affectbench.alignment.series import Timing, cleaned, cut, gridded

        effects = study.subject_edited(shared, 0)["effects"]
        scene = shared.scene
        eeg = cleaned(scene.ground.recording(0), scene.task.band)
        heard = [replace(each, values=found.reduction(each.values)) for each in spoken(story)]
        states = gridded(heard, scene.timing)
        for place, name in enumerate(study.MEASURES):
            timing = Timing(scene.timing.grid, np.array([shared.lags[place]]), scene.timing.lengths)
            series = cut(eeg, scene.pieces, timing)
            point, one = places[place][1], measure(name, "debiased")
            for piece in (0, 7):
                count = timing.lengths[piece]
                others = [o for o in range(len(states)) if o != piece and timing.lengths[o] >= count]
                mismatch = [one(series[piece][0], states[o][point][:count]) for o in others]
                expected = one(series[piece][0], states[piece][point]) - np.mean(mismatch)
                assert effects[place, 0, piece] == pytest.approx(expected, abs=1e-9)

    def test_a_story_without_neutral_pieces_is_refused(self, story: Story) -> None:
        from affectbench.alignment import study_intervention as study

        ground = SimulatedGround(story, [], Plant(1, 0.3, 1.0), None, 2, 100.0, 0)
        for baseline in ("calm", ""):
            with pytest.raises(AffectbenchError, match=f"no piece is labelled '{baseline}'") as caught:
                study.untouched(ground, task(baseline=baseline), (0, 1), Reduced.of(spoken(story), 2))
            assert "affect: weak" in (caught.value.hint or "")


class TestSuite:
    @pytest.mark.parametrize(
        ("name", "task", "models"),
        [
            ("reference-eeg-units", "reference-eeg", ["", "shuffled 0", "untrained 0"]),
            ("reference-eeg-known", "reference-eeg-affect", ["", "shuffled 0"]),
            ("alice-units", "alice", []),
            ("ds004408-units", "ds004408", []),
        ],
    )
    def test_it_names_what_exists(self, name: str, task: str, models: list[str]) -> None:
        registry = Registry(installed=False)
        suite = registry.alignment_suite(name)
        assert isinstance(suite, AlignmentSuite)
        assert registry.alignment(suite.task).name == task
        assert all(registry.selector(each).control for each in suite.controls)
        assert not any(registry.selector(each).control for each in suite.selectors)
        assert [registry.model(each).control for each in suite.models] == models
        assert registry.alignment_suite("reference-eeg") is None

    @pytest.mark.slow
    def test_it_runs_to_the_board_and_a_selector_that_fails_has_a_row(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        tmp_path: Path,
    ) -> None:
        pytest.importorskip("mne", reason="the extra `eeg` is not installed")
        folder = tmp_path / "tasks" / "alignments"
        folder.mkdir(parents=True)
        (tmp_path / "selectors").mkdir()
        (tmp_path / "selectors" / "broken.py").write_text(
            "from affectbench.selector import Selector\n\n\nclass Broken(Selector):\n    name = 'broken'\n\n"
            "    def scores(self, study):\n        raise RuntimeError('no idea')\n"
        )
        brief = yaml.safe_load((ROOT / "tasks/alignments/reference-eeg.yaml").read_text())
        source = brief["source"] | {"subjects": 2, "sentences": 12}
        (folder / "brief.yaml").write_text(yaml.safe_dump(brief | {"name": "brief", "source": source}))
        suite = {
            "kind": "alignment-suite", "name": "brief-units", "version": 1, "task": "brief", "draws": 2,
            "studies": ["intervention"], "models": ["reference-audio"], "selectors": ["magnitude", "broken"],
            "controls": ["random"],
        }  # fmt: skip
        (folder / "brief-units.yaml").write_text(yaml.safe_dump(suite))
        ask = ("align", "brief-units", "--include", tmp_path, "--output", tmp_path / "out")
        code, _, complaint = run_cli(*ask)
        assert code == 0, complaint
        found, damaged = AnalysisStore(tmp_path / "out").read_all()
        assert not damaged
        (board,) = intervention_boards(found)
        rows = {each.selector: each for each in board.rows}
        assert set(rows) == {"magnitude", "broken", "random"}
        assert "no idea" in rows["broken"].unranked
        assert rows["random"].control
        assert rows["magnitude"].beyond is not None
        _, said, _ = run_cli(*ask)
        assert said.count("was finished before and kept") == 2  # What failed is tried again.
        run_cli("leaderboard", "--results", tmp_path / "out", "--output", tmp_path / "site")
        assert "no idea" in (tmp_path / "site" / "alignment.html").read_text()
