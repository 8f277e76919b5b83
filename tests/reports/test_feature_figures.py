"""What pictures of features are made from: shares, swarms, shades, bins of quantiles."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.reports import feature_figures as pictures
from model_name.reports.svg import number_axis
from model_name.serving.bundle import ColumnProfile


def test_bars_are_as_long_as_shares_and_diamonds_lie_where_the_others_end(findings):
    # Given two explanations that agree on one feature
    now = findings.explanation.model_copy(update={"importances": {"x": 3.0, "y": 1.0}})
    before = findings.explanation.model_copy(update={"importances": {"y": 30.0, "z": 30.0, "x": 60.0}})
    # When both are drawn
    picture = pictures.importance_picture(now, before, "the champion 1.1.0")
    # Then a bar of 75 % is three times as long as one of 25 %, and a diamond of 50 % ends two thirds along it
    (left, long), (_, short) = (
        map(float, found)
        for found in re.findall(r'<rect class="bar a" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', picture.svg)
    )
    diamonds = [float(found) for found in re.findall(r'class="line open b" d="M([\d.]+)', picture.svg)]
    assert long == pytest.approx(3 * short, abs=0.3)
    assert diamonds == pytest.approx([left + long * 2 / 3, left + long / 3], abs=0.3)
    assert "Diamonds are the champion 1.1.0." in picture.caption


def test_every_row_has_one_dot_a_feature(findings):
    features = min(len(findings.explanation.importances), pictures.SWARMED)
    assert pictures.swarm_picture(findings).svg.count("h0") == len(findings.contributions) * features


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=300))
def test_a_swarm_stays_on_its_line(values):
    lifts = pictures.swarm(np.array(values), number_axis("x", [-5, 5]))
    assert len(lifts) == len(values)
    assert max(map(abs, lifts)) <= 0.41


def test_shades_run_from_low_to_high_and_leave_out_what_has_no_order():
    assert pictures.shades_of(pd.Series([1.0, 2, 3, 4, 5, np.nan])).tolist() == [1, 2, 3, 4, 4, -1]
    assert pictures.shades_of(pd.Series(["a", "b"], dtype=object)).tolist() == [-1, -1]


def test_the_values_of_a_boolean_are_called_true_and_false(findings):
    found = {picture.title: picture.svg for picture in pictures.dependence_pictures(findings)}
    assert ">false<" in found["What flag does"]


def test_a_sensitive_column_shows_no_values(findings):
    hidden = findings.values.drop(columns=["size"])
    found = pictures.dependence_pictures(type(findings)(**{**vars(findings), "values": hidden}))
    assert "What size does" not in [picture.title for picture in found]


@pytest.mark.parametrize(
    ("profile", "bars"),
    [
        pytest.param(ColumnProfile(missing=0.0, shares={"true": 0.6, "false": 0.4}), 2, id="shares"),
        pytest.param(ColumnProfile(missing=0.0, quantiles=tuple(map(float, range(21)))), 24, id="quantiles"),
        pytest.param(ColumnProfile(missing=0.0, quantiles=(2.0,) * 21), 1, id="one value"),
    ],
)
def test_a_sparkline_has_a_bar_a_bin(profile, bars):
    assert pictures.sparkline("x", profile).count("<rect") == bars


def test_a_column_of_which_nothing_is_known_has_no_sparkline():
    assert pictures.sparkline("moment", ColumnProfile(missing=0.0)) is None
