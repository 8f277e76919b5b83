"""The pictures of what a version looks at: importances, contributions row by row, and the inputs themselves."""

import numpy as np
import pandas as pd
from markupsafe import Markup

from model_name.core.formatting import format_percent
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import label_text
from model_name.reports.artifacts import Findings
from model_name.reports.figures import Figure
from model_name.reports.svg import SHADES, Axis, Chart, number_axis, sparkline_svg
from model_name.results import ExplanationResult
from model_name.serving.bundle import ColumnProfile
from model_name.serving.model_card.descriptions import MAX_BARS, bin_shares

MAX_FEATURES = 15  # features, the others are in the table
MAX_BEESWARM_FEATURES = 8
MAX_DEPENDENCE_FIGURES = 4


def importance_figure(now: ExplanationResult, before: ExplanationResult | None, other: str) -> Figure:
    """The share of each feature in all contributions, and what it was for another version."""
    shares = importance_shares(now)
    shown = list(shares)[:MAX_FEATURES]
    theirs = importance_shares(before) if before else {}
    largest = max([shares[name] for name in shown] + [theirs.get(name, 0.0) for name in shown])
    axis = number_axis(f"share of all {effect_name(now)}s in %", [0.0, 100 * largest * 1.15])
    chart = Chart.with_rows(axis, shown)
    for row, name in enumerate(shown):
        chart.bar(100 * shares[name], row, "a", words="" if before else format_percent(shares[name]))
        if name in theirs:
            chart.diamond(100 * theirs[name], row, "b")
    caption = f"Longer bars move the {now.scale} more, up or down."
    caption += f" Diamonds are {other}." if before else ""
    return Figure("Importance", caption, chart.svg("Share of each feature in all contributions"))


def importance_shares(found: ExplanationResult) -> dict[str, float]:
    """The importances, in their order, as shares that sum to 1: comparable between scales."""
    total = sum(found.importances.values()) or 1.0
    return {name: value / total for name, value in found.importances.items()}


def beeswarm_figure(findings: Findings) -> Figure | None:
    """The contributions of single rows to each feature, shaded by its value."""
    explanation, rows, values = findings.explanation, findings.contributions, findings.values
    if explanation is None or rows is None:
        return None
    shown = [name for name in explanation.importances if name in rows.columns][:MAX_BEESWARM_FEATURES]
    axis = number_axis(
        effect_label(findings.manifest.table, explanation), [0.0, *rows[shown].to_numpy(dtype=float).ravel()]
    )
    chart = Chart.with_rows(axis, shown)
    chart.rule(x=0.0)
    for row, name in enumerate(shown):
        moved = rows[name].to_numpy(dtype=float)
        lifted = [row - lift for lift in beeswarm_offsets(moved, axis)]
        shades = value_shades(values[name]) if values is not None and name in values.columns else None
        for shade in [None] if shades is None else range(SHADES):
            chosen = np.ones(len(moved), dtype=bool) if shades is None else shades == shade
            points = [(float(moved[at]), lifted[at]) for at in np.flatnonzero(chosen)]
            if points:
                chart.dots(points, "small c" if shade is None else f"small q{shade}")
        if shades is not None and (rest := np.flatnonzero(shades < 0)).size:
            chart.dots([(float(moved[at]), lifted[at]) for at in rest], "small c")
    caption = (
        f"Each dot is one of {len(rows)} held-out rows: to the right, the feature raised the {explanation.scale}. "
        "Colour runs from low (blue) to high values (orange); grey has no order or is missing."
    )
    return Figure("Row by row", caption, chart.svg("Contributions of each feature to single rows"))


def effect_label(schema: TableSchema, explanation: ExplanationResult) -> str:
    """What a contribution is measured in."""
    word = effect_name(explanation)
    if explanation.scale == "prediction":
        return f"{word} in {schema.target.name}"
    whose = label_text(schema.classes[1]) if len(schema.classes) == 2 else "the predicted class"
    return f"{word} to the {explanation.scale} of {whose}"


