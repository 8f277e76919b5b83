"""Figures of features: importance shares, beeswarms, shades, bins of quantiles."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.reports import feature_figures
from model_name.reports.svg import number_axis
from model_name.serving.bundle import ColumnProfile


def test_lengths_of_bars_and_positions_of_diamonds_are_shares(artifacts):
    # Given two explanations that agree on one feature
    now = artifacts.explanation.model_copy(update={"importances": {"x": 3.0, "y": 1.0}})
    before = artifacts.explanation.model_copy(update={"importances": {"y": 30.0, "z": 30.0, "x": 60.0}})
    # When both are drawn
    figure = feature_figures.importance_figure(now, before, "the champion 1.1.0")
    # Then a bar of 75 % is three times as long as one of 25 %, and a diamond of 50 % ends two thirds along it
    (left, long), (_, short) = (
        map(float, match)
        for match in re.findall(r'<rect class="bar a" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', figure.svg)
    )
    diamonds = [float(match) for match in re.findall(r'class="line open b" d="M([\d.]+)', figure.svg)]
    assert long == pytest.approx(3 * short, abs=0.3)
    assert diamonds == pytest.approx([left + long * 2 / 3, left + long / 3], abs=0.3)
    assert "Diamonds are the champion 1.1.0." in figure.caption


def test_every_row_has_one_dot_per_feature(artifacts):
    features = min(len(artifacts.explanation.importances), feature_figures.MAX_BEESWARM_FEATURES)
    assert feature_figures.beeswarm_figure(artifacts).svg.count("h0") == len(artifacts.contributions) * features


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=300))
def test_a_beeswarm_stays_in_its_row(values):
    offsets = feature_figures.beeswarm_offsets(np.array(values), number_axis("x", [-5, 5]))
    assert len(offsets) == len(values)
    assert max(map(abs, offsets)) <= 0.41


def test_shades_run_from_low_to_high_without_values_that_have_no_order():
    assert feature_figures.value_shades(pd.Series([1.0, 2, 3, 4, 5, np.nan])).tolist() == [1, 2, 3, 4, 4, -1]
    assert feature_figures.value_shades(pd.Series(["a", "b"], dtype=object)).tolist() == [-1, -1]


def test_values_of_a_boolean_are_labelled_true_and_false(artifacts):
    result = {figure.title: figure.svg for figure in feature_figures.dependence_figures(artifacts)}
    assert ">false<" in result["Effect of flag"]


def test_a_sensitive_column_shows_no_values(artifacts):
    hidden = artifacts.values.drop(columns=["size"])
    result = feature_figures.dependence_figures(type(artifacts)(**{**vars(artifacts), "values": hidden}))
    assert "Effect of size" not in [figure.title for figure in result]


@pytest.mark.parametrize(
    ("profile", "bars"),
    [
        pytest.param(ColumnProfile(missing=0.0, shares={"true": 0.6, "false": 0.4}), 2, id="shares"),
        pytest.param(ColumnProfile(missing=0.0, quantiles=tuple(map(float, range(21)))), 24, id="quantiles"),
        pytest.param(ColumnProfile(missing=0.0, quantiles=(2.0,) * 21), 1, id="one value"),
    ],
)
def test_a_sparkline_has_one_bar_per_bin(profile, bars):
    assert feature_figures.sparkline("x", profile).count("<rect") == bars


def test_a_column_without_a_profile_has_no_sparkline():
    assert feature_figures.sparkline("moment", ColumnProfile(missing=0.0)) is None
