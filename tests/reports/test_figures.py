"""Which pictures there are of what a version is worth, and where their marks are."""

import re

import pandas as pd
import pytest

from model_name.core.metrics import Metric
from model_name.reports import figures
from model_name.reports.artifacts import Detail, Search

EXPECTED = {
    "regression": ["Predicted and actual", "Residuals along moment", "Coverage of the intervals"],
    "binary": ["ROC curve", "Precision and recall", "Calibration", "Confusion matrix"],
    "multiclass": ["Calibration", "Confusion matrix"],
}


def test_each_task_has_its_curves(findings_of, task):
    found = findings_of(task)
    shown = figures.curve_pictures(found.manifest.table, found.detail)
    assert [picture.title for picture in shown] == EXPECTED[task]
    assert all(picture.caption.endswith(".") for picture in shown)


def test_an_evaluation_of_an_older_release_has_no_curves(findings):
    assert figures.curve_pictures(findings.manifest.table, Detail()) == []
    assert figures.difference_picture(Detail()) is None
    assert figures.learning_picture(Detail(), Metric(name="rmse")) is None


def test_residuals_without_time_lie_along_the_prediction(findings_of):
    bands = [{"x": str(x), "low": -1.0, "middle": 0.0, "high": 1.0, "rows": 9} for x in (1.5, 2.5)]
    found = findings_of("regression", curves={"residuals": bands})
    (picture,) = figures.curve_pictures(found.manifest.table.model_copy(update={"time": None}), found.detail)
    assert picture.title == "Residuals along the prediction"
    assert "predicted outcome" in picture.svg


def test_a_confusion_matrix_that_nobody_could_read_is_not_drawn(findings):
    wide = Detail.model_validate({"curves": {"confusion": [[1] * 13] * 13}}).curves
    assert figures.confusion_picture(wide, [str(label) for label in range(13)]) is None


def test_the_constant_does_not_squeeze_the_differences_that_matter(findings_of):
    far = {"against": "constant", "metric": "rmse", "value": -90.0, "low": -91.0, "high": -89.0}
    near = {"against": "champion", "metric": "rmse", "value": -0.2, "low": -0.3, "high": -0.1}
    both = figures.difference_picture(findings_of("regression", differences=[far, near]).detail)
    alone = figures.difference_picture(findings_of("regression", differences=[far]).detail)
    assert "to constant" not in both.svg
    assert "to constant" in alone.svg


def test_a_metric_is_drawn_with_its_interval_and_beside_the_others(findings):
    # Given 0.6 (0.5 to 0.65), a champion of 0.8, a constant of 0.9 and trees of 0.61
    (picture,) = figures.metric_pictures(findings.evaluation, findings.detail)
    # When the places of the marks are read
    ends = [float(x) for x in re.search(r'class="line a" d="M([\d.]+) [\d.]+H([\d.]+)', picture.svg).groups()]
    dot = float(re.search(r'class="dots big a" d="M([\d.]+)', picture.svg)[1])
    others = [float(x) for x in re.findall(r'class="line open [bc]" d="M([\d.]+)', picture.svg)]
    # Then they are as far apart as the values
    unit = (ends[1] - ends[0]) / 0.15
    assert [(x - dot) / unit for x in others] == pytest.approx([0.2, 0.3, 0.01], abs=2e-3)
    assert (dot - ends[0]) / unit == pytest.approx(0.1, abs=2e-3)


def test_the_stair_of_a_search_falls_to_the_best_trial():
    trials = pd.DataFrame({"number": [0, 1, 2], "score": [3.0, None, 1.0], "fold_1": [3.0, None, 1.0]})
    picture = figures.search_picture(Search("run", "rmse", trials))
    assert picture.svg.count("h0") == 2  # the failed one has no dot
    assert figures.search_picture(Search("run", "rmse", trials.head(1))) is None
