"""Two versions side by side."""

from dataclasses import replace

import pytest

from model_name.core.metrics import Metric
from model_name.jobs.promotion import Check, PromotionResult
from model_name.reports.diff import compare, decision, metric_change, tables, write_page
from tests.support.html_pages import Page

NO_CHAMPION = {"champion": None, "differences": []}


@pytest.mark.parametrize(
    ("metric", "a", "b", "ends", "better", "words"),
    [
        pytest.param("rmse", 2.0, 1.0, (), "b", "better by 1 (50.0 %)", id="lower is better"),
        pytest.param("r2", 0.8, 0.6, (), "a", "worse by 0.2 (25.0 %)", id="higher is better"),
        pytest.param("r2", 0.8, 0.8, (), "", "equal", id="equal"),
        pytest.param("r2", None, 0.8, (), "", "not defined on these rows", id="not defined"),
        pytest.param("rmse", 2.0, 1.9, (-0.3, 0.1), "", "cannot be told apart (-0.3 to 0.1)", id="by chance"),
        pytest.param("rmse", 2.0, 1.0, (-1.2, -0.8), "b", "better by 0.8 to 1.2", id="with an interval"),
        pytest.param("r2", 0.9, 0.5, (-0.5, -0.3), "a", "worse by 0.3 to 0.5", id="worse with an interval"),
    ],
)
def test_who_is_better(metric, a, b, ends, better, words):
    found = metric_change(Metric(name=metric), a, b, *ends)
    assert (found.better, found.words) == (better, words)


@pytest.fixture
def older(findings_of):
    return findings_of("regression", semver="1.1.0", version="2", params={"max_iter": "8", "old": "1"}, **NO_CHAMPION)


@pytest.fixture
def candidate(findings_of):
    return findings_of("regression", params={"max_iter": "9"})


def test_a_candidate_is_compared_with_its_champion_on_the_same_rows(older, candidate):
    # Given a candidate that was measured beside the older version, which scored 0.8 there and 0.6 elsewhere
    found = compare(older, candidate)
    # Then the paired figures count
    (metric,) = found.metrics
    assert (metric.a, metric.b, metric.better, metric.low, metric.high) == (0.8, 0.6, "b", -0.3, -0.1)
    assert found.same_rows
    assert found.measured == "Both were measured on the same 80 held-out rows."
    assert found.sentence == (
        "1.2.0 against 1.1.0: the same contract; both BoostedTrees, 2 hyperparameters changed; rmse better by 0.1 to "
        "0.3; not put through the gate."
    )


def test_the_other_way_round_the_signs_are_reversed(older, candidate):
    (metric,) = compare(candidate, older).metrics
    assert (metric.a, metric.b, metric.better, metric.low, metric.high) == (0.6, 0.8, "a", 0.1, 0.3)


def test_versions_that_were_measured_on_different_rows_are_said_to_be(findings_of, older):
    other = findings_of("regression", rows=90, **NO_CHAMPION)
    found = compare(older, other)
    assert not found.same_rows
    assert "measured on different rows (1.1.0 on 80, 1.2.0 on 90)" in found.measured


def test_hyperparameters_and_ranks_that_differ(older, candidate):
    swapped = dict(reversed(older.explanation.importances.items()))
    before = replace(older, explanation=older.explanation.model_copy(update={"importances": {"gone": 9.0} | swapped}))
    found = compare(before, candidate)
    assert [(row.name, row.a, row.b) for row in found.parameters] == [("max_iter", "8", "9"), ("old", "1", None)]
    assert found.importances[0].words == f"up {len(swapped)}"
    assert (found.importances[-1].feature, found.importances[-1].words) == ("gone", "gone")


def test_what_was_not_evaluated_or_explained_is_said(older, candidate, tmp_path):
    bare = replace(older, evaluation=None, explanation=None, contributions=None, values=None)
    found = compare(bare, candidate)
    assert found.missing == ("1.1.0 was not evaluated", "1.1.0 was not explained")
    assert (found.metrics, found.importances, found.same_rows) == ((), (), False)
    assert "not compared by metrics" in found.sentence
    write_page(bare, candidate, found, str(tmp_path / "diff.html"))
    text = " ".join(Page((tmp_path / "diff.html").read_text(encoding="utf-8")).text)
    assert "1.1.0 was not evaluated" in text
    assert "The metrics cannot be compared." in text


def test_contributions_are_not_compared_with_weights_of_lime(older, candidate):
    lime = older.explanation.model_copy(update={"method": "lime"})
    found = compare(replace(older, explanation=lime), candidate)
    assert found.importances == ()
    assert found.missing == ("one was explained by lime, the other by shap",)


def test_a_comparison_is_a_page_and_tables_of_the_same_words(older, candidate, tmp_path):
    found = compare(older, candidate)
    write_page(older, candidate, found, str(tmp_path / "diff.html"))
    page = Page((tmp_path / "diff.html").read_text(encoding="utf-8"))
    told = " ".join(page.text)
    assert found.sentence in told
    assert all(text in told for _, _, rows in tables(found) for row in rows for text in row)
    assert page.links == []
    assert page.tags.count("figure") == 2


def test_the_same_version_twice_differs_in_nothing(older):
    found = compare(older, older)
    assert (found.contract, found.parameters, found.features_added, found.features_removed) == ((), (), (), ())
    assert found.metrics[0].words == "equal"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({}, "passed, became champion", id="passed"),
        pytest.param({"forced": True}, "forced, became champion", id="forced"),
        pytest.param({"accepted": False, "alias": ""}, "refused: rmse threshold", id="refused"),
    ],
)
def test_what_the_gate_said(changes, words):
    check = Check(name="rmse threshold", passed=False, value=2.0, limit=1.0, words="")
    found = {"version": "1", "semver": "1.0.0", "alias": "champion", "forced": False, "actor": "ann", "reason": ""}
    result = PromotionResult.model_validate(found | {"checks": [check], "previous": "", "entry": 1} | changes)
    assert decision(result) == words
    assert decision(None) == "not put through the gate"
