"""Presentation of a comparison of two versions: tables for the terminal, and an HTML page with figures."""

from collections.abc import Iterator
from pathlib import Path

from model_name.core.formatting import format_bytes, format_number, format_percent
from model_name.io.storage import atomic_write
from model_name.reports.artifacts import VersionArtifacts
from model_name.reports.comparison import Comparison
from model_name.reports.feature_figures import importance_figure
from model_name.reports.figures import Figure, metric_pair_figure
from model_name.reports.render import render_page

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, column names, and rows of texts."""

MAX_SHOWN_FEATURES = 20


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the comparison as tables of texts, for a terminal and for the page; tables without rows are left out."""
    a, b = f"{comparison.a.semver} (a)", f"{comparison.b.semver} (b)"
    tables: list[Table] = [
        ("Versions", ("", a, b), version_rows(comparison)),
        ("Contract", ("part", "change", "from → to"), [(row.name, row.what, row.words) for row in comparison.contract]),
        ("Hyperparameters", ("name", a, b), [(row.name, row.a or "–", row.b or "–") for row in comparison.parameters]),
        (
            "Features",
            ("feature", "change"),
            [
                *((name, "added") for name in comparison.features_added),
                *((name, "removed") for name in comparison.features_removed),
            ],
        ),
        (
            "Metrics on held-out rows",
            ("metric", a, b, "b is"),
            [(row.name, format_number(row.a), format_number(row.b), row.words) for row in comparison.metrics],
        ),
        (
            "Feature importance (share of all contributions)",
            ("feature", a, b, "rank"),
            [
                (row.feature, format_share(row.a), format_share(row.b), row.rank_change)
                for row in comparison.importances[:MAX_SHOWN_FEATURES]
            ],
        ),
    ]
    return [table for table in tables if table[2]]


def version_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the rows of the table that describes both versions."""
    versions = (comparison.a, comparison.b)
    rows = {
        "version": [each.version for each in versions],
        "aliases": [", ".join(each.aliases) or "–" for each in versions],
        "kind": [each.kind for each in versions],
        "created": [each.created[:19] for each in versions],
        "table": [Path(each.table).name or "–" for each in versions],
        "held-out rows": ["not evaluated" if each.rows is None else f"{each.rows:,}" for each in versions],
        "features": [str(len(each.features)) for each in versions],
        "bundle": [format_bytes(each.bundle_bytes) for each in versions],
        "gate": [each.gate for each in versions],
    }
    return [(name, *values) for name, values in rows.items()]


def format_share(value: float | None) -> str:
    """Format a share in per cent, or as a dash if there is none."""
    return "–" if value is None else format_percent(value)


def write_diff_page(a: VersionArtifacts, b: VersionArtifacts, comparison: Comparison, path: str) -> None:
    """Write the comparison as an HTML page.

    Raises:
        StorageError: The page cannot be written to `path`.
    """
    page = render_page(
        "diff.html",
        comparison=comparison,
        tables=comparison_tables(comparison),
        figures=list(comparison_figures(a, b, comparison)),
    )
    with atomic_write(path) as file:
        file.write(page.encode())


def comparison_figures(a: VersionArtifacts, b: VersionArtifacts, comparison: Comparison) -> Iterator[Figure]:
    """Draw the metrics and the feature importances of both versions."""
    changes = {row.name: row for row in comparison.metrics}
    for metric in b.evaluation.measures if b.evaluation else ():
        if change := changes.get(metric.name):
            figure = metric_pair_figure(metric, {comparison.a.semver: change.a, comparison.b.semver: change.b})
            if figure is not None:
                yield figure
    if a.explanation and b.explanation and comparison.importances:
        yield importance_figure(b.explanation, a.explanation, comparison.a.semver)