def effect_name(explanation: ExplanationResult) -> str:
    """What a feature has in a row: LIME's weights are no contributions, they do not add up."""
    return "weight" if explanation.method == "lime" else "contribution"


def beeswarm_offsets(values: np.ndarray, axis: Axis) -> list[float]:
    """How far dots are lifted from the middle of their line (0.4 of it at most), so that none hides another."""
    bins = np.floor((values - axis.low) / (axis.high - axis.low) * 80).astype(int)
    counts = dict(zip(*np.unique(bins, return_counts=True), strict=True))
    step = min(0.12, 0.8 / max(counts.values()))
    seen: dict[int, int] = {}
    lifts = []
    for place in bins.tolist():
        nth = seen[place] = seen.get(place, -1) + 1
        lifts.append(step * ((nth + 1) // 2) * (1 if nth % 2 else -1))
    return lifts


def value_shades(values: pd.Series) -> np.ndarray:
    """0 (low) to 4 (high) by rank; -1 where there is no order."""
    if values.dtype == object:
        return np.full(len(values), -1)
    rank = values.rank(method="average", pct=True).to_numpy()
    return np.where(np.isnan(rank), -1, np.minimum(np.nan_to_num(rank) * SHADES, SHADES - 1).astype(int))


def dependence_figures(findings: Findings) -> list[Figure]:
    """For the most important features: what each value contributes."""
    explanation, rows, values = findings.explanation, findings.contributions, findings.values
    if explanation is None or rows is None or values is None:
        return []
    shown = [name for name in explanation.importances if name in rows.columns and name in values.columns]
    label = effect_label(findings.manifest.table, explanation)
    booleans = {name for name, column in findings.manifest.table.columns.items() if column.kind == "boolean"}
    return [
        dependence_figure(name, boolean_labels(values[name]) if name in booleans else values[name], rows[name], label)
        for name in shown[:MAX_DEPENDENCE_FIGURES]
        if values[name].notna().any()
    ]


def boolean_labels(values: pd.Series) -> pd.Series:
    """Booleans that are kept as numbers, as words."""
    return values.map({0.0: "false", 1.0: "true"}).astype(object)


def dependence_figure(name: str, values: pd.Series, moved: pd.Series, label: str) -> Figure:
    """What each value of one feature contributes; categories are lines, numbers an axis."""
    known = values.notna().to_numpy()
    found, effect = values[known], moved[known].astype(float)
    if values.dtype == object:
        names = list(found.value_counts().index[:MAX_FEATURES])
        axis = number_axis(label, [0.0, *effect])
        chart = Chart.with_rows(axis, [str(value) for value in names])
        chart.rule(x=0.0)
        for row, value in enumerate(names):
            own = effect[(found == value).to_numpy()].to_numpy()
            chart.dots([(float(x), row - lift) for x, lift in zip(own, beeswarm_offsets(own, axis), strict=True)], "small a")
        caption = "Each dot is a held-out row with this value; to the right, the value raised what is predicted."
    else:
        chart = Chart(number_axis(name, found.astype(float)), number_axis(label, [0.0, *effect]))
        chart.rule(y=0.0)
        chart.dots(list(zip(found.astype(float), effect, strict=True)), "a")
        caption = "Each dot is a held-out row; above the line, the value raised what is predicted."
    return Figure(f"What {name} does", caption, chart.svg(f"Contribution of {name} by its value"))


def sparkline(name: str, profile: ColumnProfile) -> Markup | None:
    """The distribution of a column in the training part."""
    if profile.quantiles:
        return sparkline_svg(bin_shares(profile.quantiles), f"Distribution of {name}")
    if profile.shares:
        return sparkline_svg(list(profile.shares.values())[:MAX_BARS], f"Shares of {name}, the most frequent first")
    return None
