"""Rules between the columns of a row. Imports only numpy and pydantic, because servers import it."""

import operator
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from model_name.core.schemas.columns import Columns, missing_mask
from model_name.core.schemas.strict_models import FrozenModel
from model_name.core.schemas.validation import CheckReport, ValidationIssues

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
RULE_PATTERN = re.compile(r"\s*(\S.*?)\s+(<=|>=|==|!=|<|>)\s+(\S.*?)\s*")


class Rule(FrozenModel):
    """A comparison that every valid row satisfies; rows in which one of the values is missing are not checked.

    Attributes:
        holds: The comparison, `COLUMN < COLUMN` or `COLUMN < NUMBER`, with one of < <= > >= == and !=.
        otherwise: Treatment of rows that violate the rule; requests cannot drop a row, so `drop` refuses it there.
    """

    holds: str
    otherwise: Literal["refuse", "drop"] = "refuse"

    @model_validator(mode="after")
    def _check_syntax(self) -> Self:
        if RULE_PATTERN.fullmatch(self.holds) is None:
            raise ValueError(f"{self.holds!r} is not of the form `COLUMN <= COLUMN` or `COLUMN <= NUMBER`")
        left, _, right = self.parts
        if left == right or (isinstance(right, float) and not np.isfinite(right)):
            raise ValueError(f"{self.holds!r} compares with nothing: name another column, or a number")
        return self

    @cached_property
    def parts(self) -> tuple[str, str, str | float]:
        """The left column, the operator, and the right column or number."""
        left, sign, right = RULE_PATTERN.fullmatch(self.holds).groups()  # type: ignore[union-attr]  # it was validated
        try:
            return left, sign, float(right)
        except ValueError:
            return left, sign, right

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are compared."""
        left, _, right = self.parts
        return (left, right) if isinstance(right, str) else (left,)

    def check(
        self, columns: Columns, keep: NDArray[np.bool_] | None, report: CheckReport, issues: ValidationIssues
    ) -> None:
        """Find the rows that violate the rule. Nothing is checked if a column is absent, as it may be in a request.

        Args:
            columns: The typed columns.
            keep: Mask of the rows to keep, updated in place; None if rows may not be dropped.
            report: Counts, updated in place.
            issues: Collector of the refused rows.
        """
        if any(name not in columns for name in self.columns):
            return
        left, sign, right = self.parts
        left_values, right_values = columns[left], columns[right] if isinstance(right, str) else right
        with np.errstate(invalid="ignore"):
            violations = ~OPERATORS[sign](left_values, right_values)
        for name in self.columns:
            violations &= ~missing_mask(columns[name])
        if not violations.any():
            return
        if self.otherwise == "drop" and keep is not None:
            keep &= ~violations
            report.dropped[f"{self.holds} does not hold"] = int(violations.sum())
        else:
            issues.add(left, np.flatnonzero(violations), lambda row: f"{self.holds} does not hold", len(violations))
