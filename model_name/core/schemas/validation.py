"""Validation of a typed column against its definition, and the report of what it changed or refused.

Imports only numpy and pydantic, because servers import it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.columns import FLOAT32_MAX, Column, display_value, float32_bounds, missing_mask
from model_name.errors import DataError

MAX_REPORTED_ISSUES = 10  # listed in one error; the rest are counted


@dataclass
class CheckReport:
    """Counts of what a check saw, dropped and changed.

    Attributes:
        rows: Number of rows checked.
        kept: Number of rows left.
        dropped: Number of dropped rows by reason.
        clipped: Number of clipped values by column.
        unseen: Number of values of unseen categories by column.
        ignored: Names of columns that are not in the schema and were dropped.
        notes: Further messages.
    """

    rows: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)
    unseen: dict[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def add(self, other: Self) -> None:
        """Add the counts of another batch of the same table."""
        self.rows += other.rows
        self.kept += other.kept
        self.ignored = tuple(dict.fromkeys(self.ignored + other.ignored))
        for counts, more in ((self.dropped, other.dropped), (self.clipped, other.clipped), (self.unseen, other.unseen)):
            for key, count in more.items():
                counts[key] = counts.get(key, 0) + count

    def messages(self) -> list[str]:
        """Format each finding as one line for a log or a report."""
        return [
            *(f"{count} of {self.rows} rows dropped: {reason}" for reason, count in self.dropped.items()),
            *(f"{count} values of {name} clipped to its bounds" for name, count in self.clipped.items()),
            *(
                f"{count} values of {name} are unseen categories, taken as missing"
                for name, count in self.unseen.items()
            ),
            *(f"column {name} is not in the schema and was dropped" for name in self.ignored),
            *self.notes,
        ]


class ValidationIssues:
    """Collects the invalid values of a table, so that one error can report several of them."""

    def __init__(self, first_row: int | None = None) -> None:
        """Create an empty collection.

        Args:
            first_row: Number of the first row if the rows are a batch of a larger table.
        """
        self.first_row = first_row
        self.messages: list[str] = []
        self.count = 0

    def add(self, name: str, rows: NDArray[np.int_] | Sequence[int], reason: Any, total: int) -> None:
        """Add the invalid values of one column.

        Args:
            name: Name of the column.
            rows: Positions of the invalid values.
            reason: Function that returns the reason for a row.
            total: Number of rows of the table or batch.
        """
        self.count += len(rows)
        for row in rows[: MAX_REPORTED_ISSUES - len(self.messages)]:
            # The message for a request of one row needs no row number.
            is_single_row = self.first_row is None and total == 1
            location = name if is_single_row else f"{name}, row {row + (self.first_row or 0)}"
            self.messages.append(f"{location}: {reason(row)}")

    def raise_if_any(self) -> None:
        """Raise all collected issues as one error.

        Raises:
            DataError: At least one issue was collected.
        """
        if self.messages:
            more = self.count - len(self.messages)
            raise DataError("; ".join(self.messages) + (f"; and {more} more" if more else ""))


def check_column(
    name: str,
    column: Column,
    values: NDArray[Any],
    *,
    keep: NDArray[np.bool_] | None,
    report: CheckReport,
    issues: ValidationIssues,
) -> NDArray[Any]:
    """Check a typed column for missing values, bounds and categories.

    Args:
        name: Name of the column.
        column: Definition of the column.
        values: The typed values.
        keep: Mask of the rows to keep, updated in place; None if rows may not be dropped.
        report: Counts, updated in place.
        issues: Collector of the refused values.

    Returns:
        The values, clipped to the bounds if `out_of_bounds` is `clip`.
    """
    total = len(values)
    if not column.nullable and (is_empty := missing_mask(values)).any():
        issues.add(name, np.flatnonzero(is_empty), lambda row: "is missing", total)
    if column.kind == "numeric":
        return _check_bounds(name, column, values, keep=keep, report=report, issues=issues)
    if column.kind == "category" and column.values is not None:
        known = {*column.values, None}
        if known.issuperset(values.tolist()):  # the common case; three times as fast as finding the rows
            return values
        unseen = np.fromiter((v not in known for v in values), dtype=bool, count=total)
        if column.unseen == "refuse":
            issues.add(
                name,
                np.flatnonzero(unseen),
                lambda row: f"{display_value(column, values[row])} is not one of its categories",
                total,
            )
        else:
            report.unseen[name] = int(unseen.sum())
    return values


def _check_bounds(
    name: str,
    column: Column,
    values: NDArray[Any],
    *,
    keep: NDArray[np.bool_] | None,
    report: CheckReport,
    issues: ValidationIssues,
) -> NDArray[Any]:
    lowest, highest = float32_bounds(column)
    if not len(values) or not (np.fmin.reduce(values) < lowest or np.fmax.reduce(values) > highest):
        return values  # the common case, decided in two passes; comparisons with NaN are false
    total = len(values)
    is_infinite = np.isinf(values)
    issues.add(name, np.flatnonzero(is_infinite), lambda row: f"{values[row]} is not finite", total)
    is_too_large = ~is_infinite & (np.abs(values) > FLOAT32_MAX)
    clipped = values
    for bound, side, is_beyond in (
        (column.min, "below", np.less),
        (column.max, "above", np.greater),
    ):
        if bound is None or not (is_outside := is_beyond(values, bound) & ~is_infinite).any():
            continue
        is_too_large &= ~is_outside
        count = int(is_outside.sum())
        if column.out_of_bounds == "clip":
            clipped = np.where(is_outside, bound, clipped)
            report.clipped[name] = report.clipped.get(name, 0) + count
        elif column.out_of_bounds == "drop" and keep is not None:
            keep &= ~is_outside
            report.dropped[f"{name} is {side} {bound}"] = count
        else:
            rows = np.flatnonzero(is_outside)
            reasons = {
                row: f"{display_value(column, values[row])} is {side} {bound}" for row in rows[:MAX_REPORTED_ISSUES]
            }
            issues.add(name, rows, reasons.__getitem__, total)
    issues.add(
        name,
        np.flatnonzero(is_too_large),
        lambda row: f"{display_value(column, values[row])} is too large for float32",
        total,
    )
    return clipped
