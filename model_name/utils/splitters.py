"""How a table is split: into a training and a held-out part, and into folds for a search."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import ConfigError, DataError

Rows = NDArray[np.int64]
Split = tuple[Rows, Rows]
"""Positions of the training rows and of the held-out rows, each in the order of the table."""


class Splitter(FrozenModel, ABC):
    """Splits the rows of a checked table, never looking at features."""

    KIND: str

    @abstractmethod
    def split(self, table: pd.DataFrame, schema: TableSchema) -> Split:
        """One split into a training and a held-out part.

        Raises:
            DataError: The table is too small for it.
        """

    @abstractmethod
    def folds(self, table: pd.DataFrame, schema: TableSchema, count: int) -> Iterator[Split]:
        """Several splits of the same nature, for a search to be judged on.

        Raises:
            DataError: The table is too small for them.
        """


class TimeSplitter(Splitter):
    """The newest rows are held out; rows of one moment are never torn apart.

    Attributes:
        test_size: Share of the rows to hold out, about.
    """

    KIND: Literal["TimeSplitter"] = "TimeSplitter"
    test_size: float = Field(0.2, gt=0, lt=1)

    def split(self, table: pd.DataFrame, schema: TableSchema) -> Split:
        """As of `Splitter`."""
        times = self._times(table, schema)
        start = min(round(len(times) * (1 - self.test_size)), len(times) - 1)
        return self._split_at(times, np.sort(times)[start], None)

    def folds(self, table: pd.DataFrame, schema: TableSchema, count: int) -> Iterator[Split]:
        """Growing training parts, each judged on the rows that follow it; together those are about the newer half."""
        times = self._times(table, schema)
        places = np.linspace(len(times) / 2, len(times), count, endpoint=False).round().astype(int)
        # A fold begins with a moment and ends before the next fold's, so that no moment is judged twice.
        starts = np.sort(times)[np.minimum(places, len(times) - 1)]
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
        """What was before a moment, and what was from then on, up to another moment."""
        held_out = times >= start if stop is None else (times >= start) & (times < stop)
        return _filled(np.flatnonzero(times < start), np.flatnonzero(held_out))


class RandomSplitter(Splitter):
    """Rows are held out at random; where there are classes, each keeps its share in both parts.

    Attributes:
        test_size: Share of the rows to hold out.
        random_state: The seed.
    """

    KIND: Literal["RandomSplitter"] = "RandomSplitter"
    test_size: float = Field(0.2, gt=0, lt=1)
    random_state: int = 42

    def split(self, table: pd.DataFrame, schema: TableSchema) -> Split:
        """As of `Splitter`."""
        from sklearn.model_selection import train_test_split

        rows = np.arange(len(table))
        try:
            train, test = train_test_split(
                rows, test_size=self.test_size, random_state=self.random_state, stratify=_labels(table, schema)
            )
        except ValueError as err:
            raise DataError(f"the table cannot be split: {err}", hint="bring more rows of each class") from err
        return _filled(np.sort(train), np.sort(test))

    def folds(self, table: pd.DataFrame, schema: TableSchema, count: int) -> Iterator[Split]:
        """Disjoint held-out parts that together are the whole table."""
        from sklearn.model_selection import KFold, StratifiedKFold

        labels = _labels(table, schema)
        kind = KFold if labels is None else StratifiedKFold
        try:
            splits = list(kind(count, shuffle=True, random_state=self.random_state).split(np.zeros(len(table)), labels))
        except ValueError as err:
            raise DataError(
                f"the table cannot be split into {count} folds: {err}", hint="take fewer folds or bring more rows"
            ) from err
        for train, test in splits:
            yield _filled(train, test)


SplitterKind = TimeSplitter | RandomSplitter


def _labels(table: pd.DataFrame, schema: TableSchema) -> NDArray[Any] | None:
    """The class of each row as a text, none for a regression.

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


def _filled(train: Rows, test: Rows) -> Split:
    if not len(train) or not len(test):
        part = "training" if not len(train) else "held-out"
        raise DataError(f"the split leaves no row in the {part} part", hint="bring more rows or change test_size")
    return train, test
