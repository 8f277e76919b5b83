"""Report of a version: complete, self-contained, escaped, and with sentences that state what was measured."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from model_name.core.evaluation.curves import Curves
from model_name.core.metrics import Metric
from model_name.reports.model_report import column_rows, describe_difference, render_report, summary_sentence
from model_name.reports.search_run import SearchRun
from model_name.reports.search_tables import count_unscored, fold_rows, kind_rows, member_rows
from model_name.results import PreparationResult, PromotionResult, SelectedParams
from tests.support.html_pages import Page

BAD = "<script>alert('&\"')</script>"


def gate(**changes):
    document = {"version": "3", "semver": "1.2.0", "alias": "champion", "forced": False, "actor": "ann", "reason": ""}
    return PromotionResult.model_validate(document | {"checks": [], "previous": "2", "entry": 7} | changes)


def search():
    columns = {"number": [0, 1, 2], "score": [3.0, float("nan"), 1.0], "fold_1": [4.0, float("nan"), 1.5]}
    return SearchRun("5" * 32, "rmse", pd.DataFrame(columns))


def prepared(**changes):
    document = {
        "source": "a.parquet",
        "table": "b.parquet",
        "fingerprint": "abc",
        "rows": 90,
        "kept": 80,
        "findings": [],
    }
    return PreparationResult.model_validate(document | changes)


NEWER_FIELDS = {
    "intervals": {},
    "differences": (),
    "worst_slices": (),
    "curves": Curves(),
    "learning": (),
    "threshold": None,
}


def without_newer_fields(evaluation):
    """Return an evaluation as an older release stored it."""
    return evaluation.model_copy(update=NEWER_FIELDS)


@pytest.fixture
def full(artifacts_of, task):
    version_artifacts = artifacts_of(task)
    explanation = version_artifacts.explanation.model_copy(
        update={"importances": {"gone": 1.0} | version_artifacts.explanation.importances}
    )
    page = render_report(
        version_artifacts,
        version_artifacts.evaluation,
        champion_explanation=explanation,
        search=search() if task == "regression" else None,
        preparation=prepared(),
    )
    return version_artifacts, page


def test_a_report_parses_and_has_every_section(full, task):
    page = Page(full[1])
    sections = ["metrics", "gate", "slices", "curves", "explanation", "data", "lineage"]
    assert set(page.ids) == {*sections, *(["search"] if task == "regression" else [])}
    assert set(page.links) == {f"#{name}" for name in page.ids}


def test_a_report_is_self_contained(full):
    assert not re.search(r"https?:|//cdn|@import|url\(|<script|<link|<img|javascript:", full[1])


def test_every_figure_has_a_title_and_a_caption(full):
    drawings = re.findall(r"<svg [^>]*>", full[1])
    assert len(drawings) > 8
    assert all('role="img"' in drawing and re.search('aria-label="[^"]+"', drawing) for drawing in drawings)
    assert full[1].count('<svg class="chart"') == full[1].count("<figcaption>")


def test_a_version_that_an_older_release_evaluated_has_a_report(artifacts):
    bare = replace(artifacts, explanation=None, contributions=None, values=None)
    evaluation = without_newer_fields(bare.evaluation).model_copy(update={"champion": None, "slices": ()})
    page = Page(render_report(bare, evaluation))
    assert set(page.ids) == {"metrics", "gate", "data", "lineage"}


def test_names_and_texts_from_outside_are_escaped(artifacts):
    # Given a version whose names are all script elements
    feature = artifacts.manifest.features.columns[0]
    schema = artifacts.manifest.table
    column = schema.inputs["size"].model_copy(update={"description": BAD})
    manifest = artifacts.manifest.model_copy(
        update={
            "name": BAD,
            "kind": BAD,
            "table": schema.model_copy(update={"columns": {BAD: column}, "time": BAD}),
            "profile": {BAD: artifacts.manifest.profile["size"]},
            "features": artifacts.manifest.features.model_copy(
                update={"columns": (feature.model_copy(update={"name": BAD, "source": BAD}),)}
            ),
            "files": {BAD: BAD},
        }
    )
    explanation = artifacts.explanation.model_copy(update={"importances": {BAD: 1.0}})
    hostile = replace(
        artifacts,
        manifest=manifest,
        explanation=explanation,
        contributions=pd.DataFrame({BAD: [0.1, 0.2]}),
        values=pd.DataFrame({BAD: pd.Series([BAD, "b"], dtype=object)}),
        gate=gate(actor=BAD, reason=BAD),
        tags={"table": BAD},
    )
    evaluation = artifacts.evaluation.model_copy(
        update={"slices": (artifacts.evaluation.slices[0].model_copy(update={"value": BAD}),)}
    )
    # When the report is rendered
    page = render_report(
        hostile,
        evaluation,
        champion_explanation=explanation,
        search=search(),
        preparation=prepared(source=BAD, findings=[BAD]),
    )
    # Then none of them became an element
    assert "<script" not in page
    assert "script" not in Page(page).tags
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("metric", "low", "high", "description"),
    [
        pytest.param("rmse", -0.3, -0.1, "better than X by 0.1 to 0.3", id="lower is better, and it is lower"),
        pytest.param("rmse", 0.1, 0.3, "worse than X by 0.1 to 0.3", id="lower is better, and it is higher"),
        pytest.param("r2", 0.1, 0.3, "better than X by 0.1 to 0.3", id="higher is better, and it is higher"),
        pytest.param("r2", -0.3, -0.1, "worse than X by 0.1 to 0.3", id="higher is better, and it is lower"),
        pytest.param("r2", -0.1, 0.3, "not significantly different from X (difference -0.1 to 0.3)", id="across zero"),
        pytest.param("r2", 0.0, 0.3, "not significantly different from X (difference 0 to 0.3)", id="touching zero"),
    ],
)
def test_a_difference_is_described_with_its_interval(metric, low, high, description):
    assert describe_difference(Metric(name=metric), (low, high), "X") == description


def test_the_summary_is_one_sentence(artifacts):
    version = artifacts.version.model_copy(update={"aliases": ("champion",)})
    assert summary_sentence(version, artifacts.evaluation, gate()) == (
        "things 1.2.0 is the champion: rmse 0.6 (95 % interval 0.5 to 0.65) on 80 held-out rows; better than the "
        "previous champion 1.1.0 by 0.1 to 0.3, 33.3 % better than a constant, not significantly different from "
        "default trees (difference -0.05 to 0.02)."
    )


@pytest.mark.parametrize(
    ("decision", "description"),
    [
        pytest.param(None, "was not put through the gate", id="no decision"),
        pytest.param(gate(accepted=False, alias=""), "was refused by the gate", id="refused"),
        pytest.param(gate(forced=True), "was the champion (forced although a check failed)", id="forced"),
        pytest.param(gate(), "was the champion", id="no longer"),
    ],
)
def test_the_summary_states_the_decision_of_the_gate(artifacts, decision, description):
    sentence = summary_sentence(artifacts.version, without_newer_fields(artifacts.evaluation), decision)
    assert sentence.startswith(f"things 1.2.0 {description}: rmse 0.6 on 80 held-out rows; ")
    assert "25.0 % better than the" in sentence


def test_folds_are_shown_for_the_default_and_the_best_hyperparameters():
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
    best = SelectedParams(params={"members": members, "weights": [0.25, 0.75]}, score=1.9, fold_scores=(2.25,))
    return SearchRun("5" * 32, "rmse", pd.DataFrame(columns), best)


def test_a_search_over_kinds_has_rows_per_kind_and_member():
    run, metric = search_over_kinds(), Metric(name="rmse")
    assert list(kind_rows(run, metric)) == [
        {"kind": "BoostedTrees", "trials": 2, "unscored": 0, "best": 2.0},
        {"kind": "LinearModel", "trials": 2, "unscored": 2, "best": None},
    ]
    assert list(member_rows(run)) == [
        {"kind": "BoostedTrees", "params": "max_iter 7, learning_rate 0.1235", "weight": 0.75},
        {"kind": "LinearModel", "params": "alpha 2", "weight": 0.25},
    ]
    assert count_unscored(run) == {"out of time": 2}


def test_a_blend_is_compared_with_the_default_trees_by_fold():
    assert fold_rows(search_over_kinds(), Metric(name="rmse")) == [
        {"name": "mean", "own": 3.0, "best": 1.9},
        {"name": "fold 1", "own": 3.5, "best": 2.25},
    ]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        pytest.param(2, "The weighted mean of 2 models:", id="a blend"),
        pytest.param(1, "One LinearModel (alpha 2): no blend was significantly better.", id="a single model"),
    ],
)
def test_a_report_shows_what_a_search_over_kinds_selected(artifacts, members, text):
    run = search_over_kinds()
    chosen = {"members": run.best.params["members"][:members], "weights": [0.5, 0.5][:members]}
    run = replace(run, best=run.best.model_copy(update={"params": chosen}))
    page = render_report(artifacts, artifacts.evaluation, search=run)
    assert text in page
    assert "2 without a score: out of time" in page
    assert "0: the default trees" in page


def test_values_of_a_sensitive_column_are_not_shown(artifacts):
    schema = artifacts.manifest.table
    column = schema.columns["size"].model_copy(update={"sensitive": True})
    table = schema.model_copy(update={"columns": schema.columns | {"size": column}})
    hidden = replace(artifacts, manifest=artifacts.manifest.model_copy(update={"table": table}))
    (content,) = (row["content"] for row in column_rows(hidden, None) if row["name"] == "size")
    assert content == "sensitive, its values are not shown"


def test_lime_weights_are_named_so_and_not_compared_with_contributions(artifacts):
    lime = artifacts.explanation.model_copy(update={"method": "lime", "additivity_error": None, "fidelity": 0.4})
    page = render_report(
        replace(artifacts, explanation=lime), artifacts.evaluation, champion_explanation=artifacts.explanation
    )
    assert "share of all weights in %" in page
    assert "explain 40.0 % of the variance" in page
    assert "Diamonds are" not in page


def test_columns_are_described_by_shares_quantiles_or_their_range(artifacts):
    ranges = prepared(ranges={"moment": ["2024-01-01T00:00:00", "2024-03-10T21:00:00"]})
    rows = {row["name"]: row for row in column_rows(artifacts, ranges)}
    assert re.fullmatch(r"(true|false) [\d.]+ %, (true|false) [\d.]+ %", rows["flag"]["content"])
    assert rows["moment"]["content"] == "2024-01-01 … 2024-03-10 21:00 (whole table)"
    assert re.fullmatch(r"[\d.]+ … [\d.]+ … [\d.]+", rows["size"]["content"])
    assert rows["moment"]["sparkline"] is None
    text = " ".join(Page(render_report(artifacts, artifacts.evaluation, preparation=ranges)).text)
    assert all(row["content"] in text for row in rows.values())
