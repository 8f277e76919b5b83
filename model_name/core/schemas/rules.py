"""What must hold between the columns of a row. Needs pydantic and numpy alone, because servers import it."""

import operator
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from model_name.core.schemas.columns import CheckReport, Columns, Problems, missing
from model_name.core.schemas.strict_models import Frozen

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
SPELLING = re.compile(r"\s*(\S.*?)\s+(<=|>=|==|!=|<|>)\s+(\S.*?)\s*")


class Rule(Frozen):
    """What makes a row impossible, where it does not hold; a row that misses one of the values is not judged.

    Attributes:
        holds: `COLUMN < COLUMN` or `COLUMN < NUMBER`, with any of < <= > >= == and !=.
        otherwise: What happens to a row of which it does not hold. A request cannot drop a row: it is refused instead.
    """

    holds: str
    otherwise: Literal["refuse", "drop"] = "refuse"

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if SPELLING.fullmatch(self.holds) is None:
            raise ValueError(f"{self.holds!r} is not of the form `COLUMN <= COLUMN` or `COLUMN <= NUMBER`")
        first, _, second = self.parts
        if first == second or (isinstance(second, float) and not np.isfinite(second)):
            raise ValueError(f"{self.holds!r} compares with nothing: name another column, or a number")
        return self

    @cached_property
    def parts(self) -> tuple[str, str, str | float]:
        """The column, the operator, and the other column or the number."""
        first, sign, second = SPELLING.fullmatch(self.holds).groups()  # type: ignore[union-attr]  # it was validated
        try:
            return first, sign, float(second)
        except ValueError:
            return first, sign, second

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        first, _, second = self.parts
        return (first, second) if isinstance(second, str) else (first,)

    def apply(self, columns: Columns, keep: NDArray[np.bool_] | None, report: CheckReport, problems: Problems) -> None:
        """Find the rows of which it does not hold; columns that are not there, such as in a request, are not judged."""
        if any(name not in columns for name in self.columns):
            return
        first, sign, second = self.parts
        left, right = columns[first], columns[second] if isinstance(second, str) else second
        with np.errstate(invalid="ignore"):
            broken = ~OPERATORS[sign](left, right)
        for name in self.columns:
            broken &= ~missing(columns[name])
        if not broken.any():
            return
        if self.otherwise == "drop" and keep is not None:
            keep &= ~broken
            report.dropped[f"{self.holds} does not hold"] = int(broken.sum())
        else:
            problems.add(first, np.flatnonzero(broken), lambda row: f"{self.holds} does not hold", len(broken))
