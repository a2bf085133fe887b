"""A calibration of the board of units switched off: listeners who hear planted emotion units."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from e2e_content import Outcome, run_cli  # noqa: F401

pytest.importorskip("mne", reason="the extra `eeg` is not installed")

from affectbench.alignment.contribution import contributions
from affectbench.alignment.features import States
from affectbench.alignment.listening import heard
from affectbench.alignment.simulation import Plant, drive
from affectbench.alignment.speech import Piece
from affectbench.alignment.story import Story, reference_story
from affectbench.alignment_task import AlignmentTask
from affectbench.analysis import AnalysisStore
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.model_loading import load_from
from affectbench.plan import checkpoint_of
from affectbench.registry import Registry
from affectbench.site_alignment import intervention_boards

ROOT = Path(__file__).resolve().parent.parent
PLANTED = ROOT / "models/reference/reference-audio/planted.json"
SELECTOR = """
import json
import numpy as np
from affectbench.selector import Selection, Selector


class {title}(Selector):
    name = "{name}"

    def select(self, study, budget):
        units = json.load(open({path!r}))["{name}"]
        chosen = tuple(np.sort(units[label]) for label in study.labels)
        return Selection(study.site, study.shape, tuple(study.labels), chosen)
"""


@pytest.fixture(scope="module")
def engine() -> Engine:
    registry = Registry(installed=False)
    card = registry.model("reference-audio")
    return Engine(load_from(registry, card, checkpoint_of(card), "cpu"))


@pytest.fixture(scope="module")
def story() -> Story:
    return reference_story(10, segments=1, seed=2)


class TestContributions:
    def test_they_are_what_goes_missing_with_the_units_weights(self, engine: Engine, story: Story) -> None:
        """The oracle: the same forward pass with the columns of `down_proj` set to nought by hand."""
        pieces = story.pieces[:4]
        whole = [each for (each,) in heard(engine, pieces, story.sounds, "residual")]
        found = contributions(engine, pieces, story.sounds, whole, "neutral")
        truth = json.loads(PLANTED.read_text())
        width = truth["width"]
        for place, piece in enumerate(pieces):
            if piece.label == "neutral":
                assert found[place] is whole[place]
                continue
            layers = [layer.mlp.down_proj.weight for layer in engine.model.layers]
            kept = [weight.detach().clone() for weight in layers]
            with torch.no_grad():
                for unit in truth["planted"][piece.label]:
                    layers[unit // width][:, unit % width] = 0
                ((without,),) = heard(engine, [piece], story.sounds, "residual")
                for weight, before in zip(layers, kept, strict=True):
                    weight.copy_(before)
            missing = whole[place].values - without.values
            np.testing.assert_allclose(found[place].values, missing, atol=1e-5)
            lowest = min(truth["planted"][piece.label]) // width
            assert not found[place].values[: lowest + 1].any()
            assert np.abs(found[place].values[-1]).max() > 0.01

    def test_a_model_with_nothing_planted_and_an_emotion_without_units_are_refused(
        self, engine: Engine, story: Story
    ) -> None:
        states = [States(("a",), np.zeros((1, 2, 3)), np.zeros((2, 2)))] * len(story.pieces)
        with pytest.raises(AffectbenchError, match="no planted units of 'calm'"):
            contributions(engine, renamed(story, "calm"), story.sounds, states, "neutral")
        registry = Registry(installed=False)
        card = registry.model("reference-audio-untrained")
        blank = Engine(load_from(registry, card, checkpoint_of(card), "cpu"))
        with pytest.raises(AffectbenchError, match="untrained has no planted units"):
            contributions(blank, story.pieces, story.sounds, states, "neutral")

    def test_a_task_of_them_needs_a_baseline(self) -> None:
        content = yaml.safe_load((ROOT / "tasks/alignments/reference-eeg-affect.yaml").read_text())
        assert AlignmentTask.model_validate(content).answer_known
        with pytest.raises(ValueError, match="planted-units"):
            AlignmentTask.model_validate({k: v for k, v in content.items() if k != "baseline"})

    def test_a_task_without_them_has_the_identity_it_had(self) -> None:
        task = Registry(installed=False).alignment("reference-eeg")
        assert not task.answer_known
        assert "drive" not in task.model_dump(mode="json")["source"]


def renamed(story: Story, label: str) -> list[Piece]:
    return [replace(piece, label=label) for piece in story.pieces]


class TestGroups:
    def test_each_has_the_same_power_whatever_its_scale(self, story: Story) -> None:
        rng = np.random.default_rng(0)
        states, labels = [], [piece.label for piece in story.pieces]
        for piece in story.pieces:
            tokens = int(piece.seconds / 0.08)
            spans = np.stack([np.arange(tokens) * 0.08, (np.arange(tokens) + 1) * 0.08], axis=1)
            size = 1.0 if piece.label == "neutral" else 1e-3
            states.append(States(("a",), size * rng.normal(size=(1, tokens, 12)), spans))
        plant, rate = Plant(0, 0.3, 1.0, components=4), 100.0

        def power(groups: list[str] | None, label: str) -> float:
            signal = drive(story, states, plant, rate, groups)
            own = [piece for piece in story.pieces if piece.label == label]
            parts = [signal[:, round(each.start * rate) :][:, : round(each.seconds * rate)] for each in own]
            return float((np.concatenate(parts, axis=1) ** 2).sum(axis=0).mean())

        for label in set(labels):
            assert power(labels, label) == pytest.approx(1.0, rel=0.05)
        assert power(None, labels[0]) < 0.01 * power(None, "neutral")


class TestKnownAnswer:
    @pytest.mark.slow
    def test_planted_units_are_ranked_and_their_decoys_are_not(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        tmp_path: Path,
    ) -> None:
        (tmp_path / "selectors").mkdir()
        for name in ("planted", "decoys"):
            code = SELECTOR.format(name=name, title=name.title(), path=str(PLANTED))
            (tmp_path / "selectors" / f"{name}.py").write_text(code)
        suite = yaml.safe_load((ROOT / "tasks/alignments/reference-eeg-known.yaml").read_text())
        suite |= {"name": "own", "selectors": ["planted", "decoys"], "controls": ["shuffled_labels"]}
        suite["models"] = ["reference-audio"]
        (tmp_path / "tasks" / "alignments").mkdir(parents=True)
        (tmp_path / "tasks" / "alignments" / "own.yaml").write_text(yaml.safe_dump(suite))
        code, _, complaint = run_cli("align", "own", "--include", tmp_path, "--output", tmp_path / "out")
        assert code == 0, complaint
        found, _ = AnalysisStore(tmp_path / "out").read_all()
        (board,) = intervention_boards(found)
        assert board.answer_known
        rows = {each.selector: each for each in board.rows}
        planted, decoys = rows["planted"], rows["decoys"]
        assert (planted.rank, planted.unranked) == (1, "")
        assert planted.beyond is not None
        assert planted.beyond.low > 1  # Percent of the untouched alignment.
        assert planted.p("p, draws") == planted.p("p, as loud") == pytest.approx(1 / 21)
        neutral, specific = planted.lost("own, neutral"), planted.lost("beyond other emotions")
        assert neutral is not None
        assert neutral.value < planted.beyond.value / 4
        assert specific is not None
        assert specific.low > 0
        assert decoys.rank is None
        assert decoys.beyond is not None
        assert decoys.beyond.value < planted.beyond.value / 4
        # It names planted units of any emotion: no other emotion's units take less.
        blind = rows["shuffled_labels"].lost("beyond other emotions")
        assert blind is not None
        assert blind.low < 0
