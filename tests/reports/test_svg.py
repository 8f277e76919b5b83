"""Charts: positions of marks, escaping of texts, ranges of axes."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.reports import svg
from model_name.reports.svg import Axis, Chart, number_axis, share_axis, time_axis

TEN = Axis("x", 0.0, 10.0, ((0.0, "0"), (10.0, "10")))
BAD = '<script>alert("&")</script>'


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


@given(st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=6))
def test_an_axis_includes_all_its_values_and_ticks(values):
    axis = number_axis("x", values)
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low - slack <= min(values) <= max(values) <= axis.high + slack
    assert all(axis.low - slack <= value <= axis.high + slack for value, _ in axis.ticks)
    assert 2 <= len(axis.ticks) <= 8


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        pytest.param([0, 10], ["0", "2", "4", "6", "8", "10"], id="round ends"),
        pytest.param([0.17, 0.52], ["0.2", "0.3", "0.4", "0.5"], id="ticks inside of half steps"),
        pytest.param([0, 2_000_000], ["0", "500k", "1M", "1.5M", "2M"], id="large numbers are short"),
        pytest.param([math.nan, 0, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"], id="NaN is ignored"),
    ],
)
def test_ticks_are_round(values, ticks):
    assert [text for _, text in number_axis("x", values).ticks] == ticks


def test_an_axis_of_whole_numbers_has_whole_ticks():
    assert [text for _, text in number_axis("trial", [0, 2], is_whole=True).ticks] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("days", "first"),
    [
        pytest.param(0.5, "01 Jan 00:00", id="hours"),
        pytest.param(30, "01 Jan", id="days"),
        pytest.param(400, "Jan 2024", id="months"),
        pytest.param(4000, "2024", id="years"),
    ],
)
def test_precision_of_time_ticks_depends_on_the_span(days, first):
    start = 1704067200.0  # 2024-01-01
    assert time_axis("when", [start, start + days * 86400]).ticks[0][1] == first


def test_dots_are_at_their_values():
    chart = Chart(TEN, TEN)
    chart.dots([(0, 0), (10, 10), (5, 5)], "a")
    coordinates = numbers(chart.marks[0].split('d="')[1].replace("h0", ""))
    low, high, middle = zip(coordinates[::2], coordinates[1::2], strict=True)
    assert low == (round(chart.left, 1), round(chart.bottom, 1))
    assert high == (round(chart.right, 1), round(chart.top, 1))
    assert middle == pytest.approx(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2), abs=0.1)


def test_length_of_a_bar_is_proportional_to_its_value():
    chart = Chart.with_rows(TEN, ["one", "two"])
    chart.bar(2.5, 0, "a")
    chart.bar(10, 1, "a")
    short, long = (float(re.search(r' width="([\d.]+)"', mark)[1]) for mark in chart.marks)
    assert long == pytest.approx(4 * short, abs=0.2)


def test_the_first_name_is_on_top():
    chart = Chart.with_rows(TEN, ["one", "two"])
    assert chart.project(0, 0)[1] < chart.project(0, 1)[1]


def test_a_whisker_spans_its_interval():
    chart = Chart.with_rows(TEN, ["one"])
    chart.whisker(2, 8, 0, "a")
    coordinates = numbers(chart.marks[0].split('d="')[1])
    assert (coordinates[0], coordinates[2]) == tuple(round(chart.project(value, 0)[0], 1) for value in (2, 8))


def test_a_step_line_holds_each_value_until_the_next():
    chart = Chart(TEN, TEN)
    chart.line([(0, 0), (10, 10)], "a", is_step=True)
    points = numbers(chart.marks[0].split('d="')[1])
    assert points[2:4] == [round(chart.right, 1), round(chart.bottom, 1)]


def test_a_heatmap_is_shaded_by_the_share_of_the_row():
    figure = svg.heatmap([[3, 1], [0, 0]], ["no", "yes"], "confusion")
    opacities = [float(value) for value in re.findall(r'fill-opacity="([\d.]+)"', figure)]
    assert opacities == pytest.approx([0.04 + 0.5 * share for share in (0.75, 0.25, 0, 0)], abs=1e-3)


def test_the_tallest_bar_of_a_sparkline_has_its_full_height():
    heights = [float(value) for value in re.findall(r' height="([\d.]+)"', svg.sparkline_svg([1, 4, 2], "x"))]
    assert heights == pytest.approx([5.5, 22, 11])


def figures():
    chart = Chart.with_rows(Axis(BAD, 0, 1, ((0, BAD), (1, "1"))), [BAD, "b"])
    chart.bar(1, 0, "a", label=BAD)
    yield pytest.param(chart.svg(BAD), id="rows")
    yield pytest.param(Chart(share_axis(BAD), Axis(BAD, 0, 1, ((0, BAD),))).svg(BAD), id="two axes")
    yield pytest.param(svg.heatmap([[1, 2], [3, 4]], [BAD, "b"], BAD), id="heatmap")
    yield pytest.param(svg.sparkline_svg([1, 2], BAD), id="sparkline")


@pytest.mark.parametrize("figure", figures())
def test_every_text_is_escaped_and_every_chart_has_a_title(figure):
    root = ElementTree.fromstring(figure)
    assert "<script" not in figure
    assert root.get("aria-label") == root.find("title").text == BAD
    assert root.get("role") == "img"


def test_a_long_name_is_truncated_and_has_its_full_text_as_title():
    figure = Chart.with_rows(TEN, ["a name that is much too long for an axis"]).svg("x")
    assert "a name that is much…<title>a name that is much too long for an axis</title>" in figure
