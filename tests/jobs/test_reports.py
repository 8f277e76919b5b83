"""The page about a version: whole, self-contained, escaped, and in words that say what was measured."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from model_name.core.metrics import Metric
from model_name.jobs.preparation import PreparationResult
from model_name.jobs.promotion import PromotionResult
from model_name.jobs.reports import (
    column_rows,
    fold_rows,
    kind_rows,
    member_rows,
    report,
    told,
    unscored,
    verdict,
)
from model_name.reports.artifacts import Best, Detail, Difference, Search
from tests.support.html_pages import Page

BAD = "<script>alert('&\"')</script>"


def gate(**changes):
    found = {"version": "3", "semver": "1.2.0", "alias": "champion", "forced": False, "actor": "ann", "reason": ""}
    return PromotionResult.model_validate(found | {"checks": [], "previous": "2", "entry": 7} | changes)


def search():
    columns = {"number": [0, 1, 2], "score": [3.0, float("nan"), 1.0], "fold_1": [4.0, float("nan"), 1.5]}
    return Search("5" * 32, "rmse", pd.DataFrame(columns))


def prepared(**changes):
    found = {"source": "a.parquet", "table": "b.parquet", "fingerprint": "abc", "rows": 90, "kept": 80, "findings": []}
    return PreparationResult.model_validate(found | changes)


@pytest.fixture
def full(findings_of, task):
    found = findings_of(task)
    explanation = found.explanation.model_copy(update={"importances": {"gone": 1.0} | found.explanation.importances})
    return found, report(found, found.evaluation, explanation, search() if task == "regression" else None, prepared())


def test_a_page_parses_and_holds_every_section(full, task):
    page = Page(full[1])
    sections = ["metrics", "gate", "slices", "curves", "explanation", "data", "lineage"]
    assert set(page.ids) == {*sections, *(["search"] if task == "regression" else [])}
    assert set(page.links) == {f"#{name}" for name in page.ids}


def test_a_page_needs_nothing_but_itself(full):
    assert not re.search(r"https?:|//cdn|@import|url\(|<script|<link|<img|javascript:", full[1])


def test_every_picture_has_words_for_those_who_do_not_see_it(full):
    drawings = re.findall(r"<svg [^>]*>", full[1])
    assert len(drawings) > 8
    assert all('role="img"' in drawing and re.search('aria-label="[^"]+"', drawing) for drawing in drawings)
    assert full[1].count('<svg class="chart"') == full[1].count("<figcaption>")


def test_a_version_that_was_only_evaluated_long_ago_has_a_page(findings):
    bare = replace(findings, detail=Detail(), explanation=None, contributions=None, values=None)
    evaluation = bare.evaluation.model_copy(update={"champion": None, "slices": ()})
    page = Page(report(bare, evaluation))
    assert set(page.ids) == {"metrics", "gate", "data", "lineage"}


def test_everything_that_comes_from_outside_is_escaped(findings):
    # Given a version whose names are all an attack
    feature = findings.manifest.features.columns[0]
    schema = findings.manifest.table
    column = schema.inputs["size"].model_copy(update={"description": BAD})
    manifest = findings.manifest.model_copy(
        update={
            "name": BAD,
            "kind": BAD,
            "table": schema.model_copy(update={"columns": {BAD: column}, "time": BAD}),
            "profile": {BAD: findings.manifest.profile["size"]},
            "features": findings.manifest.features.model_copy(
                update={"columns": (feature.model_copy(update={"name": BAD, "source": BAD}),)}
            ),
            "files": {BAD: BAD},
        }
    )
    explanation = findings.explanation.model_copy(update={"importances": {BAD: 1.0}})
    hostile = replace(
        findings,
        manifest=manifest,
        explanation=explanation,
        contributions=pd.DataFrame({BAD: [0.1, 0.2]}),
        values=pd.DataFrame({BAD: pd.Series([BAD, "b"], dtype=object)}),
        gate=gate(actor=BAD, reason=BAD),
        tags={"table": BAD},
    )
    evaluation = findings.evaluation.model_copy(
        update={"slices": (findings.evaluation.slices[0].model_copy(update={"value": BAD}),)}
    )
    # When the page is written
    page = report(hostile, evaluation, explanation, search(), prepared(source=BAD, findings=[BAD]))
    # Then none of them became a tag
    assert "<script" not in page
    assert "script" not in Page(page).tags
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("metric", "low", "high", "words"),
    [
        pytest.param("rmse", -0.3, -0.1, "better than X by 0.1 to 0.3", id="lower is better, and it is lower"),
        pytest.param("rmse", 0.1, 0.3, "worse than X by 0.1 to 0.3", id="lower is better, and it is higher"),
        pytest.param("r2", 0.1, 0.3, "better than X by 0.1 to 0.3", id="higher is better, and it is higher"),
        pytest.param("r2", -0.3, -0.1, "worse than X by 0.1 to 0.3", id="higher is better, and it is lower"),
        pytest.param("r2", -0.1, 0.3, "cannot be told apart from X (difference -0.1 to 0.3)", id="across zero"),
        pytest.param("r2", 0.0, 0.3, "cannot be told apart from X (difference 0 to 0.3)", id="touching zero"),
    ],
)
def test_a_difference_is_told_with_its_interval(metric, low, high, words):
    found = Difference(against="champion", metric=metric, value=0.0, low=low, high=high)
    assert told(Metric(name=metric), found, "X") == words


def test_the_verdict_says_all_in_one_sentence(findings):
    version = findings.version.model_copy(update={"aliases": ("champion",)})
    assert verdict(version, findings.evaluation, findings.detail, gate()) == (
        "things 1.2.0 is the champion: rmse 0.6 (95 % interval 0.5 to 0.65) on 80 held-out rows; better than the "
        "previous champion 1.1.0 by 0.1 to 0.3, 33.3 % better than a constant, cannot be told apart from default trees "
        "(difference -0.05 to 0.02)."
    )


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        pytest.param(None, "was not put through the gate", id="not asked"),
        pytest.param(gate(accepted=False, alias=""), "was refused by the gate", id="refused"),
        pytest.param(gate(forced=True), "was the champion by force, against its checks", id="forced"),
        pytest.param(gate(), "was the champion", id="no longer"),
    ],
)
def test_the_verdict_says_what_was_decided(findings, decision, words):
    told_words = verdict(findings.version, findings.evaluation, Detail(), decision)
    assert told_words.startswith(f"things 1.2.0 {words}: rmse 0.6 on 80 held-out rows; ")
    assert "25.0 % better than the" in told_words


def test_folds_are_shown_for_the_own_and_the_best_hyperparameters():
    assert fold_rows(search(), Metric(name="rmse")) == [
        {"name": "mean", "own": 3.0, "best": 1.0},
        {"name": "fold 1", "own": 4.0, "best": 1.5},
    ]


def search_over_kinds():
    columns = {
        "number": [0, 1, 2, 3],
        "param_KIND": ["BoostedTrees", "LinearModel", "BoostedTrees", "LinearModel"],
        "score": [3.0, float("nan"), 2.0, float("nan")],
        "fold_1": [3.5, float("nan"), 2.5, float("nan")],
        "reason": ["", "out of time", "", "out of time"],
    }
    members = [
        {"KIND": "LinearModel", "alpha": 2.0},
        {"KIND": "BoostedTrees", "max_iter": 7, "learning_rate": 0.123456},
    ]
    best = Best(params={"members": members, "weights": [0.25, 0.75]}, score=1.9, fold_scores=(2.25,))
    return Search("5" * 32, "rmse", pd.DataFrame(columns), best)


def test_a_search_over_kinds_is_told_by_kind_and_member():
    found, metric = search_over_kinds(), Metric(name="rmse")
    assert list(kind_rows(found, metric)) == [
        {"kind": "BoostedTrees", "trials": 2, "unscored": 0, "best": 2.0},
        {"kind": "LinearModel", "trials": 2, "unscored": 2, "best": None},
    ]
    assert list(member_rows(found)) == [
        {"kind": "BoostedTrees", "words": "max_iter 7, learning_rate 0.1235", "weight": 0.75},
        {"kind": "LinearModel", "words": "alpha 2", "weight": 0.25},
    ]
    assert unscored(found) == {"out of time": 2}


def test_a_blend_stands_beside_the_default_trees_fold_by_fold():
    assert fold_rows(search_over_kinds(), Metric(name="rmse")) == [
        {"name": "mean", "own": 3.0, "best": 1.9},
        {"name": "fold 1", "own": 3.5, "best": 2.25},
    ]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        pytest.param(2, "The weighted mean of 2 models:", id="a blend"),
        pytest.param(1, "One LinearModel (alpha 2): no blend was surely better.", id="a single one"),
    ],
)
def test_a_page_says_what_a_search_over_kinds_chose(findings, members, words):
    found = search_over_kinds()
    chosen = {"members": found.best.params["members"][:members], "weights": [0.5, 0.5][:members]}
    found = replace(found, best=found.best.model_copy(update={"params": chosen}))
    page = report(findings, findings.evaluation, search=found)
    assert words in page
    assert "2 without a score: out of time" in page
    assert "0: the default trees" in page


def test_values_of_a_sensitive_column_are_not_shown(findings):
    schema = findings.manifest.table
    column = schema.columns["size"].model_copy(update={"sensitive": True})
    table = schema.model_copy(update={"columns": schema.columns | {"size": column}})
    hidden = replace(findings, manifest=findings.manifest.model_copy(update={"table": table}))
    (words,) = (row["words"] for row in column_rows(hidden, None) if row["name"] == "size")
    assert words == "sensitive, its values are not shown"


def test_weights_of_lime_are_called_so_and_not_compared_with_contributions(findings):
    lime = findings.explanation.model_copy(update={"method": "lime", "additivity_error": None, "fidelity": 0.4})
    page = report(replace(findings, explanation=lime), findings.evaluation, before=findings.explanation)
    assert "share of all weights in %" in page
    assert "explain 40.0 % of the variance" in page
    assert "Diamonds are" not in page


def test_columns_are_told_by_shares_quantiles_or_their_range(findings):
    ranges = prepared(ranges={"moment": ["2024-01-01T00:00:00", "2024-03-10T21:00:00"]})
    found = {row["name"]: row for row in column_rows(findings, ranges)}
    assert re.fullmatch(r"(true|false) [\d.]+ %, (true|false) [\d.]+ %", found["flag"]["words"])
    assert found["moment"]["words"] == "2024-01-01 … 2024-03-10 21:00 (whole table)"
    assert re.fullmatch(r"[\d.]+ … [\d.]+ … [\d.]+", found["size"]["words"])
    assert found["moment"]["spark"] is None
