"""From typed columns to the numbers that a model looks at: fitted once, then the same code in training and serving.

Needs pydantic and numpy alone, because servers import it.
"""

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from model_name.core.columns import Columns
from model_name.core.documents import Frozen, Many
from model_name.core.schemas import TableSchema
from model_name.errors import DataError

Matrix = NDArray[np.float32]
"""n x d features, NaN where a value is missing. float32, because that is what every served graph computes with."""

Part = Literal["hour", "weekday", "month"]

PARTS: dict[Part, Any] = {
    "hour": lambda moments: (moments - moments.astype("datetime64[D]")) / np.timedelta64(1, "h"),
    # 1970-01-01 was a Thursday, the third day after Monday.
    "weekday": lambda moments: (moments.astype("datetime64[D]").astype(np.int64) + 3) % 7,
    "month": lambda moments: moments.astype("datetime64[M]").astype(np.int64) % 12 + 1,
}
CYCLE_DAYS: dict[Part, int] = {"hour": 1, "weekday": 7, "month": 365}


class Feature(Frozen):
    """One column of the matrix.

    Attributes:
        name: Its name in explanations.
        source: The column of the table that it comes from.
        kind: `number`, or `category` for a code: the position in `values`; unseen and missing ones are NaN.
        values: The categories in the order of their codes.
        part: Which part of a datetime it is.
        is_seasonal: False for a part of a datetime that has not completed two cycles in the training part, such as
            the month with less than two years: it grows with time there, so a smooth model would extrapolate it.
    """

    name: str
    source: str
    kind: Literal["number", "category"] = "number"
    values: Many[str] = ()
    part: Part | None = None
    is_seasonal: bool = True


class Features(Frozen):
    """The fitted features: all that a server needs to know to turn a request into the matrix."""

    columns: Many[Feature]

    @classmethod
    def fit(cls, schema: TableSchema, columns: Columns) -> Self:
        """Learn from the training part what the features are.

        A datetime becomes the parts of it that vary there; a category without given `values` takes those it has.

        Raises:
            DataError: There is none: the only inputs are datetimes that do not vary.
        """
        features: list[Feature] = []
        for name, column in schema.inputs.items():
            if column.kind == "category":
                values = column.values if column.values is not None else categories(columns[name])
                features.append(Feature(name=name, source=name, kind="category", values=values))
            elif column.kind == "datetime":
                features += datetime_features(name, columns[name])
            else:
                features.append(Feature(name=name, source=name))
        if not features:
            raise DataError(
                f"there is nothing to learn from: {', '.join(schema.inputs)} does not vary in the training part"
            )
        return cls(columns=tuple(features))

    @property
    def names(self) -> list[str]:
        """The d names, in the order of the matrix."""
        return [feature.name for feature in self.columns]

    def transform(self, columns: Columns) -> Matrix:
        """The matrix of typed columns, n x d."""
        rows = len(next(iter(columns.values())))
        matrix = np.empty((rows, len(self.columns)), dtype=np.float32)
        for position, feature in enumerate(self.columns):
            matrix[:, position] = read_feature(feature, columns[feature.source])
        return matrix


def datetime_features(name: str, moments: NDArray[Any]) -> list[Feature]:
    """The parts of a datetime column that vary in it."""
    known = moments[~np.isnat(moments)]
    if not len(known):
        return []
    days = (known.max() - known.min()) / np.timedelta64(1, "D")
    return [
        Feature(name=f"{name}.{part}", source=name, part=part, is_seasonal=bool(days >= 2 * CYCLE_DAYS[part]))
        for part, read in PARTS.items()
        if len(np.unique(read(known))) > 1
    ]


def categories(values: NDArray[Any]) -> tuple[str, ...]:
    """The distinct categories of a typed column, sorted."""
    return tuple(sorted({value for value in values if value is not None}))


class Codes(dict[Any, float]):
    """The codes of categories; anything else has the code NaN."""

    def __missing__(self, value: Any) -> float:
        """A missing or unseen category."""
        return float("nan")


def read_feature(feature: Feature, values: NDArray[Any]) -> NDArray[Any]:
    """One typed column as numbers."""
    if feature.kind == "category":
        codes = Codes({value: code for code, value in enumerate(feature.values)})
        return np.fromiter(map(codes.__getitem__, values.tolist()), dtype=np.float32, count=len(values))
    if feature.part is not None:
        numbers: NDArray[Any] = np.where(np.isnat(values), np.nan, PARTS[feature.part](values))
        return numbers
    return values
