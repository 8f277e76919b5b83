"""Learn from the training part what the features of a table are."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.features.holidays import public_holidays
from model_name.core.features.transforms import (
    CYCLES,
    OTHER,
    PARTS,
    Code,
    Cross,
    DatePart,
    Feature,
    Features,
    Gap,
    Holiday,
    Matrix,
    Number,
    OneHot,
    Product,
    Rate,
    pairs,
)
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column, Columns, label_text
from model_name.core.schemas.encodings import Part
from model_name.errors import ConfigError, DataError

DEFAULT_PARTS: tuple[Part, ...] = ("hour", "weekday", "month")
CYCLE_DAYS: dict[Part, float] = {"hour": 1, "weekday": 7, "day": 30.4, "yearday": 365, "month": 365}
FUTURE_YEARS = 15  # after the training part, whose holidays are written down too
KNOTS = 101
FOLDS = 5
SHRINKAGE = 20.0  # rows of the overall mean that are mixed into that of a category (Micci-Barreca 2001)
MAX_ONE_HOT = 200  # features that one column may become


@dataclass(frozen=True)
class Goal:
    """What is to be predicted, for the features that look at it.

    Attributes:
        targets: n numbers of a regression, or n positions in the classes.
        classes: How many classes there are; 0 of a regression.
        names: The classes, as features are named by them.
    """

    targets: NDArray[Any]
    classes: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: TableSchema, targets: NDArray[Any]) -> "Goal":
        """The targets of a table."""
        return cls(targets, len(schema.classes), tuple(label_text(label) for label in schema.classes))

    @property
    def sides(self) -> list[tuple[str, NDArray[np.float64]]]:
        """What a mean is taken of: the number, whether it is the positive class, or whether it is each class."""
        if not self.classes:
            return [("", self.targets.astype(np.float64))]
        wanted = [1] if self.classes == 2 else range(self.classes)
        return [(f" {self.names[code]}", (self.targets == code).astype(np.float64)) for code in wanted]


def fit_features(schema: TableSchema, columns: Columns, goal: Goal) -> Features:
    """Learn what the features are.

    A datetime becomes the parts of it that vary; a category without given `values` takes those it has.

    Raises:
        DataError: There is none: the only inputs are datetimes that do not vary.
        ConfigError: The schema asks for what there is not, such as the holidays of an unknown country.
    """
    features: list[Feature] = []
    for name, column in schema.inputs.items():
        if column.kind == "category":
            features += _category(name, column, columns[name], goal)
        else:
            features += (_datetime if column.kind == "datetime" else _number)(name, column, columns[name])
    for first, second in schema.interactions:
        features.append(_interaction(schema, columns, first, second))
    if not features:
        raise DataError(
            f"there is nothing to learn from: {', '.join(schema.inputs)} does not vary in the training part"
        )
    return Features.model_validate({"columns": tuple(features)})


def learning_matrix(features: Features, columns: Columns, goal: Goal, *, seed: int) -> Matrix:
    """The matrix to learn from: what looks at the target is made out of fold, so that no row is told its own.

    Args:
        features: Fitted on the same rows.
        columns: Their typed columns.
        goal: Their targets.
        seed: Of the folds.
    """
    matrix = features.transform(columns)
    folds = np.random.default_rng(seed).permutation(len(matrix)) % FOLDS
    for position, feature in enumerate(features.columns):
        if isinstance(feature, Rate):
            side = dict(goal.sides)[feature.name.removeprefix(f"{feature.source}.rate")]
            values = columns[feature.source]
            for fold in range(FOLDS):
                rest = folds != fold
                if rest.any() and not rest.all():
                    known = _rate(feature.name, feature.source, values[rest], side[rest], feature.rare)
                    matrix[~rest, position] = known.read({feature.source: values[~rest]})
    return matrix


def categories(values: NDArray[Any]) -> tuple[str, ...]:
    """The distinct categories of a typed column, sorted."""
    return tuple(sorted({value for value in values if value is not None}))


def _number(name: str, column: Column, values: NDArray[Any]) -> Iterator[Feature]:
    encoding = column.encode
    known = values[~np.isnan(values)]
    fill = None if encoding.impute == "none" else 0.0
    if encoding.impute in {"mean", "median"} and len(known):
        fill = float(known.mean() if encoding.impute == "mean" else np.median(known))
    center, spread, knots, ranks = 0.0, 1.0, np.empty(0), np.empty(0)
    if encoding.scale == "standard" and len(known):
        center, spread = float(known.mean()), float(known.std()) or 1.0
    if encoding.scale == "quantile" and len(known):
        knots, ranks = _ranks(known)
    yield Number(
        name=name,
        source=name,
        scale=encoding.scale if len(known) else "none",
        center=center,
        spread=spread,
        knots=tuple(knots.tolist()),
        ranks=tuple(ranks.tolist()),
        fill=fill,
    )
    if encoding.impute != "none" and 0 < len(known) < len(values):
        yield Gap(name=f"{name}.is_missing", source=name)


def _ranks(known: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Quantiles, and what a normal distribution has at them; at equal quantiles the middle of it."""
    shares = np.linspace(0, 1, KNOTS)
    quantiles = np.quantile(known, shares)
    normal = np.array([NormalDist().inv_cdf(share) for share in np.clip(shares, 0.5 / KNOTS, 1 - 0.5 / KNOTS)])
    knots, places = np.unique(quantiles, return_inverse=True)
    return knots, np.bincount(places, normal) / np.bincount(places)


