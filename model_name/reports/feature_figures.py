"""Figures of feature importances, of the contributions of single rows, and of the inputs' distributions."""

import numpy as np
import pandas as pd
from markupsafe import Markup

from model_name.core.formatting import format_percent
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import label_text
from model_name.reports.artifacts import VersionArtifacts
from model_name.reports.figures import Figure
from model_name.reports.svg import SHADES, Axis, Chart, number_axis, sparkline_svg
from model_name.results import ExplanationResult
from model_name.serving.bundle import ColumnProfile
from model_name.serving.model_card.descriptions import MAX_BARS, bin_shares

MAX_FEATURES = 15  # in the importance figure; the table lists the others
MAX_BEESWARM_FEATURES = 8
MAX_DEPENDENCE_FIGURES = 4


def importance_figure(explanation: ExplanationResult, other: ExplanationResult | None, other_label: str) -> Figure:
    """Draw the share of each feature in all contributions, beside that in another version."""
    shares = importance_shares(explanation)
    shown = list(shares)[:MAX_FEATURES]
    other_shares = importance_shares(other) if other else {}
    largest = max([shares[name] for name in shown] + [other_shares.get(name, 0.0) for name in shown])
    axis = number_axis(f"share of all {effect_name(explanation)}s in %", [0.0, 100 * largest * 1.15])
    chart = Chart.with_rows(axis, shown)
    for row, name in enumerate(shown):
        chart.bar(100 * shares[name], row, "a", label="" if other else format_percent(shares[name]))
        if name in other_shares:
            chart.diamond(100 * other_shares[name], row, "b")
    caption = f"Features with longer bars move the {explanation.scale} more, up or down."
    caption += f" Diamonds are {other_label}." if other else ""
    return Figure("Importance", caption, chart.svg("Share of each feature in all contributions"))


def importance_shares(explanation: ExplanationResult) -> dict[str, float]:
    """Return the importances, in their order, as shares that sum to 1, so that scales can be compared."""
    total = sum(explanation.importances.values()) or 1.0
    return {name: value / total for name, value in explanation.importances.items()}


def beeswarm_figure(artifacts: VersionArtifacts) -> Figure | None:
    """Draw the contributions of each feature to single rows, coloured by the feature's value."""
    explanation, rows, values = artifacts.explanation, artifacts.contributions, artifacts.values
    if explanation is None or rows is None:
        return None
    shown = [name for name in explanation.importances if name in rows.columns][:MAX_BEESWARM_FEATURES]
    axis = number_axis(
        effect_label(artifacts.manifest.table, explanation), [0.0, *rows[shown].to_numpy(dtype=float).ravel()]
    )
    chart = Chart.with_rows(axis, shown)
    chart.rule(x=0.0)
    for row, name in enumerate(shown):
        effects = rows[name].to_numpy(dtype=float)
        heights = [row - offset for offset in beeswarm_offsets(effects, axis)]
        shades = value_shades(values[name]) if values is not None and name in values.columns else None
        for shade in [None] if shades is None else range(SHADES):
            is_drawn = np.ones(len(effects), dtype=bool) if shades is None else shades == shade
            points = [(float(effects[index]), heights[index]) for index in np.flatnonzero(is_drawn)]
            if points:
                chart.dots(points, "small c" if shade is None else f"small q{shade}")
        if shades is not None and (unordered := np.flatnonzero(shades < 0)).size:
            chart.dots([(float(effects[index]), heights[index]) for index in unordered], "small c")
    caption = (
        f"Each dot is one of {len(rows)} held-out rows: to the right, the feature raised the {explanation.scale}. "
        "Colour runs from low (blue) to high values (orange); grey values have no order or are missing."
    )
    return Figure("Contributions by row", caption, chart.svg("Contributions of each feature to single rows"))


def effect_label(schema: TableSchema, explanation: ExplanationResult) -> str:
    """Return the axis label of a contribution."""
    effect = effect_name(explanation)
    if explanation.scale == "prediction":
        return f"{effect} in {schema.target.name}"
    label = label_text(schema.classes[1]) if len(schema.classes) == 2 else "the predicted class"
    return f"{effect} to the {explanation.scale} of {label}"


