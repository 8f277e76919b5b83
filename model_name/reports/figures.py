"""Figures of an evaluation and of a search, each with one sentence that says how to read it."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from model_name.core.metrics import Metric
from model_name.reports.search_run import SearchRun
from model_name.reports.svg import Chart, number_axis
from model_name.results import CONSTANT, EvaluationResult, bounds

THIS_VERSION = "this version"


@dataclass(frozen=True)
class Figure:
    """A figure with its texts.

    Attributes:
        title: Title of the figure.
        caption: Sentence that says how to read the figure.
        svg: SVG element.
    """

    title: str
    caption: str
    svg: Markup


def metric_figures(evaluation: EvaluationResult) -> list[Figure]:
    """Draw each metric with one mark per model, and the interval of this version if it is known."""
    return [figure for metric in evaluation.measures if (figure := metric_figure(metric, evaluation)) is not None]


def metric_figure(metric: Metric, evaluation: EvaluationResult) -> Figure | None:
    """Draw one metric of all models; return None if this version has no value."""
    value = evaluation.metrics[metric.name]
    if value is None:
        return None
    champion = evaluation.champion.metrics.get(metric.name) if evaluation.champion else None
    others = (
        {f"champion {evaluation.champion.semver}": champion} if evaluation.champion and champion is not None else {}
    )
    others |= {
        name: score for name, scores in evaluation.references.items() if (score := scores[metric.name]) is not None
    }
    interval = evaluation.interval_bounds(metric.name)
    limit = [metric.threshold] if metric.threshold is not None else []
    axis = number_axis(axis_label(metric), [value, *others.values(), *(interval or ()), *limit])
    chart = Chart.with_rows(axis, [THIS_VERSION, *others])
    if limit:
        chart.rule(x=limit[0], style="limit")
    if interval:
        chart.whisker(*interval, 0, "a")
    chart.dots([(value, 0)], "big a")
    for row, score in enumerate(others.values(), start=1):
        chart.diamond(score, row, "b" if row == 1 and champion is not None else "c")
    caption = "The dot is this version, the diamonds are the other models"
    caption += "; the whisker holds the true value of this version with 95 % confidence" if interval else ""
    caption += "; the dashed line is the threshold" if limit else ""
    return Figure(metric.name, f"{caption}.", chart.svg(f"{metric.name} of each model"))


def difference_figure(evaluation: EvaluationResult) -> Figure | None:
    """Draw the difference between this version and each other model, with intervals."""
    known = [
        (each.against, each.value, ends)
        for each in evaluation.differences
        if each.value is not None and (ends := bounds(each)) is not None
    ]
    # A constant is usually so much worse that the whiskers of the other models would be too small to see beside it.
    shown = [row for row in known if row[0] != CONSTANT] or known
    if not shown:
        return None
    metric = Metric(name=evaluation.differences[0].metric)
    label = f"{metric.name}: this version minus the other"
    axis = number_axis(label, [0.0, *(end for _, _, ends in shown for end in ends)])
    chart = Chart.with_rows(axis, [f"to {against}" for against, _, _ in shown])
    chart.rule(x=0.0)
    for row, (_, value, ends) in enumerate(shown):
        chart.whisker(*ends, row, "a")
        chart.dots([(value, row)], "big a")
    side = "right" if metric.greater_is_better else "left"
    caption = (
        f"If the whisker is entirely to the {side} of zero, this version is better; if it crosses zero, the difference "
        "is not significant (95 %, the same rows for both models)."
    )
    return Figure("Difference to the other models", caption, chart.svg(f"Differences in {metric.name} with intervals"))


def slice_figure(evaluation: EvaluationResult) -> Figure | None:
    """Draw the deciding metric of each slice, those found by the search first."""
    metric = evaluation.measures[0]
    slices = {part.words: part.metrics.get(metric.name) for part in evaluation.worst_slices}
    slices |= {f"{part.column} is {part.value}": part.metrics.get(metric.name) for part in evaluation.slices}
    known = {name: value for name, value in slices.items() if value is not None}
    overall = evaluation.metrics[metric.name]
    if not known or overall is None:
        return None
    axis = number_axis(axis_label(metric), [overall, *known.values()])
    chart = Chart.with_rows(axis, list(known), max_name_length=30)
    chart.rule(x=overall)
    for row, value in enumerate(known.values()):
        chart.dots([(value, row)], "big a")
    caption = "Each dot is a slice of the held-out rows, the dashed line is all of them."
    return Figure("Metric by slice", caption, chart.svg(f"{metric.name} of slices of the held-out rows"))


def learning_curve_figure(evaluation: EvaluationResult) -> Figure | None:
    """Draw the deciding metric against the number of training rows."""
    metric = evaluation.measures[0]
    points = sorted((float(point.rows), point.score) for point in evaluation.learning if point.score is not None)
    if len(points) < 2:
        return None
    x = number_axis("training rows", [0.0, *(rows for rows, _ in points)], is_whole=True)
    chart = Chart(x, number_axis(axis_label(metric), [score for _, score in points]))
    chart.line(points, "a")
    chart.dots(points, "big a")
    slope = "rising" if metric.greater_is_better else "falling"
    caption = (
        f"If the curve is still {slope} at the right end, more rows would help; if it is flat, other features would."
    )
    return Figure("Learning curve", caption, chart.svg(f"{metric.name} against training rows"))


def search_figure(search: SearchRun) -> Figure | None:
    """Draw the score of each trial, and the best score so far."""
    scores = pd.to_numeric(search.trials["score"], errors="coerce")
    is_scored = scores.notna()
    if is_scored.sum() < 2:
        return None
    metric = Metric(name=search.metric)
    scores, numbers = scores[is_scored], search.trials["number"][is_scored].astype(float)
    best = scores.cummax() if metric.greater_is_better else scores.cummin()
    start = "default trees" if search.is_over_kinds else "model's own hyperparameters"
    x = number_axis(f"trial (0: the {start})", [0.0, *numbers], is_whole=True)
    direction = "higher is better" if metric.greater_is_better else "lower is better"
    chart = Chart(x, number_axis(f"{metric.name}, mean of the folds ({direction})", scores))
    chart.rule(y=float(scores.iloc[0]))
    chart.line(list(zip(numbers, best, strict=True)), "b", is_step=True)
    chart.dots(list(zip(numbers, scores, strict=True)), "big a")
    caption = f"Each dot is a trial, the stepped line the best score so far, the dashed line the {start}."
    return Figure("Trials", caption, chart.svg(f"{metric.name} of each trial"))


def metric_pair_figure(metric: Metric, values: Mapping[str, float | None]) -> Figure | None:
    """Draw one metric of two versions; return None if one of them has no value."""
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < 2:
        return None
    chart = Chart.with_rows(number_axis(axis_label(metric), known.values()), list(known))
    first, second = known.values()
    chart.diamond(first, 0, "b")
    chart.dots([(second, 1)], "big a")
    caption = f"The diamond is {next(iter(known))}, the dot {list(known)[1]}."
    return Figure(metric.name, caption, chart.svg(f"{metric.name} of both versions"))


def axis_label(metric: Metric) -> str:
    """Return the axis label of a metric, with the direction that is better."""
    return f"{metric.name} ({'higher' if metric.greater_is_better else 'lower'} is better)"