def _category(name: str, column: Column, values: NDArray[Any], goal: Goal) -> Iterator[Feature]:
    encoding = column.encode
    known = column.values if column.values is not None else categories(values)
    counts = Counter(values.tolist())
    rare = tuple(value for value in known if counts[value] < encoding.rare)
    kept = tuple(value for value in known if counts[value] >= encoding.rare)
    if encoding.code == "target":
        for label, side in goal.sides:
            yield _rate(f"{name}.rate{label}", name, values, side, rare)
    elif encoding.code == "one-hot":
        if len(kept) > MAX_ONE_HOT:
            hint = f"columns.{name}.encode: use code: target or ordinal, or merge with rare: N"
            raise ConfigError(f"{name}: has {len(kept):,} categories, one-hot allows {MAX_ONE_HOT}", hint=hint)
        yield from (OneHot(name=f"{name}={value}", source=name, values=(value,)) for value in kept)
        if rare:
            yield OneHot(name=f"{name}={OTHER}", source=name, values=rare)
    else:
        yield Code(name=name, source=name, values=(*kept, OTHER) if rare else kept, rare=rare)


def _merged(values: NDArray[Any], rare: tuple[str, ...]) -> NDArray[Any]:
    if not rare:
        return values
    merged = np.empty(len(values), dtype=object)
    are_rare = {*rare}
    merged[:] = [OTHER if value in are_rare else value for value in values]
    return merged


def _rate(name: str, source: str, values: NDArray[Any], side: NDArray[Any], rare: tuple[str, ...]) -> Rate:
    values = _merged(values, rare)
    known = categories(values)
    position = {value: code for code, value in enumerate(known)}
    codes = np.array([position.get(value, len(known)) for value in values])
    sums = np.bincount(codes, side, minlength=len(known) + 1)[: len(known)]
    counts = np.bincount(codes, minlength=len(known) + 1)[: len(known)]
    prior = float(side.mean())
    means = (sums + SHRINKAGE * prior) / (counts + SHRINKAGE)
    spelled = dict(zip(known, means.tolist(), strict=True))
    if rare:
        spelled |= dict.fromkeys(rare, spelled.pop(OTHER, prior))
    rates = tuple(spelled.values())
    return Rate(name=name, source=source, values=tuple(spelled), rates=rates, rare=rare, prior=prior)


def _datetime(name: str, column: Column, moments: NDArray[Any]) -> Iterator[Feature]:
    known = moments[~np.isnat(moments)]
    if not len(known):
        return
    for part in DEFAULT_PARTS if column.encode.parts is None else column.encode.parts:
        for feature in _parts(name, part, known, is_cyclic=column.encode.cyclic):
            if len(np.unique(feature.read({name: known}))) > 1:
                yield feature
    if column.encode.holidays:
        first, last = (moment.astype("datetime64[Y]").astype(int) + 1970 for moment in (known.min(), known.max()))
        place = f"columns.{name}.encode.holidays"
        days = public_holidays(column.encode.holidays, first, last + FUTURE_YEARS, said_at=place)
        yield Holiday(name=f"{name}.holiday", source=name, days=days)


def _parts(name: str, part: Part, known: NDArray[Any], *, is_cyclic: bool) -> Iterator[DatePart]:
    days = (known.max() - known.min()) / np.timedelta64(1, "D")
    completed = float(days / CYCLE_DAYS[part]) if part in CYCLE_DAYS else 0.0
    origin = float(PARTS[part](known).min()) if part == "elapsed" else 0.0
    yield DatePart(name=f"{name}.{part}", source=name, part=part, origin=origin, completed=completed)
    if is_cyclic and part in CYCLES:
        for wave in ("sin", "cos"):
            yield DatePart(name=f"{name}.{part}.{wave}", source=name, part=part, wave=wave, completed=completed)


def _interaction(schema: TableSchema, columns: Columns, first: str, second: str) -> Feature:
    if schema.columns[first].kind == "category":
        known = categories(pairs(columns[first], columns[second]))
        return Cross(name=f"{first} & {second}", source=first, other=second, values=known)
    return Product(name=f"{first} x {second}", source=first, other=second)
