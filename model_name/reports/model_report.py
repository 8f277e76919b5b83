"""HTML report of a version: summary, metrics, gate, slices, curves, search, explanation, data and lineage."""

from collections.abc import Iterator
from typing import Any

import model_name
from model_name.core.formatting import format_number, format_percent, format_range
from model_name.core.metrics import Metric
from model_name.core.schemas.columns import Column
from model_name.core.versions import CHAMPION
from model_name.io.registries import Version
from model_name.reports import feature_figures, figures
from model_name.reports.artifacts import VersionArtifacts
from model_name.reports.curve_figures import curve_figures
from model_name.reports.diff import importance_changes
from model_name.reports.render import render_page
from model_name.reports.search_run import SearchRun
from model_name.reports.search_tables import count_unscored, fold_rows, kind_rows, member_rows
from model_name.results import (
    CONSTANT,
    EvaluationResult,
    ExplanationResult,
    PreparationResult,
    PromotionResult,
    passes_threshold,
)
from model_name.serving.bundle import ColumnProfile
from model_name.serving.model_card.descriptions import describe_profile


def render_report(
    artifacts: VersionArtifacts,
    evaluation: EvaluationResult,
    *,
    champion_explanation: ExplanationResult | None = None,
    search: SearchRun | None = None,
    preparation: PreparationResult | None = None,
) -> str:
    """Render the report of a version.

    Args:
        artifacts: Artifacts of the version.
        evaluation: Evaluation of the version.
        champion_explanation: Explanation of the champion that the version was compared with; ignored if it is by
            another method.
        search: Search that the hyperparameters come from.
        preparation: Result of the preparation of the table.
    """
    manifest, explanation = artifacts.manifest, artifacts.explanation
    metric = evaluation.measures[0]
    champion = champion_label(evaluation, artifacts.gate)
    is_compared = bool(champion_explanation and explanation and champion_explanation.method == explanation.method)
    before = champion_explanation if is_compared else None
    rows = metric_rows(evaluation)
    return render_page(
        "report.html",
        champion=champion,
        summary=summary_sentence(artifacts.version, evaluation, artifacts.gate),
        artifacts=artifacts,
        manifest=manifest,
        evaluation=evaluation,
        gate=artifacts.gate,
        explanation=explanation,
        preparation=preparation,
        search=search,
        rows=rows,
        has_intervals=any(row["interval"] for row in rows),
        metric_figures=drop_missing(figures.difference_figure(evaluation), *figures.metric_figures(evaluation)),
        slice_figures=drop_missing(figures.slice_figure(evaluation)),
        curves=drop_missing(*curve_figures(manifest.table, evaluation), figures.learning_curve_figure(evaluation)),
        search_figures=drop_missing(figures.search_figure(search) if search else None),
        folds=fold_rows(search, metric) if search else [],
        kinds=list(kind_rows(search, metric)) if search else [],
        members=list(member_rows(search)) if search else [],
        unscored=count_unscored(search) if search else {},
        explanation_figures=drop_missing(
            feature_figures.importance_figure(explanation, before, f"the {champion}") if explanation else None,
            feature_figures.beeswarm_figure(artifacts),
            *feature_figures.dependence_figures(artifacts),
        ),
        importances=list(importance_changes(before, explanation)) if explanation else [],
        is_compared=is_compared,
        columns=list(column_rows(artifacts, preparation)),
        package_version=model_name.__version__,
    )


def drop_missing(*candidates: figures.Figure | None) -> list[figures.Figure]:
    """Return the figures that are not None."""
    return [figure for figure in candidates if figure is not None]


def summary_sentence(version: Version, evaluation: EvaluationResult, gate: PromotionResult | None) -> str:
    """Summarize the report in one sentence."""
    metric = evaluation.measures[0]
    ends = evaluation.interval_bounds(metric.name)
    interval = f" (95 % interval {format_range(*ends)})" if ends else ""
    value = f"{metric.name} {format_number(evaluation.metrics[metric.name])}{interval}"
    compared = ", ".join(describe_comparisons(evaluation, champion_label(evaluation, gate)))
    return (
        f"{version.name} {evaluation.semver} {gate_status(version, gate)}: {value} on {evaluation.rows:,} held-out rows"
        f"{'; ' if compared else ''}{compared}."
    )


def gate_status(version: Version, gate: PromotionResult | None) -> str:
    """Describe what the gate decided about a version, as a predicate."""
    if gate is None:
        return "was not put through the gate"
    if not gate.accepted:
        return "was refused by the gate"
    force = " (forced although a check failed)" if gate.forced else ""
    return f"{'is' if gate.alias in version.aliases else 'was'} the {gate.alias}{force}"


