"""Figures draw what they are given, in words too, and survive the odd cases."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.pages.charts import Estimate, Line, Mark, estimates_chart, histogram, interval_bar, line_chart, nice_ticks, reliability_chart, scatter_chart


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 6, [0, 2, 4, 6]),
        (0.26, 1.3, [0, 0.5, 1, 1.5]),
        (-0.5, 0.5, [-0.5, 0, 0.5]),
        (3, 3, [1, 2, 3, 4, 5]),  # no span: one is made around the value
        (0, 0, [-0.5, 0, 0.5]),
    ],
)
def test_nice_ticks(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_enclose_and_are_few(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    slack = (ticks[1] - ticks[0]) * 1e-6
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 7


def test_a_line_runs_from_corner_to_corner() -> None:
    svg = line_chart([Line("score", [(1, 0.0), (3, 4.0)])], label="Score")
    assert 'd="M0,160 L1000,0"' in svg  # lowest tick to highest, first update to last
    assert "score from 0 at update 1 to 4 at update 3" in svg


def test_one_point_and_flat_lines_are_drawn() -> None:
    assert 'd="M500,' in line_chart([Line("score", [(1, 2.0)])], label="Score")
    assert "nan" not in line_chart([Line("score", [(1, 2.0), (2, 2.0)])], label="Score", from_zero=True)


def test_a_line_may_have_a_style_and_a_band_of_its_own() -> None:
    svg = line_chart([Line("score", [(0, 0.0), (10, 4.0)], style="gold", band=[(0, -1.0, 1.0), (10, 3.0, 5.0)])], label="Score", height=80)
    assert 'class="curve main gold"' in svg
    assert 'class="dot main gold"' in svg
    assert 'class="curve band gold" d="M0,50 L1000,10 L1000,30 L0,70"' in svg  # from -2 to 6, the ticks around the band, 80 pixels: 10 each
    assert 'class="curve main gold" d="M0,60 L1000,20"' in svg


def test_a_strength_is_drawn_in_powers_of_ten() -> None:
    svg = line_chart([Line("loss", [(0.01, 3.0), (0.1, 1.0), (10, 2.0)], marked=1)], label="Loss", x_name="L2", log_x=True)
    assert 'd="M0,0 L333.33,160 L1000,80"' in svg
    assert 'cx="33.33%"' in svg


def test_points_stand_in_a_plane_with_their_names_inside_it() -> None:
    svg = scatter_chart([Mark("a", 0.0, 0.0), Mark("b", 4.0, 2.0, (1.0, 3.0), "hollow")], label="Score", x_name="KL", curve=[(0, 0), (4, 2)], height=100)
    assert 'd="M0,100 L1000,33.33"' in svg  # y from 0 to 3, the end of the whisker
    assert '<line class="whisker thin hollow" x1="100%" x2="100%" y1="0" y2="66.67"/>' in svg
    assert 'dx="10" dy="0.35em" text-anchor="start">a</text>' in svg
    assert 'dx="-10" dy="0.35em" text-anchor="end">b</text>' in svg
    assert 'aria-label="Score: a: 0 at KL 0; b: 2 at KL 4"' in svg
    assert "nan" not in scatter_chart([Mark("a", 1.0, 1.0)], label="Score", x_name="KL", curve=[(1, 1)])


def test_a_histogram_has_a_bar_for_each_bin() -> None:
    svg = histogram([-1, 0, 1, 2], [1, 3, 0], label="Scores")
    assert svg.count("<rect") == 3
    assert "−1 to 0: 1" in svg
    assert "4 in all" in svg


def test_a_histogram_s_line_has_numbers_on_both_sides() -> None:
    svg = histogram([-4.2, -1, 2.6], [1, 3], label="Scores")
    assert all(f">{tick}<" in svg for tick in ("−4", "−2", "0", "2"))


def test_reliability_says_its_counts() -> None:
    svg = reliability_chart([(0.2, 0.25, 40), (0.8, 0.75, 10)], label="Reliability")
    assert svg.count("<circle") == 2
    assert "20\u202f% predicted, 25\u202f% observed, n = 40" in svg


def test_an_interval_bar_stays_on_its_line() -> None:
    svg = interval_bar(0.5, -0.2, 1.4, label="x")
    assert all(0 <= float(place) <= 100 for place in re.findall(r'"([-\d.]+)%"', svg))
    assert 'class="span"' not in interval_bar(0.5, None, None, label="x")


def test_labels_are_escaped() -> None:
    assert "<b>" not in interval_bar(0.5, 0.4, 0.6, label='"><b>')


def test_estimates_carry_their_intervals() -> None:
    rows = [Estimate(10, 0.5, 0.4, 0.6), Estimate(100, 0.75, 0.7, 0.8), Estimate(1000, 0.8, None, None)]
    svg = estimates_chart(rows, label="Curve", x_name="judgements", curve=[(10, 0.4), (1000, 0.8)], percent=True)
    assert svg.count('class="whisker"') == 2
    assert svg.count("<circle") == 3
    assert 'd="M0,160 L1000,0"' in svg  # the ticks enclose 0.4 and 0.8, and the curve runs from one to the other
    assert 'x1="50%"' in svg  # a hundred lies in the middle of powers of ten
    assert "75\u202f%, 70\u202f% to 80\u202f% at 100 judgements" in svg


def test_a_single_estimate_is_drawn() -> None:
    assert "nan" not in estimates_chart([Estimate(5, 0.5, 0.5, 0.5)], label="Curve", x_name="n")
