"""The board of units switched off under EEG, made of stored analyses alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from example_analyses import example_analysis, units_off
from scipy.stats import false_discovery_control

from affectbench.analysis import Analysis, Finding
from affectbench.leaderboard import build_site
from affectbench.score_models import Estimate
from affectbench.site_alignment import intervention_boards


class TestBoard:
    def rows(self) -> list[Analysis]:
        low = (0.04, 0.05, 0.048)
        return [
            units_off("best", (0.3, 0.25, 0.35), low),
            units_off("second", (0.1, 0.05, 0.15), low),
            units_off("same-as-second", (0.08, 0.04, 0.12), low),
            units_off("less", (-0.2, -0.3, -0.1), low),
            units_off("as-random", (0.2, 0.1, 0.3), (0.04, 0.05, 0.3)),
            units_off("noise", (0.2, -0.1, 0.3), (0.5, 0.01, 0.01)),
            units_off("random", (0.4, 0.3, 0.5), low, control="selector"),
            units_off("best-shuffled", (0.0, -0.1, 0.1), low, control="model"),
        ]

    def test_ranks_are_for_what_holds_against_every_control(self) -> None:
        (board,) = intervention_boards(self.rows())
        ranked = [(each.selector, each.rank, each.tied) for each in board.rows if each.rank is not None]
        assert ranked == [("best", 1, False), ("second", 2, True), ("same-as-second", 2, True)]
        reasons = {each.selector: each.unranked for each in board.rows if each.rank is None}
        assert reasons["less"] == "not above 0"
        assert reasons["as-random"] == "as random units"
        assert reasons["noise"] == "not told from 0"
        assert reasons["random"] == "control: selector"
        assert reasons["best-shuffled"] == "control: weights"

    def test_numbers_are_shares_of_the_untouched_alignment(self) -> None:
        (board,) = intervention_boards(self.rows())
        best = board.rows[0]
        for found in (best.beyond, best.lost("own, affective"), best.other("RSA, Spearman")):
            assert found == Estimate(value=60.0, low=50.0, high=70.0)
        assert best.lost("as loud, neutral") is None

    def test_a_model_that_does_not_align_has_nothing_to_lose(self) -> None:
        none = units_off("nothing", (0.3, 0.25, 0.35), (0.01, 0.01, 0.01), aligned=-0.1)
        (board,) = intervention_boards([*self.rows(), none])
        found = next(each for each in board.rows if each.selector == "nothing")
        assert (found.rank, found.unranked, found.beyond) == (None, "not aligned", None)

    def test_units_of_any_emotion_are_not_those_of_one(self) -> None:
        low = (0.01, 0.01, 0.01)
        any_emotion = units_off("any", (0.3, 0.25, 0.35), low, others=-0.01)
        weak = units_off(
            "weak", (0.3, 0.25, 0.35), low, others=None
        )  # One set for all emotions: nothing to tell.
        (board,) = intervention_boards([any_emotion, weak])
        found = {each.selector: each.unranked for each in board.rows}
        assert found == {"any": "as other emotions", "weak": ""}

    def test_a_known_answer_is_announced(self, tmp_path: Path) -> None:
        known = units_off("best", (0.3, 0.25, 0.35), (0.01, 0.01, 0.01), answer_known=True)
        build_site([], tmp_path / "site", analyses=[known])
        assert "Calibration with a known answer." in (tmp_path / "site" / "alignment.html").read_text()
        build_site([], tmp_path / "site", analyses=self.rows())
        assert "known answer" not in (tmp_path / "site" / "alignment.html").read_text()

    def test_p_is_corrected_for_rows_that_are_no_controls(self) -> None:
        (board,) = intervention_boards(self.rows())
        found = {each.selector: each.corrected for each in board.rows}
        assert found["random"] is None
        own = ["best", "second", "same-as-second", "less", "as-random", "noise"]
        expected = false_discovery_control([0.04, 0.04, 0.04, 0.04, 0.04, 0.5])
        np.testing.assert_allclose([found[each] for each in own], expected)

    def test_what_does_not_compare_stands_apart(self) -> None:
        other = units_off("best", (0.3, 0.25, 0.35), (0.04, 0.05, 0.04))
        settings = {**other.settings, "draws": 5}
        assert len(intervention_boards([*self.rows(), other.model_copy(update={"settings": settings})])) == 2

    def test_recordings_of_people_are_no_simulation_and_stand_apart(self, tmp_path: Path) -> None:
        simulated = units_off("best", (0.3, 0.25, 0.35), (0.04, 0.05, 0.04))
        hashes = simulated.hashes.model_copy(update={"inputs": {"recordings": "r" * 16}})
        heard = simulated.model_copy(update={"hashes": hashes, "instrument": False, "name": "heard"})
        boards = intervention_boards([simulated, heard])
        assert sorted((board.simulated, board.instrument) for board in boards) == [
            (False, False),
            (True, True),
        ]
        build_site([], tmp_path / "site", analyses=[heard])
        assert "listeners are simulated" not in (tmp_path / "site" / "alignment.html").read_text()
        build_site([], tmp_path / "site", analyses=[simulated])
        assert "listeners are simulated" in (tmp_path / "site" / "alignment.html").read_text()

    def test_a_selector_without_units_has_a_row_and_a_reason(self) -> None:
        failed = units_off("broken", (0, 0, 0), (1, 1, 1)).model_copy(
            update={"tables": [], "findings": [Finding(name="error", text="No units of broken: 3 items")]}
        )
        (board,) = intervention_boards([*self.rows(), failed])
        assert board.rows[-1].selector == "broken"
        assert board.rows[-1].unranked == "No units of broken: 3 items"

    def test_the_page_has_every_row_and_says_why_one_is_not_ranked(self, tmp_path: Path) -> None:
        found = self.rows()
        build_site([], tmp_path / "site", analyses=found)
        page = (tmp_path / "site" / "alignment.html").read_text()
        for each in found:
            assert f'href="analyses/{each.name}.html"' in page
        assert page.count('class="badge control"') == 2
        assert '<td class="name">as random units</td>' in page
        assert 'href="alignment.html"' in (tmp_path / "site" / "index.html").read_text()

    def test_names_cannot_be_markup(self, tmp_path: Path) -> None:
        evil = "<script>alert(1)</script>"
        found = units_off(evil, (0.3, 0.2, 0.4), (0.01, 0.01, 0.01), protocol=evil)
        failed = units_off("broken", (0, 0, 0), (1, 1, 1), protocol=evil).model_copy(
            update={"tables": [], "findings": [Finding(name="error", text=evil)], "task": evil}
        )
        build_site([], tmp_path / "site", analyses=[found, failed])
        page = (tmp_path / "site" / "alignment.html").read_text()
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page

    def test_simulated_alignment_of_models_is_marked(self, tmp_path: Path) -> None:
        for instrument in (True, False):
            found = example_analysis(kind="eeg-alignment", instrument=instrument)
            build_site([], tmp_path / "site", analyses=[found])
            page = (tmp_path / "site" / "alignment.html").read_text()
            assert ("no evidence about people" in page) == instrument

    def test_a_site_without_alignment_says_how_to_get_it(self, tmp_path: Path) -> None:
        build_site([], tmp_path / "site")
        assert "No alignment yet" in (tmp_path / "site" / "alignment.html").read_text()