def effect_name(explanation: ExplanationResult) -> str:
    """Return the name of a feature's effect in a row; LIME's do not add up, so that they are called weights."""
    return "weight" if explanation.method == "lime" else "contribution"


def beeswarm_offsets(values: np.ndarray, axis: Axis) -> list[float]:
    """Return vertical offsets (at most 0.4 of a row) that keep dots of similar value from hiding each other."""
    bins = np.floor((values - axis.low) / (axis.high - axis.low) * 80).astype(int)
    counts = dict(zip(*np.unique(bins, return_counts=True), strict=True))
    step = min(0.12, 0.8 / max(counts.values()))
    last_position: dict[int, int] = {}
    offsets = []
    for index in bins.tolist():
        position = last_position[index] = last_position.get(index, -1) + 1
        offsets.append(step * ((position + 1) // 2) * (1 if position % 2 else -1))
    return offsets


def value_shades(values: pd.Series) -> np.ndarray:
    """Return shades by rank, from 0 (low) to 4 (high); -1 for values that have no order."""
    if values.dtype == object:
        return np.full(len(values), -1)
    rank = values.rank(method="average", pct=True).to_numpy()
    return np.where(np.isnan(rank), -1, np.minimum(np.nan_to_num(rank) * SHADES, SHADES - 1).astype(int))


def dependence_figures(artifacts: VersionArtifacts) -> list[Figure]:
    """Draw contribution against value for the most important features."""
    explanation, rows, values = artifacts.explanation, artifacts.contributions, artifacts.values
    if explanation is None or rows is None or values is None:
        return []
    shown = [name for name in explanation.importances if name in rows.columns and name in values.columns]
    label = effect_label(artifacts.manifest.table, explanation)
    booleans = {name for name, column in artifacts.manifest.table.columns.items() if column.kind == "boolean"}
    return [
        dependence_figure(name, boolean_labels(values[name]) if name in booleans else values[name], rows[name], label)
        for name in shown[:MAX_DEPENDENCE_FIGURES]
        if values[name].notna().any()
    ]


def boolean_labels(values: pd.Series) -> pd.Series:
    """Replace booleans that are stored as numbers by `true` and `false`."""
    return values.map({0.0: "false", 1.0: "true"}).astype(object)


def dependence_figure(name: str, values: pd.Series, effects: pd.Series, label: str) -> Figure:
    """Draw contribution against value for one feature; categories are rows, numbers an axis."""
    is_known = values.notna().to_numpy()
    known, effect = values[is_known], effects[is_known].astype(float)
    if values.dtype == object:
        names = list(known.value_counts().index[:MAX_FEATURES])
        axis = number_axis(label, [0.0, *effect])
        chart = Chart.with_rows(axis, [str(value) for value in names])
        chart.rule(x=0.0)
        for row, value in enumerate(names):
            own = effect[(known == value).to_numpy()].to_numpy()
            chart.dots(
                [(float(x), row - offset) for x, offset in zip(own, beeswarm_offsets(own, axis), strict=True)],
                "small a",
            )
        caption = "Each dot is a held-out row with this value; to the right, the value raised the prediction."
    else:
        chart = Chart(number_axis(name, known.astype(float)), number_axis(label, [0.0, *effect]))
        chart.rule(y=0.0)
        chart.dots(list(zip(known.astype(float), effect, strict=True)), "a")
        caption = "Each dot is a held-out row; above the line, the value raised the prediction."
    return Figure(f"Effect of {name}", caption, chart.svg(f"Contribution of {name} by its value"))


def sparkline(name: str, profile: ColumnProfile) -> Markup | None:
    """Draw the distribution of a column in the training part, or return None if it is not known."""
    if profile.quantiles:
        return sparkline_svg(bin_shares(profile.quantiles), f"Distribution of {name}")
    if profile.shares:
        return sparkline_svg(list(profile.shares.values())[:MAX_BARS], f"Shares of {name}, the most frequent first")
    return None
