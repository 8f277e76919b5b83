"""The one source of truth about a table, and the check of what crosses a boundary.

Needs pydantic and numpy alone, because servers import it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from model_name.core.schemas.columns import (
    CheckReport,
    Column,
    Columns,
    Problems,
    also,
    check_column,
    decode_column,
    label_text,
)
from model_name.core.schemas.rules import Rule
from model_name.core.schemas.strict_models import Frozen, Many, did_you_mean
from model_name.errors import DataError

Task = Literal["regression", "binary", "multiclass"]
Label = StrictBool | StrictInt | StrictStr


class Target(Frozen):
    """What is predicted.

    Attributes:
        name: The column of the table that holds it; requests do not carry it.
        task: What kind of prediction it asks for.
        classes: The labels of a classification, in the order of the probabilities; for `binary` the second is the
            positive one.
        description: For people.
    """

    name: str
    task: Task
    classes: Many[Label] | None = None
    description: str = ""

    @model_validator(mode="after")
    def _fits_its_task(self) -> Self:
        if self.task == "regression":
            if self.classes is not None:
                raise ValueError("classes belong to classifications, this target is a regression")
            return self
        if self.classes is None:
            raise ValueError(f"a {self.task} target needs its classes")
        if len({label_text(label) for label in self.classes}) < len(self.classes):
            raise ValueError("classes names a label twice")
        if self.task == "binary" and len(self.classes) != 2:
            raise ValueError(f"a binary target has 2 classes, not {len(self.classes)}")
        if self.task == "multiclass" and len(self.classes) < 3:
            raise ValueError(f"a multiclass target has at least 3 classes, not {len(self.classes)}")
        return self


@dataclass(frozen=True)
class Outputs:
    """What a model answers for n rows.

    Attributes:
        prediction: n numbers of a regression, or n labels of a classification.
        probabilities: n x k of a classification, columns in the order of `classes`.
        classes: The k labels.
        lower: The n lower ends of the prediction intervals of a regression, where they were asked for.
        upper: The n upper ends.
    """

    prediction: NDArray[Any]
    probabilities: NDArray[np.float64] | None = None
    classes: tuple[Label, ...] = ()
    lower: NDArray[np.float64] | None = None
    upper: NDArray[np.float64] | None = None

    @classmethod
    def from_scores(cls, scores: NDArray[Any], classes: tuple[Label, ...]) -> Self:
        """Name raw scores: n (x 1) predictions where there are no classes, n x k probabilities where there are."""
        scores = np.asarray(scores, dtype=np.float64)
        if not classes:
            return cls(prediction=scores.reshape(-1))
        labels = np.empty(len(classes), dtype=object)
        labels[:] = classes
        return cls(prediction=labels[scores.argmax(axis=1)], probabilities=scores, classes=classes)

    def take(self, rows: NDArray[Any] | slice) -> Self:
        """The same for some rows, given by position."""
        parts = (self.probabilities, self.lower, self.upper)
        probabilities, lower, upper = (None if part is None else part[rows] for part in parts)
        return type(self)(self.prediction[rows], probabilities, self.classes, lower, upper)

    @property
    def columns(self) -> Columns:
        """The same as named columns: `prediction`, `probability_LABEL` for each class, and the ends of intervals."""
        columns: Columns = {"prediction": self.prediction}
        if self.lower is not None and self.upper is not None:
            columns |= {"lower": self.lower, "upper": self.upper}
        if self.probabilities is not None:
            for position, label in enumerate(self.classes):
                columns[f"probability_{label_text(label)}"] = self.probabilities[:, position]
        return columns


class TableSchema(Frozen):
    """The one source of truth about a table.

    Attributes:
        name: What the table is about.
        target: What is predicted.
        columns: The other columns by name, in the order of the model's inputs.
        time: The datetime column that orders the rows, if there is one.
        key: The columns that name a row; no two rows may share them.
        extra: What happens to a column that is not named here.
        duplicates: What happens to rows with the key of an earlier row; without a key, to rows equal to an earlier one
            in every column, which are kept unless it says `drop`.
        rules: What must hold between columns; rows of which it does not are impossible.
        interactions: Pairs of columns that are also looked at together: the product of two numbers, the pair of two
            categories.
    """

    name: str
    target: Target
    columns: dict[str, Column]
    time: str | None = None
    key: Many[str] = ()
    extra: Literal["refuse", "drop"] = "refuse"
    duplicates: Literal["refuse", "drop"] = "refuse"
    rules: Many[Rule] = ()
    interactions: Many[Annotated[tuple[str, str], Field(strict=False)]] = ()
    description: str = ""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.target.name in self.columns:
            raise ValueError(f"the target {self.target.name} is also one of the columns; name it under target alone")
        if self.time is not None and (self.time not in self.columns or self.columns[self.time].kind != "datetime"):
            raise ValueError(f"time: {self.time} is not a datetime column of the schema")
        for name in self.key:
            if name not in self.columns:
                raise ValueError(f"key: {name} is not a column of the schema")
        if not self.inputs:
            raise ValueError("no column is a feature: a model would have nothing to look at")
        self._require_related()
        return self

    def _require_related(self) -> None:
        """What names other columns must name such as there are."""
        for name, column in self.histories.items():
            if self.time is None:
                raise ValueError(f"columns.{name}.history needs a time column; name it with `time:`")
            told, by = column.history.of, column.history.by  # type: ignore[union-attr]  # as `histories` promises
            if told in self.histories or (told != self.target.name and not self._is_number(told)):
                raise ValueError(
                    f"columns.{name}.history.of: {told} is not the target or a numeric column of the table"
                )
            if told == self.target.name and self.target.task == "multiclass":
                raise ValueError(f"columns.{name}.history.of: {told} has classes, of which there is no mean")
            for entity in by:
                if entity not in self.columns or entity in self.histories:
                    raise ValueError(f"columns.{name}.history.by: {entity} is not a column of the table")
        for place, rule in enumerate(self.rules):
            self._require_comparable(f"rules.{place}", rule)
        for place, (first, second) in enumerate(self.interactions):
            are_categories = self._is_kind(first, "category") and self._is_kind(second, "category")
            are_numbers = self._is_number(first) and self._is_number(second)
            if first == second or not (are_categories or are_numbers) or not {first, second} <= self.inputs.keys():
                raise ValueError(
                    f"interactions.{place}: {first} and {second} are not two numeric or two category inputs"
                )

    def _require_comparable(self, place: str, rule: Rule) -> None:
        for name in rule.columns:
            if name == self.target.name:
                raise ValueError(f"{place}: {name} is the target; rules look at the other columns alone")
            if name not in self.columns:
                raise ValueError(f"{place}: {name} is not a column{did_you_mean(name, list(self.columns))}")
            if not self._is_number(name) and not self._is_kind(name, "datetime"):
                raise ValueError(f"{place}: {name} is not a numeric or datetime column")
        are_moments = {self._is_kind(name, "datetime") for name in rule.columns}
        if are_moments == {True, False} or (are_moments == {True} and len(rule.columns) == 1):
            raise ValueError(f"{place}: {rule.holds} compares a datetime with a number")

    def _is_kind(self, name: str, kind: str) -> bool:
        return name in self.columns and self.columns[name].kind == kind

    def _is_number(self, name: str) -> bool:
        return self._is_kind(name, "numeric") or self._is_kind(name, "boolean")

    @property
    def histories(self) -> dict[str, Column]:
        """The columns that the preparation makes of earlier rows."""
        return {name: column for name, column in self.columns.items() if column.history is not None}

    @property
    def inputs(self) -> dict[str, Column]:
        """The columns that a request must carry."""
        return {name: column for name, column in self.columns.items() if column.is_input}

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels of a classification; none for a regression."""
        return self.target.classes or ()

    @property
    def fingerprint(self) -> str:
        """Hash of what is accepted and what is answered: when it changes, the MAJOR of the version does."""
        contract = [(name, column.contract) for name, column in self.inputs.items()]
        rules = [rule.holds for rule in self.rules if self.inputs.keys() >= {*rule.columns}]
        seen = repr((contract, self.extra, self.target.name, self.target.task, self.classes, *rules))
        return sha256(seen.encode()).hexdigest()[:16]

    def decode(
        self, table: Mapping[str, Sequence[Any] | NDArray[Any]], *, names: Sequence[str], first_row: int | None = None
    ) -> Columns:
        """Turn raw values into typed columns.

        Args:
            table: The values by column.
            names: The columns to read.
            first_row: The number of the first row where these are some rows of a larger table.

        Raises:
            DataError: A column is missing or extra, or a value is of another kind.
        """
        missing = [name for name in names if name not in table]
        if missing:
            raise DataError(f"{missing[0]}: column is missing" + also(missing[1:]))
        problems = Problems(first_row)
        columns = {name: decode_column(name, self.columns[name], table[name], problems) for name in names}
        problems.raise_if_any()
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns differ in length: {lengths}")
        return columns

    def apply(
        self, columns: Columns, *, may_drop: bool, first_row: int | None = None
    ) -> tuple[Columns, NDArray[np.bool_], CheckReport]:
        """Hold typed columns against nullability, bounds and categories.

        Args:
            columns: As `decode` returns them.
            may_drop: Whether rows may be dropped where the schema says `drop`; otherwise they are refused.
            first_row: As of `decode`.

        Returns:
            The columns (clipped values replaced, all rows still there), the rows to keep, and what was done. Unseen
            categories are counted and stay as they are: the features take them as missing.

        Raises:
            DataError: Naming column, row and reason of what the schema refuses.
        """
        rows = len(next(iter(columns.values()), ()))
        keep = np.ones(rows, dtype=bool)
        report = CheckReport(rows=rows)
        problems = Problems(first_row)
        checked = {
            name: check_column(
                name, self.columns[name], values, keep=keep if may_drop else None, report=report, problems=problems
            )
            for name, values in columns.items()
        }
        for rule in self.rules:
            rule.apply(checked, keep if may_drop else None, report, problems)
        problems.raise_if_any()
        report.kept = int(keep.sum())
        return checked, keep, report

    def check_request(self, table: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Columns:
        """Typed inputs of a request, or the reason why it is refused.

        Raises:
            DataError: Naming column, row and reason.
        """
        self.check_names(table)
        columns = self.decode(table, names=list(self.inputs))
        checked, _, _ = self.apply(columns, may_drop=False)
        return checked

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse what a request must not carry.

        Raises:
            DataError: A name is that of the target, or of no column where the schema wants no others.
        """
        for name in names:
            if name == self.target.name:
                raise DataError(f"{name}: is the target; a request must not carry it")
            if name not in self.columns and self.extra == "refuse":
                raise DataError(
                    f"{name}: is not a column of {self.name}", hint=f"the inputs are {', '.join(self.inputs)}"
                )
