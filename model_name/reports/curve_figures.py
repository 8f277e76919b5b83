"""Figures of the curves of an evaluation: residuals, ROC, calibration, confusion matrix and others."""

from collections.abc import Sequence
from datetime import UTC, datetime

from model_name.core.evaluation.curves import Curves, ResidualQuantiles
from model_name.core.formatting import format_percent
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import label_text
from model_name.reports.figures import Figure
from model_name.reports.svg import Chart, format_tick, heatmap, number_axis, share_axis, time_axis
from model_name.results import EvaluationResult

MAX_CLASSES = 12  # of a confusion matrix that is still readable


def curve_figures(schema: TableSchema, evaluation: EvaluationResult) -> list[Figure]:
    """Draw the curves that an evaluation has."""
    curves, unit = evaluation.curves, schema.target.name
    labels = [label_text(label) for label in schema.classes]
    figures = [
        predicted_figure(curves, unit),
        residual_figure(curves.residuals, unit, schema.time),
        coverage_figure(curves, unit),
        roc_figure(curves),
        precision_recall_figure(curves),
        calibration_figure(evaluation),
        confusion_figure(curves, labels),
    ]
    return [figure for figure in figures if figure is not None]


def predicted_figure(curves: Curves, unit: str) -> Figure | None:
    """Draw actual against predicted values."""
    if not curves.predicted:
        return None
    points = [(point.x, point.y) for point in curves.predicted]
    x = number_axis(f"predicted {unit}", [value for point in points for value in point])
    y = number_axis(f"actual {unit}", [value for point in points for value in point])
    chart = Chart(x, y, height=300)
    chart.line([(x.low, x.low), (x.high, x.high)], "rule c")
    chart.dots(points, "a")
    caption = f"Each dot is one of {len(points):,} held-out rows; on the dashed line, the prediction was exact."
    return Figure("Predicted and actual", caption, chart.svg(f"Predicted against actual {unit}"))


def residual_figure(bands: Sequence[ResidualQuantiles], unit: str, time: str | None) -> Figure | None:
    """Draw the median and the spread of the residuals over time, or over the prediction without a time column."""
    if len(bands) < 2:
        return None
    moments = [parse_timestamp(band.x) for band in bands]
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
        "Actual minus predicted value: the line is the median, the area holds 80 % of the rows. A line that leaves "
        "zero is a bias, an area that widens a growing error."
    )
    return Figure(
        f"Residuals along {time or 'the prediction'}", caption, chart.svg(f"Residuals in {unit} with their spread")
    )


def parse_timestamp(text: str) -> float | None:
    """Parse a moment in ISO 8601 into seconds since 1970; return None if the text is a number."""
    try:
        float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def coverage_figure(curves: Curves, unit: str) -> Figure | None:
    """Draw the observed against the nominal coverage of the prediction intervals."""
    if not curves.coverage:
        return None
    levels = sorted(curves.coverage, key=lambda coverage: coverage.level)
    chart = Chart(share_axis("nominal coverage"), share_axis("observed coverage"))
    chart.line([(0.0, 0.0), (1.0, 1.0)], "rule c")
    chart.line([(coverage.level, coverage.observed) for coverage in levels], "a")
    chart.dots([(coverage.level, coverage.observed) for coverage in levels], "big a")
    widest = levels[-1]
    caption = (
        f"How often the actual value lay in the prediction interval; on the dashed line, as often as promised. "
        f"Intervals of {100 * widest.level:g} % are {format_tick(widest.width)} wide on average (in {unit})."
    )
    return Figure("Coverage of the intervals", caption, chart.svg("Nominal against observed coverage"))


def roc_figure(curves: Curves) -> Figure | None:
    """Draw the true positive rate against the false positive rate."""
    if not curves.roc:
        return None
    chart = Chart(share_axis("false positives, of all negatives"), share_axis("true positives, of all positives"), 300)
    chart.line([(0.0, 0.0), (1.0, 1.0)], "rule c")
    chart.line([(point.x, point.y) for point in curves.roc], "a")
    caption = "Each point is a threshold, with its false and true positives; the dashed line is guessing."
    return Figure("ROC curve", caption, chart.svg("ROC curve"))


def precision_recall_figure(curves: Curves) -> Figure | None:
    """Draw precision against recall."""
    if not curves.precision_recall:
        return None
    x = share_axis("recall: found, of all positives")
    chart = Chart(x, share_axis("precision: correct, of all predicted positive"), 300)
    rows = sum(map(sum, curves.confusion))
    if rows and len(curves.confusion) == 2:
        chart.rule(y=sum(curves.confusion[1]) / rows)
    chart.line([(point.x, point.y) for point in curves.precision_recall], "a")
    caption = "Each point is a threshold: a lower one finds more positives (recall) at the cost of precision."
    caption += " The dashed line is guessing."
    return Figure("Precision and recall", caption, chart.svg("Precision against recall"))


def calibration_figure(evaluation: EvaluationResult) -> Figure | None:
    """Draw observed frequencies against predicted probabilities."""
    bins = evaluation.curves.calibration
    if not bins:
        return None
    chart = Chart(share_axis("predicted probability"), share_axis("observed frequency"), 300)
    chart.line([(0.0, 0.0), (1.0, 1.0)], "rule c")
    chart.line([(each.predicted, each.observed) for each in bins], "a")
    chart.dots([(each.predicted, each.observed) for each in bins], "big a")
    caption = "On the dashed line, an event predicted with 30 % happens in 3 of 10 cases; above it, more often."
    if evaluation.calibration_error is not None:
        caption += f" The mean distance (ECE) is {format_percent(evaluation.calibration_error)}"
        before = evaluation.calibration_error_before
        caption += "." if before is None else f", without calibration {format_percent(before)}."
    return Figure("Calibration", caption, chart.svg("Predicted probability against observed frequency"))


def confusion_figure(curves: Curves, labels: Sequence[str]) -> Figure | None:
    """Draw the confusion matrix, unless it has too many classes to read."""
    if not curves.confusion or not len(curves.confusion) == len(labels) <= MAX_CLASSES:
        return None
    caption = "Held-out rows by actual (left) and predicted class (top); the diagonal is correct."
    return Figure("Confusion matrix", caption, heatmap(curves.confusion, labels, "Actual against predicted classes"))
