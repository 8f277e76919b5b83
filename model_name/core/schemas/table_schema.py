"""Schema of a table, and the validation of tables and requests against it.

Imports only numpy and pydantic, because servers import it.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from model_name.core.schemas.columns import Column, Columns, and_more, label_text
from model_name.core.schemas.decoding import RawValues, decode_column
from model_name.core.schemas.outputs import Label, Task
from model_name.core.schemas.rules import Rule
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple, did_you_mean
from model_name.core.schemas.validation import CheckReport, ValidationIssues, check_column
from model_name.errors import DataError


class Target(FrozenModel):
    """Target of the predictions.

    Attributes:
        name: Name of the target's column in the table; requests do not carry it.
        task: Kind of prediction.
        classes: The labels of a classification, in the order of the probabilities; for `binary` the second is the
            positive one.
        description: Free text, shown to people.
    """

    name: str
    task: Task
    classes: LaxTuple[Label] | None = None
    description: str = ""

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
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


class TableSchema(FrozenModel):
    """Schema of a table: the single source of its columns, target, keys and rules.

    Attributes:
        name: Name of the table's subject.
        target: Target of the predictions.
        columns: The other columns by name, in the order of the model's inputs.
        time: Name of the datetime column that orders the rows, if there is one.
        key: Names of the columns that identify a row; no two rows may share their values.
        extra: Treatment of columns that are not in the schema.
        duplicates: Treatment of rows with the key of an earlier row. Without a key it applies to rows that equal an
            earlier row in every column, which are kept unless the value is `drop`.
        rules: Comparisons between columns that every valid row satisfies.
        interactions: Pairs of columns that become one feature: the product of two numbers, or the pair of two
            categories.
        description: Free text, shown to people.
    """

    name: str
    target: Target
    columns: dict[str, Column]
    time: str | None = None
    key: LaxTuple[str] = ()
    extra: Literal["refuse", "drop"] = "refuse"
    duplicates: Literal["refuse", "drop"] = "refuse"
    rules: LaxTuple[Rule] = ()
    interactions: LaxTuple[Annotated[tuple[str, str], Field(strict=False)]] = ()
    description: str = ""

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.target.name in self.columns:
            raise ValueError(f"the target {self.target.name} is also one of the columns; name it under target alone")
        if self.time is not None and (self.time not in self.columns or self.columns[self.time].kind != "datetime"):
            raise ValueError(f"time: {self.time} is not a datetime column of the schema")
        for name in self.key:
            if name not in self.columns:
                raise ValueError(f"key: {name} is not a column of the schema")
        if not self.inputs:
            raise ValueError("no column is a feature: a model would have nothing to look at")
        self._check_references()
        return self

    def _check_references(self) -> None:
        """Check that lags, rules and interactions refer to suitable columns of the schema."""
        for name, column in self.lag_columns.items():
            if self.time is None:
                raise ValueError(f"columns.{name}.history needs a time column; name it with `time:`")
            source, by = column.history.of, column.history.by  # type: ignore[union-attr]  # set in all of `lag_columns`
            if source in self.lag_columns or (source != self.target.name and not self._is_number(source)):
                raise ValueError(
                    f"columns.{name}.history.of: {source} is not the target or a numeric column of the table"
                )
            if source == self.target.name and self.target.task == "multiclass":
                raise ValueError(f"columns.{name}.history.of: {source} has classes, of which there is no mean")
            for entity in by:
                if entity not in self.columns or entity in self.lag_columns:
                    raise ValueError(f"columns.{name}.history.by: {entity} is not a column of the table")
        for position, rule in enumerate(self.rules):
            self._check_comparable(f"rules.{position}", rule)
        for position, (first, second) in enumerate(self.interactions):
            are_categories = self._is_kind(first, "category") and self._is_kind(second, "category")
            are_numbers = self._is_number(first) and self._is_number(second)
            if first == second or not (are_categories or are_numbers) or not {first, second} <= self.inputs.keys():
                raise ValueError(
                    f"interactions.{position}: {first} and {second} are not two numeric or two category inputs"
                )

    def _check_comparable(self, path: str, rule: Rule) -> None:
        for name in rule.columns:
            if name == self.target.name:
                raise ValueError(f"{path}: {name} is the target; rules look at the other columns alone")
            if name not in self.columns:
                raise ValueError(f"{path}: {name} is not a column{did_you_mean(name, list(self.columns))}")
            if not self._is_number(name) and not self._is_kind(name, "datetime"):
                raise ValueError(f"{path}: {name} is not a numeric or datetime column")
        are_datetimes = {self._is_kind(name, "datetime") for name in rule.columns}
        if are_datetimes == {True, False} or (are_datetimes == {True} and len(rule.columns) == 1):
            raise ValueError(f"{path}: {rule.holds} compares a datetime with a number")

    def _is_kind(self, name: str, kind: str) -> bool:
        return name in self.columns and self.columns[name].kind == kind

    def _is_number(self, name: str) -> bool:
        return self._is_kind(name, "numeric") or self._is_kind(name, "boolean")

    @property
    def lag_columns(self) -> dict[str, Column]:
        """Lag columns, which preparation computes from earlier rows."""
        return {name: column for name, column in self.columns.items() if column.history is not None}

    @property
    def inputs(self) -> dict[str, Column]:
        """Columns that a request must carry."""
        return {name: column for name, column in self.columns.items() if column.is_input}

    @property
    def classes(self) -> tuple[Label, ...]:
        """Labels of a classification; none for a regression."""
        return self.target.classes or ()

    @property
    def fingerprint(self) -> str:
        """Hash of the contract with clients, of accepted inputs and returned outputs; if it changes, MAJOR does."""
        contract = [(name, column.contract) for name, column in self.inputs.items()]
        rules = [rule.holds for rule in self.rules if self.inputs.keys() >= {*rule.columns}]
        text = repr((contract, self.extra, self.target.name, self.target.task, self.classes, *rules))
        return sha256(text.encode()).hexdigest()[:16]

    def decode(self, table: Mapping[str, RawValues], *, names: Sequence[str], first_row: int | None = None) -> Columns:
        """Decode raw values into typed columns.

        Args:
            table: The raw values by column.
            names: Names of the columns to decode.
            first_row: Number of the first row if the rows are a batch of a larger table.

        Raises:
            DataError: A column is absent, columns differ in length, or a value is not of its column's kind.
        """
        missing = [name for name in names if name not in table]
        if missing:
            raise DataError(f"{missing[0]}: column is missing" + and_more(missing[1:]))
        issues = ValidationIssues(first_row)
        columns = {name: decode_column(name, self.columns[name], table[name], issues) for name in names}
        issues.raise_if_any()
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns differ in length: {lengths}")
        return columns

    def check_columns(
        self, columns: Columns, *, may_drop: bool, first_row: int | None = None
    ) -> tuple[Columns, NDArray[np.bool_], CheckReport]:
        """Check typed columns against nullability, bounds, categories and rules.

        Args:
            columns: The typed columns that `decode` returned.
            may_drop: Whether bounds and rules that are set to `drop` may drop rows; otherwise they refuse them.
            first_row: Number of the first row if the rows are a batch of a larger table.

        Returns:
            The columns (values clipped, no row removed), the mask of the rows to keep, and the report. Unseen
            categories are counted and left unchanged: the features treat them as missing.

        Raises:
            DataError: A value or row is refused; the message names column, row and reason.
        """
        rows = len(next(iter(columns.values()), ()))
        keep = np.ones(rows, dtype=bool)
        report = CheckReport(rows=rows)
        issues = ValidationIssues(first_row)
        checked = {
            name: check_column(
                name, self.columns[name], values, keep=keep if may_drop else None, report=report, issues=issues
            )
            for name, values in columns.items()
        }
        for rule in self.rules:
            rule.check(checked, keep if may_drop else None, report, issues)
        issues.raise_if_any()
        report.kept = int(keep.sum())
        return checked, keep, report

    def check_request(self, table: Mapping[str, RawValues]) -> Columns:
        """Decode and check the inputs of a request.

        Raises:
            DataError: The request is refused; the message names column, row and reason.
        """
        self.check_names(table)
        columns = self.decode(table, names=list(self.inputs))
        checked, _, _ = self.check_columns(columns, may_drop=False)
        return checked

    def check_names(self, names: Iterable[str]) -> None:
        """Check the names of the columns that a request carries.

        Raises:
            DataError: A name is the target, or no column of a schema that refuses extra columns.
        """
        for name in names:
            if name == self.target.name:
                raise DataError(f"{name}: is the target; a request must not carry it")
            if name not in self.columns and self.extra == "refuse":
                raise DataError(
                    f"{name}: is not a column of {self.name}", hint=f"the inputs are {', '.join(self.inputs)}"
                )
