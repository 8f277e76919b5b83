"""Figures of an evaluation: which are drawn, and where their marks are."""

import re

import pandas as pd
import pytest

from model_name.core.evaluation.curves import Curves
from model_name.reports import curve_figures, figures
from model_name.reports.search_run import SearchRun

EXPECTED = {
    "regression": ["Predicted and actual", "Residuals along moment", "Coverage of the intervals"],
    "binary": ["ROC curve", "Precision and recall", "Calibration", "Confusion matrix"],
    "multiclass": ["Calibration", "Confusion matrix"],
}


def test_each_task_has_its_curves(artifacts_of, task):
    artifacts = artifacts_of(task)
    shown = curve_figures.curve_figures(artifacts.manifest.table, artifacts.evaluation)
    assert [figure.title for figure in shown] == EXPECTED[task]
    assert all(figure.caption.endswith(".") for figure in shown)


def test_residuals_without_time_are_drawn_over_the_prediction(artifacts_of):
    bands = [{"x": str(x), "low": -1.0, "middle": 0.0, "high": 1.0, "rows": 9} for x in (1.5, 2.5)]
    artifacts = artifacts_of("regression", curves={"residuals": bands})
    (figure,) = curve_figures.curve_figures(
        artifacts.manifest.table.model_copy(update={"time": None}), artifacts.evaluation
    )
    assert figure.title == "Residuals along the prediction"
    assert "predicted outcome" in figure.svg


def test_a_confusion_matrix_of_too_many_classes_is_not_drawn(artifacts):
    wide = Curves.model_validate({"confusion": [[1] * 13] * 13})
    assert curve_figures.confusion_figure(wide, [str(label) for label in range(13)]) is None


def test_the_constant_is_left_out_beside_other_differences(artifacts_of):
    far = {"against": "constant", "metric": "rmse", "value": -90.0, "low": -91.0, "high": -89.0}
    near = {"against": "champion", "metric": "rmse", "value": -0.2, "low": -0.3, "high": -0.1}
    both = figures.difference_figure(artifacts_of("regression", differences=[far, near]).evaluation)
    alone = figures.difference_figure(artifacts_of("regression", differences=[far]).evaluation)
    assert "to constant" not in both.svg
    assert "to constant" in alone.svg


def test_a_metric_is_drawn_with_its_interval_and_the_other_models(artifacts):
    # Given 0.6 (0.5 to 0.65), a champion of 0.8, a constant of 0.9 and trees of 0.61
    (figure,) = figures.metric_figures(artifacts.evaluation)
    # When the positions of the marks are read
    ends = [float(x) for x in re.search(r'class="line a" d="M([\d.]+) [\d.]+H([\d.]+)', figure.svg).groups()]
    dot = float(re.search(r'class="dots big a" d="M([\d.]+)', figure.svg)[1])
    others = [float(x) for x in re.findall(r'class="line open [bc]" d="M([\d.]+)', figure.svg)]
    # Then they are as far apart as the values
    unit = (ends[1] - ends[0]) / 0.15
    assert [(x - dot) / unit for x in others] == pytest.approx([0.2, 0.3, 0.01], abs=2e-3)
    assert (dot - ends[0]) / unit == pytest.approx(0.1, abs=2e-3)


def test_a_search_has_a_dot_per_scored_trial():
    trials = pd.DataFrame({"number": [0, 1, 2], "score": [3.0, None, 1.0], "fold_1": [3.0, None, 1.0]})
    figure = figures.search_figure(SearchRun("run", "rmse", trials))
    assert figure.svg.count("h0") == 2  # the failed trial has no dot
    assert figures.search_figure(SearchRun("run", "rmse", trials.head(1))) is None
