"""Splitters: strategies that split a table into a training and a held-out part, and into the folds of a search."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import ConfigError, DataError

RowPositions = NDArray[np.int64]
Split = tuple[RowPositions, RowPositions]
"""Positions of the training rows and of the held-out rows, each in table order."""


class Splitter(FrozenModel, ABC):
    """Splits the rows of a validated table, independently of its features."""

    KIND: str

    @abstractmethod
    def split(self, table: pd.DataFrame, schema: TableSchema) -> Split:
        """Split a table into a training and a held-out part.

        Raises:
            DataError: The table is too small for a split.
        """

    @abstractmethod
    def folds(self, table: pd.DataFrame, schema: TableSchema, count: int) -> Iterator[Split]:
        """Split a table several times by the same rule, to score a search.

        Raises:
            DataError: The table is too small for `count` folds.
        """


class TimeSplitter(Splitter):
    """Holds out the newest rows; rows with equal times are never separated.

    Attributes:
        test_size: Approximate share of the rows to hold out.
    """

    KIND: Literal["TimeSplitter"] = "TimeSplitter"
    test_size: float = Field(0.2, gt=0, lt=1)

    @override
    def split(self, table: pd.DataFrame, schema: TableSchema) -> Split:
        times = self._times(table, schema)
        start = min(round(len(times) * (1 - self.test_size)), len(times) - 1)
        return self._split_at(times, np.sort(times)[start], None)

    @override
    def folds(self, table: pd.DataFrame, schema: TableSchema, count: int) -> Iterator[Split]:
        """Split into growing training parts, each scored on the rows after it; these cover about the newer half."""
        times = self._times(table, schema)
        positions = np.linspace(len(times) / 2, len(times), count, endpoint=False).round().astype(int)
        # A fold begins with a time and ends before that of the next fold, so that no time is held out twice.
        starts = np.sort(times)[np.minimum(positions, len(times) - 1)]
        if starts[0] == times.min() or len(np.unique(starts)) < count:
            raise DataError(
                f"{schema.time}: {len(np.unique(times))} moments are too few or too uneven for {count} folds",
                hint="take fewer folds, bring more moments, or use KIND: RandomSplitter",
            )
        for start, stop in zip(starts, [*starts[1:], None], strict=True):
            yield self._split_at(times, start, stop)

    def _times(self, table: pd.DataFrame, schema: TableSchema) -> NDArray[Any]:
        if schema.time is None:
            raise ConfigError(
                f"a split by time needs a time column, the schema {schema.name} names none",
                hint="set `time:` in the schema, or use KIND: RandomSplitter",
            )
        times = table[schema.time].to_numpy()
        if np.isnat(times).any():
            raise DataError(f"{schema.time}: is missing in some rows; a split by time needs it in every row")
        days = np.unique(times.astype("datetime64[D]"))
        if len(days) < 2:
            raise DataError(
                f"{schema.time}: the table holds a single day ({days[0]}); a split by time needs at least two",
                hint="bring more days, or use KIND: RandomSplitter",
            )
        return times

    def _split_at(self, times: NDArray[Any], start: Any, stop: Any | None) -> Split:
        """Split into the rows before `start`, and those from `start` until before `stop`."""
        held_out = times >= start if stop is None else (times >= start) & (times < stop)
        return _check_parts(np.flatnonzero(times < start), np.flatnonzero(held_out))


class RandomSplitter(Splitter):
    """Holds out random rows, stratified by class for a classification.

    Attributes:
        test_size: Share of the rows to hold out.
        random_state: Seed of the selection.
    """

    KIND: Literal["RandomSplitter"] = "RandomSplitter"
    test_size: float = Field(0.2, gt=0, lt=1)
    random_state: int = 42

    @override
    def split(self, table: pd.DataFrame, schema: TableSchema) -> Split:
        from sklearn.model_selection import train_test_split

        rows = np.arange(len(table))
        try:
            train, test = train_test_split(
                rows, test_size=self.test_size, random_state=self.random_state, stratify=_labels(table, schema)
            )
        except ValueError as err:
            raise DataError(f"the table cannot be split: {err}", hint="bring more rows of each class") from err
        return _check_parts(np.sort(train), np.sort(test))

    @override
    def folds(self, table: pd.DataFrame, schema: TableSchema, count: int) -> Iterator[Split]:
        """Split into disjoint held-out parts that cover the whole table."""
        from sklearn.model_selection import KFold, StratifiedKFold

        labels = _labels(table, schema)
        splitter = KFold if labels is None else StratifiedKFold
        try:
            folds = splitter(count, shuffle=True, random_state=self.random_state)
            splits = list(folds.split(np.zeros(len(table)), labels))
        except ValueError as err:
            raise DataError(
                f"the table cannot be split into {count} folds: {err}", hint="take fewer folds or bring more rows"
            ) from err
        for train, test in splits:
            yield _check_parts(train, test)


SplitterKind = TimeSplitter | RandomSplitter


def _labels(table: pd.DataFrame, schema: TableSchema) -> NDArray[Any] | None:
    """Return the class of each row as a text; None for a regression.

    Raises:
        DataError: A class has a single row, which cannot be in both parts.
    """
    if not schema.classes:
        return None
    labels: NDArray[Any] = table[schema.target.name].astype(str).to_numpy()
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise DataError(
            f"{schema.target.name}: class {names[counts.argmin()]!r} has a single row; a split needs one for each part",
            hint="bring more rows of it, or take it out of the schema's classes",
        )
    return labels


def _check_parts(train: RowPositions, test: RowPositions) -> Split:
    if not len(train) or not len(test):
        part = "training" if not len(train) else "held-out"
        raise DataError(f"the split leaves no row in the {part} part", hint="bring more rows or change test_size")
    return train, test
