"""The pictures of what a version is worth: what each shows, and one sentence that says how to read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
from markupsafe import Markup

from model_name.core.formatting import percent
from model_name.core.metrics import Metric
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import label_text
from model_name.jobs.evaluations import CONSTANT, EvaluationResult
from model_name.reports.artifacts import Band, Curves, Detail, Search
from model_name.reports.svg import Chart, heat, number_axis, number_text, share_axis, time_axis

THIS = "this version"
CLASSES = 12  # of a confusion matrix that can be read


@dataclass(frozen=True)
class Picture:
    """A picture with its words.

    Attributes:
        title: What it shows.
        caption: How to read it.
        svg: The picture.
    """

    title: str
    caption: str
    svg: Markup


def metric_pictures(evaluation: EvaluationResult, detail: Detail) -> list[Picture]:
    """Each metric as a dot a model, with the interval of this version where it is known."""
    return [
        picture for metric in evaluation.measures if (picture := metric_picture(metric, evaluation, detail)) is not None
    ]


def metric_picture(metric: Metric, evaluation: EvaluationResult, detail: Detail) -> Picture | None:
    """One metric of all models; None where this version has no value."""
    value = evaluation.metrics[metric.name]
    if value is None:
        return None
    champion = evaluation.champion.metrics.get(metric.name) if evaluation.champion else None
    others = (
        {f"champion {evaluation.champion.semver}": champion} if evaluation.champion and champion is not None else {}
    )
    others |= {
        who: score for who, scores in evaluation.references.items() if (score := scores[metric.name]) is not None
    }
    interval = detail.intervals.get(metric.name)
    ends = [interval.low, interval.high] if interval else []
    limit = [metric.threshold] if metric.threshold is not None else []
    direction = "higher is better" if metric.greater_is_better else "lower is better"
    axis = number_axis(f"{metric.name} ({direction})", [value, *others.values(), *ends, *limit])
    chart = Chart.of_rows(axis, [THIS, *others])
    if limit:
        chart.rule(x=limit[0], style="limit")
    if interval:
        chart.whisker(interval.low, interval.high, 0, "a")
    chart.dots([(value, 0)], "big a")
    for row, score in enumerate(others.values(), start=1):
        chart.diamond(score, row, "b" if row == 1 and champion is not None else "c")
    words = "the dot is this version, diamonds are the others"
    words += "; the whisker holds its true value with 95 % confidence" if interval else ""
    words += "; the dashed line is the threshold" if limit else ""
    return Picture(metric.name, f"{words[0].upper()}{words[1:]}.", chart.svg(f"{metric.name} of each model"))


def difference_picture(detail: Detail) -> Picture | None:
    """How far this version is from each of the others, with intervals."""
    # A constant is so far away, as a rule, that beside it no whisker of the others could be seen.
    shown = [found for found in detail.differences if found.against != CONSTANT] or detail.differences
    if not shown:
        return None
    metric = Metric(name=shown[0].metric)
    ends = [end for found in shown for end in (found.low, found.high)]
    label = f"{metric.name}: this version minus the other"
    chart = Chart.of_rows(number_axis(label, [0.0, *ends]), [f"to {found.against}" for found in shown])
    chart.rule(x=0.0)
    for row, found in enumerate(shown):
        chart.whisker(found.low, found.high, row, "a")
        chart.dots([(found.value, row)], "big a")
    side = "right" if metric.greater_is_better else "left"
    caption = (
        f"If it lies wholly to the {side} of zero, this version is better; if across zero, the two cannot be told "
        "apart (95 %, the same rows for both)."
    )
    return Picture("Difference to the others", caption, chart.svg(f"Differences in {metric.name} with intervals"))


def slice_picture(evaluation: EvaluationResult, detail: Detail) -> Picture | None:
    """The deciding metric of each part of the rows, the found ones first."""
    metric = evaluation.measures[0]
    parts = {part.words: part.metrics.get(metric.name) for part in detail.worst_slices}
    parts |= {f"{part.column} is {part.value}": part.metrics.get(metric.name) for part in evaluation.slices}
    known = {words: value for words, value in parts.items() if value is not None}
    overall = evaluation.metrics[metric.name]
    if not known or overall is None:
        return None
    direction = "higher is better" if metric.greater_is_better else "lower is better"
    chart = Chart.of_rows(
        number_axis(f"{metric.name} ({direction})", [overall, *known.values()]), list(known), longest=30
    )
    chart.rule(x=overall)
    for row, value in enumerate(known.values()):
        chart.dots([(value, row)], "big a")
    caption = "Each dot is a part of the held-out rows, the line is all of them."
    return Picture("Part by part", caption, chart.svg(f"{metric.name} of parts of the held-out rows"))


def curve_pictures(schema: TableSchema, detail: Detail) -> list[Picture]:
    """What the curves of an evaluation show; those that it does not have are left out."""
    curves, unit = detail.curves, schema.target.name
    labels = [label_text(label) for label in schema.classes]
    found = [
        predicted_picture(curves, unit),
        residual_picture(curves.residuals, unit, schema.time),
        coverage_picture(detail, unit),
        roc_picture(curves),
        precision_recall_picture(curves),
        calibration_picture(detail),
        confusion_picture(curves, labels),
    ]
    return [picture for picture in found if picture is not None]


def predicted_picture(curves: Curves, unit: str) -> Picture | None:
    """Predicted against actual values."""
    if not curves.predicted:
        return None
    points = [(point.x, point.y) for point in curves.predicted]
    x = number_axis(f"predicted {unit}", [value for point in points for value in point])
    y = number_axis(f"actual {unit}", [value for point in points for value in point])
    chart = Chart(x, y, height=300)
    chart.line([(x.low, x.low), (x.high, x.high)], "rule c")
    chart.dots(points, "a")
    caption = f"Each dot is one of {len(points):,} held-out rows; on the line, the prediction was exact."
    return Picture("Predicted and actual", caption, chart.svg(f"Predicted against actual {unit}"))


def residual_picture(bands: Sequence[Band], unit: str, time: str | None) -> Picture | None:
    """The middle and the spread of the residuals along time or rows."""
    if len(bands) < 2:
        return None
    moments = [seconds(band.x) for band in bands]
    if None not in moments:
        places = [moment for moment in moments if moment is not None]
        x = time_axis(time or "time", places)
    else:
        places = [float(band.x) for band in bands]
        x = number_axis(f"predicted {unit}", places)
    y = number_axis(f"residual in {unit}", [0.0, *(end for band in bands for end in (band.low, band.high))])
    chart = Chart(x, y)
    chart.band(places, [band.low for band in bands], [band.high for band in bands], "a")
    chart.rule(y=0.0)
    chart.line(list(zip(places, (band.middle for band in bands), strict=True)), "a")
    caption = (
        "Actual less predicted: the line is the median, the area holds eight of ten rows. A line that leaves zero is a "
        "bias, an area that widens a growing error."
    )
    return Picture(
        f"Residuals along {time or 'the prediction'}", caption, chart.svg(f"Residuals in {unit} with their spread")
    )


def seconds(text: str) -> float | None:
    """A moment in ISO 8601 as seconds since 1970; None where the text is a number."""
    try:
        float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def coverage_picture(detail: Detail, unit: str) -> Picture | None:
    """Promised against observed coverage of the predicted intervals."""
    if not detail.curves.coverage:
        return None
    levels = sorted(detail.curves.coverage, key=lambda found: found.level)
    chart = Chart(share_axis("promised share"), share_axis("observed share"))
    chart.line([(0.0, 0.0), (1.0, 1.0)], "rule c")
    chart.line([(found.level, found.observed) for found in levels], "a")
    chart.dots([(found.level, found.observed) for found in levels], "big a")
    widest = levels[-1]
    caption = (
        f"How often the actual value lay in the predicted interval; on the line, as often as promised. Intervals of "
        f"{100 * widest.level:g} % are {number_text(widest.width)} wide on average (in {unit})."
    )
    return Picture("Coverage of the intervals", caption, chart.svg("Promised against observed coverage"))


def roc_picture(curves: Curves) -> Picture | None:
    """True against false positives."""
    if not curves.roc:
        return None
    chart = Chart(share_axis("false positives, of all negatives"), share_axis("true positives, of all positives"), 300)
    chart.line([(0.0, 0.0), (1.0, 1.0)], "rule c")
    chart.line([(point.x, point.y) for point in curves.roc], "a")
    caption = "What each threshold would find and what it would raise in vain; the dashed line is guessing."
    return Picture("ROC curve", caption, chart.svg("ROC curve"))


def precision_recall_picture(curves: Curves) -> Picture | None:
    """Precision against recall."""
    if not curves.precision_recall:
        return None
    chart = Chart(share_axis("recall: found, of all positives"), share_axis("precision: right, of all raised"), 300)
    rows = sum(map(sum, curves.confusion))
    if rows and len(curves.confusion) == 2:
        chart.rule(y=sum(curves.confusion[1]) / rows)
    chart.line([(point.x, point.y) for point in curves.precision_recall], "a")
    caption = "How much of what it raises is right, the more it is to find; the dashed line is guessing."
    return Picture("Precision and recall", caption, chart.svg("Precision against recall"))


def calibration_picture(detail: Detail) -> Picture | None:
    """Predicted against observed probabilities."""
    bins = detail.curves.calibration
    if not bins:
        return None
    chart = Chart(share_axis("predicted probability"), share_axis("observed share"), 300)
    chart.line([(0.0, 0.0), (1.0, 1.0)], "rule c")
    chart.line([(found.predicted, found.observed) for found in bins], "a")
    chart.dots([(found.predicted, found.observed) for found in bins], "big a")
    error = detail.calibration_error
    before = detail.calibration_error_before
    words = "" if error is None else f" The mean distance is {percent(error)}"
    words += "" if before is None else f", without the calibration {percent(before)}"
    words += "" if error is None else "."
    return Picture(
        "Calibration",
        f"On the line, an event that is given 30 % happens in 3 of 10 cases; above it, more often than it says.{words}",
        chart.svg("Predicted probability against observed share"),
    )


def confusion_picture(curves: Curves, labels: Sequence[str]) -> Picture | None:
    """Actual against predicted classes."""
    if not curves.confusion or not len(curves.confusion) == len(labels) <= CLASSES:
        return None
    caption = "Held-out rows by their actual (left) and predicted class (above); the diagonal is right."
    return Picture("Confusion matrix", caption, heat(curves.confusion, labels, "Actual against predicted classes"))


def learning_picture(detail: Detail, metric: Metric) -> Picture | None:
    """The deciding metric against the rows that were learnt from."""
    if len(detail.learning) < 2:
        return None
    points = [(float(found.rows), found.score) for found in sorted(detail.learning, key=lambda found: found.rows)]
    direction = "higher is better" if metric.greater_is_better else "lower is better"
    x = number_axis("rows learnt from", [0.0, *(rows for rows, _ in points)], is_whole=True)
    chart = Chart(x, number_axis(f"{metric.name} ({direction})", [score for _, score in points]))
    chart.line(points, "a")
    chart.dots(points, "big a")
    way = "rising" if metric.greater_is_better else "falling"
    caption = f"Still {way} at the right end, more rows would help; flat, other features would."
    return Picture("Learning curve", caption, chart.svg(f"{metric.name} against rows learnt from"))


def search_picture(search: Search) -> Picture | None:
    """The score of each trial, and the best so far."""
    scores = pd.to_numeric(search.trials["score"], errors="coerce")
    done = scores.notna()
    if done.sum() < 2:
        return None
    metric = Metric(name=search.metric)
    numbers = search.trials["number"][done].astype(float)
    best = scores[done].cummax() if metric.greater_is_better else scores[done].cummin()
    direction = "higher is better" if metric.greater_is_better else "lower is better"
    own = "default trees" if search.is_over_kinds else "model's own hyperparameters"
    x = number_axis(f"trial (0: the {own})", [0.0, *numbers], is_whole=True)
    chart = Chart(x, number_axis(f"{metric.name}, mean of the folds ({direction})", scores[done]))
    chart.rule(y=float(scores[done].iloc[0]))
    chart.line(list(zip(numbers, best, strict=True)), "b", is_step=True)
    chart.dots(list(zip(numbers, scores[done], strict=True)), "big a")
    caption = f"Each dot is a trial, the stair the best so far, the dashed line the {own}."
    return Picture("Trials", caption, chart.svg(f"{metric.name} of each trial"))


def metric_pair(metric: Metric, values: Mapping[str, float | None]) -> Picture | None:
    """One metric of two versions."""
    known = {who: value for who, value in values.items() if value is not None}
    if len(known) < 2:
        return None
    direction = "higher is better" if metric.greater_is_better else "lower is better"
    chart = Chart.of_rows(number_axis(f"{metric.name} ({direction})", known.values()), list(known))
    first, second = known.values()
    chart.diamond(first, 0, "b")
    chart.dots([(second, 1)], "big a")
    caption = f"The diamond is {next(iter(known))}, the dot {list(known)[1]}."
    return Picture(metric.name, caption, chart.svg(f"{metric.name} of both versions"))
