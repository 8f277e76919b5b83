"""Comparison of two versions, as data and as an HTML page."""

from dataclasses import replace

import pytest

from model_name.core.metrics import Metric
from model_name.reports.diff import compare_versions, describe_gate_decision, metric_change
from model_name.reports.diff_page import comparison_tables, write_diff_page
from model_name.results import GateCheck, PromotionResult
from tests.support.html_pages import Page

NO_CHAMPION = {"champion": None, "differences": []}


@pytest.mark.parametrize(
    ("metric", "a", "b", "ends", "better", "description"),
    [
        pytest.param("rmse", 2.0, 1.0, (), "b", "better by 1 (50.0 %)", id="lower is better"),
        pytest.param("r2", 0.8, 0.6, (), "a", "worse by 0.2 (25.0 %)", id="higher is better"),
        pytest.param("r2", 0.8, 0.8, (), "", "equal", id="equal"),
        pytest.param("r2", None, 0.8, (), "", "not defined on these rows", id="not defined"),
        pytest.param("rmse", 2.0, 1.9, (-0.3, 0.1), "", "not significantly different (-0.3 to 0.1)", id="by chance"),
        pytest.param("rmse", 2.0, 1.0, (-1.2, -0.8), "b", "better by 0.8 to 1.2", id="with an interval"),
        pytest.param("r2", 0.9, 0.5, (-0.5, -0.3), "a", "worse by 0.3 to 0.5", id="worse with an interval"),
    ],
)
def test_a_metric_change_names_the_better_version(metric, a, b, ends, better, description):
    result = metric_change(Metric(name=metric), a, b, *ends)
    assert (result.better, result.words) == (better, description)


@pytest.fixture
def older(artifacts_of):
    return artifacts_of("regression", semver="1.1.0", version="2", params={"max_iter": "8", "old": "1"}, **NO_CHAMPION)


@pytest.fixture
def candidate(artifacts_of):
    return artifacts_of("regression", params={"max_iter": "9"})


def test_a_candidate_is_compared_with_its_champion_on_the_same_rows(older, candidate):
    # Given a candidate that was evaluated against the older version, which scored 0.8 there and 0.6 on its own rows
    result = compare_versions(older, candidate)
    # Then the metrics of the candidate's evaluation are compared
    (metric,) = result.metrics
    assert (metric.a, metric.b, metric.better, metric.low, metric.high) == (0.8, 0.6, "b", -0.3, -0.1)
    assert result.same_rows
    assert result.measured == "Both were measured on the same 80 held-out rows."
    assert result.sentence == (
        "1.2.0 against 1.1.0: the same contract; both BoostedTrees, 2 hyperparameters changed; rmse better by 0.1 to "
        "0.3; not put through the gate."
    )


def test_swapped_versions_have_reversed_signs(older, candidate):
    (metric,) = compare_versions(candidate, older).metrics
    assert (metric.a, metric.b, metric.better, metric.low, metric.high) == (0.6, 0.8, "a", 0.1, 0.3)


def test_different_held_out_rows_are_reported(artifacts_of, older):
    other = artifacts_of("regression", rows=90, **NO_CHAMPION)
    result = compare_versions(older, other)
    assert not result.same_rows
    assert "measured on different rows (1.1.0 on 80, 1.2.0 on 90)" in result.measured


def test_changed_hyperparameters_and_ranks_are_listed(older, candidate):
    swapped = dict(reversed(older.explanation.importances.items()))
    before = replace(older, explanation=older.explanation.model_copy(update={"importances": {"gone": 9.0} | swapped}))
    result = compare_versions(before, candidate)
    assert [(row.name, row.a, row.b) for row in result.parameters] == [("max_iter", "8", "9"), ("old", "1", None)]
    assert result.importances[0].rank_change == f"up {len(swapped)}"
    assert (result.importances[-1].feature, result.importances[-1].rank_change) == ("gone", "gone")


def test_missing_evaluations_and_explanations_are_reported(older, candidate, tmp_path):
    bare = replace(older, evaluation=None, explanation=None, contributions=None, values=None)
    result = compare_versions(bare, candidate)
    assert result.missing == ("1.1.0 was not evaluated", "1.1.0 was not explained")
    assert (result.metrics, result.importances, result.same_rows) == ((), (), False)
    assert "not compared by metrics" in result.sentence
    write_diff_page(bare, candidate, result, str(tmp_path / "diff.html"))
    text = " ".join(Page((tmp_path / "diff.html").read_text(encoding="utf-8")).text)
    assert "1.1.0 was not evaluated" in text
    assert "The metrics cannot be compared." in text


def test_shap_contributions_are_not_compared_with_lime_weights(older, candidate):
    lime = older.explanation.model_copy(update={"method": "lime"})
    result = compare_versions(replace(older, explanation=lime), candidate)
    assert result.importances == ()
    assert result.missing == ("one was explained by lime, the other by shap",)


def test_the_page_has_the_texts_of_the_tables(older, candidate, tmp_path):
    result = compare_versions(older, candidate)
    write_diff_page(older, candidate, result, str(tmp_path / "diff.html"))
    page = Page((tmp_path / "diff.html").read_text(encoding="utf-8"))
    text_of_page = " ".join(page.text)
    assert result.sentence in text_of_page
    assert all(text in text_of_page for _, _, rows in comparison_tables(result) for row in rows for text in row)
    assert page.links == []
    assert page.tags.count("figure") == 2


def test_a_version_has_no_difference_to_itself(older):
    result = compare_versions(older, older)
    assert (result.contract, result.parameters, result.features_added, result.features_removed) == ((), (), (), ())
    assert result.metrics[0].words == "equal"


@pytest.mark.parametrize(
    ("changes", "description"),
    [
        pytest.param({}, "passed, became champion", id="passed"),
        pytest.param({"forced": True}, "forced, became champion", id="forced"),
        pytest.param({"accepted": False, "alias": ""}, "refused: rmse threshold", id="refused"),
    ],
)
def test_the_gate_decision_is_described(changes, description):
    check = GateCheck(name="rmse threshold", passed=False, value=2.0, limit=1.0, words="")
    document = {"version": "1", "semver": "1.0.0", "alias": "champion", "forced": False, "actor": "ann", "reason": ""}
    result = PromotionResult.model_validate(document | {"checks": [check], "previous": "", "entry": 1} | changes)
    assert describe_gate_decision(result) == description
    assert describe_gate_decision(None) == "not put through the gate"
