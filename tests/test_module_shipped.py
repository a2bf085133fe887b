"""The shipped pair, and the selectors of modules on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from affectbench import module_ranking
from affectbench.answering import Answering
from affectbench.cell import CellRun
from affectbench.controls import parameter_matched
from affectbench.dataset import load_benchmark
from affectbench.errors import AffectbenchError
from affectbench.evidence import Evidence
from affectbench.intervention import UNTOUCHED, add, scale
from affectbench.model_loading import load_from
from affectbench.module_cell import module_findings, sizes_of
from affectbench.module_loading import attach_adaptation
from affectbench.module_types import TYPES
from affectbench.outcomes import ADAPTED
from affectbench.plan import checkpoint_of
from affectbench.recipes import text_adapted
from affectbench.record import Cell
from affectbench.registry import Registry
from affectbench.selector import Selection
from affectbench.session import Session
from affectbench.sites import MODULE
from affectbench.study import Study
from affectbench.targets import Dosing, target_of

SHIPPED = Path(__file__).resolve().parent.parent / "models/reference/reference-text-adapted"


class TestShipped:
    """The shipped pair, and selectors on it."""

    @pytest.fixture(scope="class")
    def session(self) -> Session:
        registry = Registry(installed=False)
        card = registry.model("reference-text-adapted")
        model = load_from(registry, card, checkpoint_of(card), "cpu")
        attach_adaptation(registry, card, model)
        benchmark = registry.benchmark("reference-narratives")
        return Session(model, benchmark, load_benchmark(benchmark, limit=3), registry.benchmark)

    @pytest.fixture(scope="class")
    def base_session(self) -> Session:
        registry = Registry(installed=False)
        card = registry.model("reference-text-base")
        model = load_from(registry, card, checkpoint_of(card), "cpu")
        attach_adaptation(registry, card, model)
        benchmark = registry.benchmark("reference-narratives")
        return Session(model, benchmark, load_benchmark(benchmark, limit=8), registry.benchmark)

    def study(self, session: Session) -> Study:
        found = session.items("identification")
        nothing = Evidence(
            session.benchmark.labels, MODULE, "answer", session.model.site_shape(MODULE), np.full(7, 3),
            np.ones(7), {},
        )  # fmt: skip
        return Study(
            nothing, nothing, found, session.readout, 0,
            lambda edits: session.engine.predict(found, session.readout, edits), engine=session.engine,
        )  # fmt: skip

    def select(self, session: Session, name: str) -> Selection:
        selector = Registry(installed=False).selector(name)()
        return selector.select(self.study(session), 4)

    @pytest.mark.parametrize("kind", ["q", "k", "v", "o", "gate", "up", "down"])
    def test_a_type_is_all_its_layers_for_every_emotion(self, session: Session, kind: str) -> None:
        found = self.select(session, f"module_{kind}")
        place = ("q", "k", "v", "o", "gate", "up", "down").index(kind)
        assert [units.tolist() for units in found.units] == [[7 * layer + place for layer in range(4)]] * 7

    @pytest.mark.parametrize(
        ("group", "places"),
        [
            ("attn", (0, 1, 2, 3)),
            ("mlp", (4, 5, 6)),
            ("all", tuple(range(7))),
            ("gate_down", (4, 6)),
            ("up_down", (5, 6)),
            ("attn_gate", (0, 1, 2, 3, 4)),
            ("attn_up_down", (0, 1, 2, 3, 5, 6)),
        ],
    )
    def test_a_group_is_all_its_types_and_its_controls_have_as_many_parameters(
        self, session: Session, group: str, places: tuple[int, ...]
    ) -> None:
        found = self.select(session, f"module_{group}")
        expected = [7 * layer + place for layer in range(4) for place in places]
        assert [units.tolist() for units in found.units] == [expected] * 7
        sizes = np.tile(found.shape.parameters, found.shape.layers)
        own = sizes[expected].sum()
        drawn = [sizes[units].sum() for units in parameter_matched(found, 20, 0)]
        assert all(0.97 * own <= total <= own for total in drawn)

    def test_a_cell_takes_a_group_whole_and_bounds_others(self, session: Session) -> None:
        protocol = Registry(installed=False).intervention("module-reset")
        study = self.study(session)

        def selected(name: str) -> Selection:
            selector = Registry(installed=False).selector(name)()
            cell = Cell(
                model="m", task="t", selector=name, intervention=protocol.name, fraction=0.143, seed=0,
                site=MODULE, positions="all",
            )  # fmt: skip
            plan = SimpleNamespace(selector=selector, cell=cell, protocol=protocol)
            return CellRun._select(SimpleNamespace(plan=plan), study)

        assert selected("module_attn").units[0].size == 16
        assert selected("module_change").units[0].size == 4

    def test_change_ranks_by_the_relative_norm(self, session: Session) -> None:
        found = self.select(session, "module_change").units[0]
        relative = session.model.weight_changes.changes("relative").ravel()
        assert found.tolist() == np.argsort(-relative)[:4].tolist()

    def test_causal_ranks_by_what_a_reset_takes_from_an_emotion_alone(self, session: Session) -> None:
        found, study = self.select(session, "module_causal"), self.study(session)
        resets = [scale(MODULE, study.shape, np.array([unit]), 0.0) for unit in range(study.shape.units)]
        scores = study.predict([UNTOUCHED, *resets]).scores.astype(np.float64)
        gold = study.items.gold
        drops = []
        for item, label in enumerate(gold):
            drop = scores[0, item] - scores[1:, item]
            drops.append(drop[:, label] - np.delete(drop, label, axis=1).mean(axis=1))
        means = np.stack([np.stack(drops)[gold == label].mean(axis=0) for label in range(7)])
        for label in range(7):
            own = means[label] - np.delete(means, label, axis=0).mean(axis=0)
            np.testing.assert_allclose(found.scores[label], own, rtol=1e-4, atol=1e-5)

    def test_causal_ranks_the_base_by_what_a_change_gives(self, base_session: Session) -> None:
        found, study = self.select(base_session, "module_causal"), self.study(base_session)
        shape, gold = study.shape, study.items.gold
        gains = [add(MODULE, shape, np.array([unit]), np.ones(1)) for unit in range(shape.units)]
        scores = study.predict([UNTOUCHED, *gains]).scores.astype(np.float64)
        gained = scores[1:] - scores[0]
        own = np.stack([gained[:, item, label] for item, label in enumerate(gold)])
        effects = own - (gained.sum(axis=2).T - own) / 6
        means = np.stack([effects[gold == label].mean(axis=0) for label in range(7)])
        expected = means - (means.sum(axis=0) - means) / 6
        np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5)

    def test_all_modules_recover_everything_and_none_nothing(self, base_session: Session) -> None:
        protocol = Registry(installed=False).intervention("module-transfer")
        shape, labels = base_session.model.site_shape(MODULE), base_session.benchmark.labels
        asking, items = Answering(base_session, Dosing(protocol, {})), base_session.items("test")
        whole = asking.adapted(items, labels)
        assert (whole.base == items.gold).mean() > 0.5
        for units, recovered in ((np.arange(shape.units), 1.0), (np.arange(0), 0.0)):
            chosen = Selection(MODULE, shape, labels, (units,) * 7)
            draws = [target_of(MODULE, shape, np.arange(0), None)]
            found = asking.outcomes(items, chosen, draws, [("amplify", 1.0)])
            answers = {"test": found, ADAPTED: whole}
            (share,) = module_findings(sizes_of(chosen, None), answers, [], seed=0).recovery
            assert share.share is not None
            assert share.share.value == recovered
            assert share.random is not None
            assert share.random.value == 0

    def test_the_control_groups_the_same_effects_by_other_items_labels(self, session: Session) -> None:
        study, found = self.study(session), self.select(session, "module_shuffled")
        groups = study.rng("module_shuffled").permutation(study.items.gold)
        assert not np.array_equal(groups, study.items.gold)
        resets = [scale(MODULE, study.shape, np.array([unit]), 0.0) for unit in range(study.shape.units)]
        scores = study.predict([UNTOUCHED, *resets]).scores.astype(np.float64)
        drops = scores[0] - scores[1:]
        own = np.stack([drops[:, item, label] for item, label in enumerate(study.items.gold)])
        effects = own - (drops.sum(axis=2).T - own) / 6
        means = np.stack([effects[groups == label].mean(axis=0) for label in range(7)])
        expected = means - (means.sum(axis=0) - means) / 6
        np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5)

    def test_a_type_that_is_not_there_is_named(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module_ranking.ModuleType, "kind", "experts", raising=False)
        with pytest.raises(AffectbenchError, match="module type 'experts' does not exist"):
            module_ranking.ModuleType().select(self.study(session), 4)

    def test_it_is_what_its_recipe_says(self) -> None:
        summary = json.loads((SHIPPED / "adaptation.json").read_text())
        plan = text_adapted.Plan(TYPES, text_adapted.RANK, text_adapted.RATE, 0)
        assert summary["plan"] == json.loads(json.dumps(asdict(plan)))
        assert summary["budget"] == asdict(text_adapted.BUDGET)

    @pytest.mark.slow
    def test_it_names_emotions_and_nothing_else(self) -> None:
        found = text_adapted.figures(SHIPPED)
        card = (SHIPPED / "README.md").read_text(encoding="utf-8")
        assert found["uar.narratives.adapted"] > 75
        assert max(value for name, value in found.items() if name != "uar.narratives.adapted") < 25
        assert all(f"{value:.1f} %" in card for value in found.values())
