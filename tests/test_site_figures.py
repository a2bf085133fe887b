"""Figures and numbers of the site, against positions worked out by hand."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from affectbench import figures
from affectbench.figures_parts import Axis
from affectbench.score_models import Estimate
from affectbench.site_format import Scale, bar, number, p_value, spread


def test_numbers_have_a_true_minus_and_no_negative_zero() -> None:
    assert number(-0.1234) == "−0.123"
    assert number(-0.0001) == "0.000"
    assert number(None) == "–"
    assert p_value(0.0004) == "<0.001"
    assert p_value(0.05) == "0.050"
    assert spread([0.5, None, 0.50001]) == "0.500"


def test_bars_place_value_interval_and_zero_on_the_axis() -> None:
    found = bar(Estimate(value=0.5, low=0.25, high=0.75), Scale(-1, 1))
    assert found is not None
    assert (found.start, found.width, found.at, found.zero) == (62.5, 25.0, 75.0, 50.0)
    bare = bar(Estimate(value=0.5), Scale(-1, 1))
    assert bare is not None
    assert (bare.width, bare.interval) == (0, "no interval")


def test_axis_ticks_are_round_and_inside() -> None:
    assert Axis(0, 1, 0, 100).ticks() == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert Axis(-0.13, 0.42, 0, 100).ticks() == [0, 0.2, 0.4]


def test_effect_colours_tell_gains_from_losses_and_grow_with_size() -> None:
    svg = ElementTree.fromstring(
        figures.effect_matrix("m", "t", ["a", "b"], [[-0.5, 0.25], [0.0, -0.1]], 0.5)
    )
    cells = [rect for rect in svg.iter("rect") if rect.get("class") in ("pos", "neg")][:4]
    assert [(rect.get("class"), float(rect.get("fill-opacity", "nan"))) for rect in cells] == [
        ("neg", 1.0),
        ("pos", 0.5),
        ("neg", 0.0),
        ("neg", 0.2),
    ]


def test_dose_curve_starts_at_no_change_and_rises_with_the_shift() -> None:
    points = [
        figures.CurvePoint(alpha, alpha + 1, Estimate(value=shift, low=shift, high=shift), [shift], False)
        for alpha, shift in ((1.0, 0.1), (2.0, 0.4))
    ]
    svg = ElementTree.fromstring(figures.dose_curve("c", "t", ["a"], points))
    line = next(p for p in svg.iter("polyline") if p.get("class") == "mean")
    at = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
    assert len(at) == 3
    (x0, y0), (x1, y1), (x2, y2) = at
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.2)
    assert (y0 - y2) == pytest.approx(4 * (y0 - y1), abs=0.5)
