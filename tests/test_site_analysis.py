"""Pages of analyses: what they say, where they lead, and that a build repeats itself."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from example_analyses import EMOTIONS, LAYERS, example_analysis
from example_records import example_record

from affectbench.analysis import Analysis, AnalysisStore, Curve, Mark, Matrix, Series
from affectbench.errors import AffectbenchError
from affectbench.figures_analysis import curve_figure, map_figure, matrix_figure
from affectbench.leaderboard import build_site, build_site_of
from affectbench.site_analysis import by_kind, digits, table_grid, whole_or_digits


def curve(**changes: object) -> Curve:
    content = {
        "name": "c",
        "title": "t",
        "x_label": "layer",
        "y_label": "share",
        "x": [0.0, 1.0, 2.0, 3.0],
        "series": [Series(label="one", values=[0.0, None, 0.5, 1.0])],
    }
    return Curve(**(content | changes))


def elements(figure: str, tag: str, shade: str) -> list[ElementTree.Element]:
    found = ElementTree.fromstring(figure).iter(tag)
    return [each for each in found if shade in (each.get("class") or "").split()]


class TestFigures:
    def test_a_missing_value_breaks_the_line_and_a_lone_one_is_a_dot(self) -> None:
        drawn = curve_figure("c", curve())
        (line,) = elements(drawn, "polyline", "e0")
        assert len((line.get("points") or "").split()) == 2
        assert len(elements(drawn, "circle", "e0")) == 1

    def test_higher_values_stand_higher_and_marks_at_their_x(self) -> None:
        drawn = curve_figure("c", curve(marks=[Mark(label="here", x=2, low=1, high=3)]))
        (line,) = elements(drawn, "polyline", "e0")
        (x2, y2), (x3, y3) = (map(float, at.split(",")) for at in (line.get("points") or "").split())
        assert y3 < y2
        (mark,) = elements(drawn, "line", "mark-line")
        assert float(mark.get("x1") or "nan") == x2
        (band,) = elements(drawn, "rect", "mark-band")
        assert float(band.get("width") or "nan") == pytest.approx(2 * (x3 - x2))

    def test_bands_have_both_ends_of_every_interval(self) -> None:
        series = Series(label="one", values=[0.5] * 4, low=[0.4] * 4, high=[0.6, 0.6, None, 0.6])
        drawn = elements(curve_figure("c", curve(series=[series])), "polygon", "area")
        assert [len((each.get("points") or "").split()) for each in drawn] == [4, 2]

    @pytest.mark.parametrize("values", [[None] * 4, [0.0] * 4, [3.0] * 4, [-2.0] * 4, [1e-9, 0, 0, 0]])
    def test_flat_and_empty_curves_are_drawn(self, values: list[float | None]) -> None:
        drawn = curve_figure("c", curve(series=[Series(label="flat", values=values)]))
        assert ElementTree.fromstring(drawn).get("height") == "302"

    def test_one_x_is_drawn(self) -> None:
        assert "<circle" in curve_figure("c", curve(x=[5.0], series=[Series(label="one", values=[2.0])]))

    def test_colours_of_a_matrix_say_sign_and_size(self) -> None:
        matrix = Matrix(
            name="m", title="t", rows=["a", "b"], columns=["x", "y"], values=[[1.0, -0.5], [0.0, None]],
            scale="diverging",
        )  # fmt: skip
        drawn = ElementTree.fromstring(matrix_figure("m", matrix))
        fields = [group.find("rect") for group in drawn.iter("g")]
        assert [(each.get("class"), each.get("fill-opacity")) for each in fields if each is not None] == [
            ("pos", "1"),
            ("neg", "0.5"),
            ("neg", "0"),
            ("seq", "0"),
        ]
        assert [group.findtext("text") for group in drawn.iter("g")] == ["1.00", "−0.50", "0.00", "–"]

    def test_counts_are_written_as_such(self) -> None:
        matrix = Matrix(name="m", title="t", rows=["a"], columns=["x", "y"], values=[[3.0, None]])
        drawn = ElementTree.fromstring(matrix_figure("m", matrix))
        assert [group.findtext("text") for group in drawn.iter("g")] == ["3", "–"]

    def test_a_wide_matrix_keeps_its_numbers_as_hints(self) -> None:
        names = [f"c{place}" for place in range(30)]
        matrix = Matrix(name="m", title="t", rows=["a"], columns=names, values=[[0.25] * 30])
        drawn = ElementTree.fromstring(matrix_figure("m", matrix))
        assert [group.findtext("title") for group in drawn.iter("g")][:2] == ["a, c0: 0.25", "a, c1: 0.25"]
        assert all(group.find("text") is None for group in drawn.iter("g"))

    def test_the_nose_is_on_top_and_the_right_ear_on_the_right(self) -> None:
        (found,) = example_analysis().maps
        changed = found.model_copy(
            update={"points": ["nose", "ear"], "x": [0.0, 1.0], "y": [1.0, 0.0], "values": [[1.0, 1.0]] * 2}
        )
        rings = elements(map_figure("m", changed), "circle", "ring")
        (nose, ear), skull = rings[:2], elements(map_figure("m", changed), "circle", "skull")[0]
        centre = float(skull.get("cx") or 0), float(skull.get("cy") or 0)
        assert float(nose.get("cx") or 0) == centre[0]
        assert float(nose.get("cy") or 0) < centre[1]
        assert float(ear.get("cx") or 0) > centre[0]

    def test_names_cannot_be_markup(self) -> None:
        odd = curve(series=[Series(label="<b>&", values=[1.0] * 4)], marks=[Mark(label="<i>", x=1)])
        assert "<b>" not in curve_figure("c", odd)
        assert "<i>" not in curve_figure("c", odd)


class TestNumbers:
    def test_digits_never_hide_a_number(self) -> None:
        assert [digits(value) for value in (0, 0.1234, 0.00012, 123456.0, -0.5)] == [
            "0.000", "0.123", "0.00012", "1.23e+05", "−0.500",
        ]  # fmt: skip
        assert [whole_or_digits(value) for value in (8.0, 8.25)] == ["8", "8.250"]

    def test_cells_hold_what_they_are_sorted_by(self) -> None:
        (table,) = example_analysis().tables
        found = table_grid(table)
        assert [cell.order for cell in found.rows[0]] == ["", "2", "0.2", ""]
        assert found.rows[0][2].interval == "[0.100, 0.400]"
        assert found.rows[0][3].text == "–"


class TestPages:
    def build(self, output: Path, *analyses: Analysis) -> Path:
        build_site([example_record(bootstrap_draws=100)], output, analyses=analyses)
        return output

    def test_a_page_holds_every_part_and_every_number(self, tmp_path: Path) -> None:
        found = example_analysis()
        site = self.build(tmp_path / "site", found)
        page = (site / "analyses" / f"{found.name}.html").read_text()
        assert page.count('<svg class="figure') == 3
        for part in (*found.curves, *found.matrices, *found.maps, *found.tables):
            assert part.title in page
        assert all(f'<th scope="row">{layer}</th>' in page for layer in range(LAYERS))
        assert all(emotion in page for emotion in EMOTIONS)
        assert "[7, 9]" in page
        assert "p = 0.012" in page
        stored = json.loads((site / "analyses" / f"{found.name}.json").read_text())
        assert stored == json.loads(found.canonical())

    def test_pages_of_model_task_and_index_lead_to_it_and_back(self, tmp_path: Path) -> None:
        found = example_analysis()
        site = self.build(tmp_path / "site", found)
        for page, root in (
            ("analyses.html", ""),
            ("models/reference-text.html", "../"),
            ("tasks/reference-text.html", "../"),
        ):
            assert f'href="{root}analyses/{found.name}.html"' in (site / page).read_text()
        page = (site / "analyses" / f"{found.name}.html").read_text()
        assert 'href="../models/reference-text.html"' in page
        assert 'href="../tasks/reference-text.html"' in page

    def test_a_model_without_a_page_is_named_and_not_linked(self, tmp_path: Path) -> None:
        found = example_analysis("another", "other-task")
        site = self.build(tmp_path / "site", found)
        page = (site / "analyses" / f"{found.name}.html").read_text()
        assert "another" in page
        assert "models/another.html" not in page
        assert "tasks/other-task.html" not in page

    def test_a_site_without_any_says_how_to_get_one(self, tmp_path: Path) -> None:
        assert "No analyses yet" in (self.build(tmp_path / "site") / "analyses.html").read_text()

    def test_the_same_analyses_in_another_order_and_over_an_old_site_give_the_same_bytes(
        self, tmp_path: Path
    ) -> None:
        found = [example_analysis(), example_analysis("small-text"), example_analysis(seed=1)]
        one = self.build(tmp_path / "one", *found)
        other = self.build(self.build(tmp_path / "other", found[0]), *found[::-1])
        files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
        assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)

    def test_a_page_is_made_again_when_its_model_gets_a_page(self, tmp_path: Path) -> None:
        found = example_analysis()
        build_site([], tmp_path / "site", analyses=[found])
        page = tmp_path / "site" / "analyses" / f"{found.name}.html"
        assert "models/reference-text.html" not in page.read_text()
        self.build(tmp_path / "site", found)
        assert "models/reference-text.html" in page.read_text()

    def test_texts_of_an_analysis_are_no_markup(self, tmp_path: Path) -> None:
        odd = "<script>alert(1)</script>"
        found = example_analysis(title=odd, notes=[odd], description=odd)
        site = self.build(tmp_path / "site", found)
        for page in site.rglob("*.html"):
            assert "<script>alert" not in page.read_text()

    def test_kinds_are_in_order_and_within_them_models(self) -> None:
        found = [example_analysis("b"), example_analysis("a"), example_analysis("c", kind="an-other")]
        assert [(kind, [each.model for each in own]) for kind, own in by_kind(found)] == [
            ("an-other", ["c"]),
            ("feature-flow", ["a", "b"]),
        ]


class TestFolders:
    def test_a_folder_with_analyses_alone_gives_a_site_and_damage_is_listed(self, tmp_path: Path) -> None:
        store = AnalysisStore(tmp_path / "results")
        found = example_analysis()
        store.write(found)
        bad = store.write(example_analysis("small-text"))
        bad.write_text(bad.read_text().replace("layer 8", "layer 9"))
        site = build_site_of([tmp_path / "results"], tmp_path / "site")
        assert (tmp_path / "site" / "analyses" / f"{found.name}.html").is_file()
        assert [item.path for item in site.damaged] == [bad]
        assert "edited by hand" in (tmp_path / "site" / "index.html").read_text()

    def test_two_folders_that_disagree_are_an_error_and_keep_the_old_site(self, tmp_path: Path) -> None:
        found = example_analysis()
        AnalysisStore(tmp_path / "one").write(found)
        build_site_of([tmp_path / "one"], tmp_path / "site")
        AnalysisStore(tmp_path / "other").write(found.model_copy(update={"title": "Other"}))
        with pytest.raises(AffectbenchError, match="two analyses are called"):
            build_site_of([tmp_path / "one", tmp_path / "other"], tmp_path / "site")
        assert (tmp_path / "site" / "analyses" / f"{found.name}.html").is_file()