def champion_label(evaluation: EvaluationResult, gate: PromotionResult | None) -> str:
    """Name the champion of the evaluation; it is the previous champion if the version was promoted."""
    if evaluation.champion is None:
        return ""
    return f"{'previous champion' if gate and gate.accepted else 'champion'} {evaluation.champion.semver}"


def describe_comparisons(evaluation: EvaluationResult, champion: str) -> Iterator[str]:
    """Describe how the deciding metric compares with the other models, the champion first.

    With an interval: `"better than X by a to b"`. Without: `"12 % better than X"`, as a share of X's value.
    """
    metric = evaluation.measures[0]
    labels = {CONSTANT: "a constant", CHAMPION: f"the {champion}"}
    scores = {name: metrics[metric.name] for name, metrics in evaluation.references.items()}
    if evaluation.champion is not None and not evaluation.champion.problem:
        scores = {CHAMPION: evaluation.champion.metrics[metric.name]} | scores
    for name, score in scores.items():
        label = labels.get(name, name)
        ends = evaluation.difference_bounds(name, metric.name)
        text = (
            describe_difference(metric, ends, label)
            if ends
            else describe_relative_difference(metric, evaluation.metrics[metric.name], score, label)
        )
        if text:
            yield text


def describe_difference(metric: Metric, ends: tuple[float, float], other: str) -> str:
    """Describe the interval of this version's metric minus that of another model."""
    low, high = ends
    gains = (low, high) if metric.greater_is_better else (-high, -low)
    if gains[0] > 0:
        return f"better than {other} by {format_range(*gains)}"
    if gains[1] < 0:
        return f"worse than {other} by {format_range(-gains[1], -gains[0])}"
    if low == high == 0:
        return f"equal to {other}"
    return f"not significantly different from {other} (difference {format_range(low, high)})"


def describe_relative_difference(metric: Metric, value: float | None, other_value: float | None, other: str) -> str:
    """Describe a difference as a share of the other model's value, or return an empty text if there is none."""
    if value is None or other_value is None or other_value == 0:
        return ""
    share = abs(value - other_value) / abs(other_value)
    if share < 0.0005:  # would be printed as 0.0 %
        return f"equal to {other}"
    return f"{format_percent(share)} {'better' if metric.is_better(value, other_value) else 'worse'} than {other}"


def metric_rows(evaluation: EvaluationResult) -> list[dict[str, Any]]:
    """Return the rows of the metrics table: one row per metric, one column per model."""
    rows = []
    for metric in evaluation.measures:
        value = evaluation.metrics[metric.name]
        rows.append(
            {
                "name": metric.name,
                "arrow": "↑" if metric.greater_is_better else "↓",
                "direction": "higher is better" if metric.greater_is_better else "lower is better",
                "value": value,
                "interval": evaluation.interval_bounds(metric.name),
                "threshold": metric.threshold,
                "passed": passes_threshold(metric, value),
                "champion": evaluation.champion.metrics.get(metric.name) if evaluation.champion else None,
                "references": {name: scores[metric.name] for name, scores in evaluation.references.items()},
            }
        )
    return rows


def column_rows(artifacts: VersionArtifacts, preparation: PreparationResult | None) -> Iterator[dict[str, Any]]:
    """Return the rows of the data table: one row per input."""
    for name, column in artifacts.manifest.table.inputs.items():
        profile = artifacts.manifest.profile[name]
        yield {
            "name": name,
            "kind": column.kind,
            "description": column.description,
            "missing": profile.missing,
            "sparkline": feature_figures.sparkline(name, profile),
            "content": describe_content(name, column, profile, preparation),
        }


def describe_content(name: str, column: Column, profile: ColumnProfile, preparation: PreparationResult | None) -> str:
    """Describe the content of a column, unless it is sensitive."""
    if column.sensitive:
        return "sensitive, its values are not shown"
    return describe_profile(column, profile) or describe_time_range(name, preparation)


def describe_time_range(name: str, preparation: PreparationResult | None) -> str:
    """Describe the range of a datetime column in the whole table."""
    first, last = preparation.ranges.get(name, ("", "")) if preparation else ("", "")
    return f"{format_moment(first)} … {format_moment(last)} (whole table)" if first else ""


def format_moment(text: str) -> str:
    """Format a moment in ISO 8601 to the minute, or as a date at midnight."""
    return text[:16].replace("T", " ").removesuffix(" 00:00")
