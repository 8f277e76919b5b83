"""Descriptions of the columns and the decision of a bundle, in sentences for people."""

from collections.abc import Iterator, Sequence

import numpy as np

from model_name.core.decisions.decision import PredictionIntervals
from model_name.core.formatting import format_number, format_percent
from model_name.core.schemas.columns import Column, label_text
from model_name.core.schemas.lags import LagSpec
from model_name.serving.bundle import ColumnProfile, Manifest
from model_name.serving.model_card.form import option_label
from model_name.serving.openapi.column_schemas import describe_bounds

MAX_BARS = 24
MAX_CATEGORIES = 12
MAX_SHARES = 3
BOOLEANS = {"1.0": "true", "0.0": "false"}  # a validated table holds booleans as numbers
CALIBRATIONS = {
    "sigmoid": "Probabilities are calibrated by a sigmoid of their log-odds.",
    "isotonic": "Probabilities are calibrated by isotonic regression.",
    "temperature": "Probabilities are calibrated by temperature.",
}


def describe_accepted_values(column: Column, known: tuple[str, ...]) -> str:
    """Describe the values of a column that a request may hold.

    Args:
        column: The column.
        known: Categories of the column that may be published.
    """
    match column.kind:
        case "numeric":
            is_bound = column.min is not None or column.max is not None
            clipped = ", else clipped" if column.out_of_bounds == "clip" else ""
            text = describe_bounds(column) + clipped if is_bound else "any number"
        case "boolean":
            text = "true or false"
        case "datetime":
            text = "date and time"
        case _:
            text = describe_categories(column, known)
    return f"{text}; may be missing" if column.nullable else text


def describe_categories(column: Column, known: tuple[str, ...]) -> str:
    """Describe the known categories of a column, and how others are handled."""
    left = len(known) - MAX_CATEGORIES
    first = ", ".join(option_label(value) for value in known[:MAX_CATEGORIES]) or "any text"
    is_refused = column.values is not None and column.unseen == "refuse"
    others = "others are refused" if is_refused else "others count as missing"
    return f"{first}{f' and {left:,} more' if left > 0 else ''}" + (f"; {others}" if known else "")


def describe_lag(lag: LagSpec) -> str:
    """Describe from which earlier rows a column is computed."""
    by = f", of the same {' and '.join(lag.by)}" if lag.by else ""
    if lag.window:
        return f"Mean of {lag.of} over the {lag.window} that ended {lag.lag} before{by}."
    if lag.repeats > 1:
        return f"Mean of {lag.of} at {lag.repeats} times, each {lag.lag} before the next{by}."
    return f"{lag.of}, {lag.lag} before{by}."


def describe_profile(column: Column, profile: ColumnProfile) -> str:
    """Summarize the training rows of a column: minimum, median and maximum, or the most frequent values."""
    if profile.quantiles:
        median = profile.quantiles[len(profile.quantiles) // 2]
        return " … ".join(map(format_number, (profile.quantiles[0], median, profile.quantiles[-1])))
    names = BOOLEANS if column.kind == "boolean" else {}
    first = list(profile.shares.items())[:MAX_SHARES]
    text = ", ".join(f"{names.get(value, value)} {format_percent(share)}" for value, share in first)
    left = len(profile.shares) - MAX_SHARES
    return f"{text}, {left:,} more" if left > 0 else text


def bin_shares(quantiles: Sequence[float]) -> list[float]:
    """Compute the share of the rows in each of `MAX_BARS` equally wide bins, from equally spaced quantiles."""
    low, high = quantiles[0], quantiles[-1]
    if low == high:
        return [1.0]
    # From 0 to 1, because the slope of an interpolation over a tiny span would be infinite.
    positions = (np.asarray(quantiles) - low) / (high - low)
    cumulative = np.interp(np.linspace(0, 1, MAX_BARS + 1), positions, np.linspace(0, 1, len(quantiles)))
    cumulative[0] = 0.0
    return [float(share) for share in np.diff(cumulative)]


def describe_decision(manifest: Manifest) -> Iterator[str]:
    """Describe in sentences how predictions are made from scores."""
    decision, classes = manifest.decision, manifest.table.classes
    if not classes:
        if decision.intervals:
            yield from describe_intervals(decision.intervals)
        else:
            yield "There are no prediction intervals."
        return
    yield CALIBRATIONS[decision.calibrator.KIND] if decision.calibrator else "Probabilities are not calibrated."
    if decision.threshold is None:
        yield "The most probable class is predicted."
    else:
        threshold = format_number(decision.threshold)
        yield f"{label_text(classes[1])} is predicted from a probability of {threshold}."
    if decision.costs:
        costs = decision.costs
        yield f"A false positive costs {costs.false_positive:g}, a false negative {costs.false_negative:g}."


def describe_intervals(intervals: PredictionIntervals) -> Iterator[str]:
    """Describe the width of prediction intervals, one sentence per level."""
    for level, halves in zip(intervals.levels, intervals.halves, strict=True):
        low, high = format_number(min(halves)), format_number(max(halves))
        width = f"±{low}" if low == high else f"±{low} to ±{high}, depending on the prediction"
        yield f"The prediction interval of level {level:.4g} is {width}."
    yield f"The intervals were estimated on {intervals.rows:,} rows that the model was not trained on."
