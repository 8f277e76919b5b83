"""Fitting of features to the training part of a table."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.features import (
    CrossFeature,
    DatePartFeature,
    Feature,
    Features,
    HolidayFeature,
    Matrix,
    MissingIndicator,
    NumericFeature,
    OneHotFeature,
    OrdinalFeature,
    ProductFeature,
    TargetEncodedFeature,
)
from model_name.core.features.categorical import OTHER_CATEGORY
from model_name.core.features.datetimes import CYCLE_LENGTHS, DATETIME_PARTS
from model_name.core.features.holidays import public_holidays
from model_name.core.features.interactions import category_pairs
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column, Columns, label_text
from model_name.core.schemas.encodings import DatetimePart
from model_name.errors import ConfigError, DataError

DEFAULT_DATETIME_PARTS: tuple[DatetimePart, ...] = ("hour", "weekday", "month")
CYCLE_LENGTH_DAYS: dict[DatetimePart, float] = {"hour": 1, "weekday": 7, "day": 30.4, "yearday": 365, "month": 365}
FUTURE_HOLIDAY_YEARS = 15  # after the training part, whose holidays are stored as well
QUANTILE_KNOTS = 101
CROSS_FITTING_FOLDS = 5
SHRINKAGE = 20.0  # rows at the overall mean that are added to each category (Micci-Barreca 2001)
MAX_ONE_HOT = 200  # features of one column


@dataclass(frozen=True)
class TargetData:
    """Targets of the training rows, for features that are computed from them.

    Attributes:
        targets: n numbers of a regression, or n positions in the classes.
        classes: Number of classes; 0 for a regression.
        names: Names of the classes, as they appear in names of features.
    """

    targets: NDArray[Any]
    classes: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def for_table(cls, schema: TableSchema, targets: NDArray[Any]) -> "TargetData":
        """Pair the targets of a table with the classes of its schema."""
        return cls(targets, len(schema.classes), tuple(label_text(label) for label in schema.classes))

    @property
    def encoded_targets(self) -> list[tuple[str, NDArray[np.float64]]]:
        """Numeric targets that are averaged per category, each with the suffix of its feature's name.

        They are the number of a regression, the indicator of the positive class, or the indicators of all classes.
        """
        if not self.classes:
            return [("", self.targets.astype(np.float64))]
        codes = [1] if self.classes == 2 else range(self.classes)
        return [(f" {self.names[code]}", (self.targets == code).astype(np.float64)) for code in codes]


def fit_features(schema: TableSchema, columns: Columns, target_data: TargetData) -> Features:
    """Fit the features of a table.

    A datetime column yields those of its parts that vary. If the schema lists no `values` for a category column, its
    categories are those of the training part.

    Raises:
        DataError: No feature is left, because the only inputs are datetimes that do not vary.
        ConfigError: An encoding is impossible, such as the holidays of an unknown country or too many categories.
    """
    features: list[Feature] = []
    for name, column in schema.inputs.items():
        if column.kind == "category":
            features += _fit_category(name, column, columns[name], target_data)
        else:
            features += (_fit_datetime if column.kind == "datetime" else _fit_number)(name, column, columns[name])
    for first, second in schema.interactions:
        features.append(_fit_interaction(schema, columns, first, second))
    if not features:
        raise DataError(
            f"there is nothing to learn from: {', '.join(schema.inputs)} does not vary in the training part"
        )
    return Features.model_validate({"columns": tuple(features)})


def cross_fitted_matrix(features: Features, columns: Columns, target_data: TargetData, *, seed: int) -> Matrix:
    """Compute the training matrix, with target encodings fitted out of fold so that no row sees its own target.

    Args:
        features: Features fitted on the same rows.
        columns: Typed columns of the rows.
        target_data: Targets of the rows.
        seed: Seed of the assignment of rows to folds.
    """
    matrix = features.transform(columns)
    folds = np.random.default_rng(seed).permutation(len(matrix)) % CROSS_FITTING_FOLDS
    for position, feature in enumerate(features.columns):
        if isinstance(feature, TargetEncodedFeature):
            targets = dict(target_data.encoded_targets)[feature.name.removeprefix(f"{feature.source}.rate")]
            values = columns[feature.source]
            for fold in range(CROSS_FITTING_FOLDS):
                rest = folds != fold
                if rest.any() and not rest.all():
                    fitted = _target_encoding(feature.name, feature.source, values[rest], targets[rest], feature.rare)
                    matrix[~rest, position] = fitted.transform({feature.source: values[~rest]})
    return matrix


def distinct_categories(values: NDArray[Any]) -> tuple[str, ...]:
    """List the distinct categories of a typed column, sorted."""
    return tuple(sorted({value for value in values if value is not None}))


def _fit_number(name: str, column: Column, values: NDArray[Any]) -> Iterator[Feature]:
    encoding = column.encode
    known = values[~np.isnan(values)]
    fill = None if encoding.impute == "none" else 0.0
    if encoding.impute in {"mean", "median"} and len(known):
        fill = float(known.mean() if encoding.impute == "mean" else np.median(known))
    center, spread, knots, ranks = 0.0, 1.0, np.empty(0), np.empty(0)
    if encoding.scale == "standard" and len(known):
        center, spread = float(known.mean()), float(known.std()) or 1.0
    if encoding.scale == "quantile" and len(known):
        knots, ranks = _quantile_knots(known)
    yield NumericFeature(
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
        yield MissingIndicator(name=f"{name}.is_missing", source=name)


def _quantile_knots(known: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Compute the quantiles of the values and those of a normal distribution, averaged where quantiles are equal."""
    levels = np.linspace(0, 1, QUANTILE_KNOTS)
    quantiles = np.quantile(known, levels)
    inner_levels = np.clip(levels, 0.5 / QUANTILE_KNOTS, 1 - 0.5 / QUANTILE_KNOTS)
    normal_quantiles = np.array([NormalDist().inv_cdf(level) for level in inner_levels])
    knots, positions = np.unique(quantiles, return_inverse=True)
    return knots, np.bincount(positions, normal_quantiles) / np.bincount(positions)


def _fit_category(name: str, column: Column, values: NDArray[Any], target_data: TargetData) -> Iterator[Feature]:
    encoding = column.encode
    known = column.values if column.values is not None else distinct_categories(values)
    counts = Counter(values.tolist())
    rare = tuple(value for value in known if counts[value] < encoding.rare)
    kept = tuple(value for value in known if counts[value] >= encoding.rare)
    if encoding.code == "target":
        for suffix, targets in target_data.encoded_targets:
            yield _target_encoding(f"{name}.rate{suffix}", name, values, targets, rare)
    elif encoding.code == "one-hot":
        if len(kept) > MAX_ONE_HOT:
            hint = f"columns.{name}.encode: use code: target or ordinal, or merge with rare: N"
            raise ConfigError(f"{name}: has {len(kept):,} categories, one-hot allows {MAX_ONE_HOT}", hint=hint)
        yield from (OneHotFeature(name=f"{name}={value}", source=name, values=(value,)) for value in kept)
        if rare:
            yield OneHotFeature(name=f"{name}={OTHER_CATEGORY}", source=name, values=rare)
    else:
        yield OrdinalFeature(name=name, source=name, values=(*kept, OTHER_CATEGORY) if rare else kept, rare=rare)


def _merge_rare(values: NDArray[Any], rare: tuple[str, ...]) -> NDArray[Any]:
    if not rare:
        return values
    merged = np.empty(len(values), dtype=object)
    rare_values = {*rare}
    merged[:] = [OTHER_CATEGORY if value in rare_values else value for value in values]
    return merged


def _target_encoding(
    name: str, source: str, values: NDArray[Any], targets: NDArray[Any], rare: tuple[str, ...]
) -> TargetEncodedFeature:
    values = _merge_rare(values, rare)
    known = distinct_categories(values)
    position = {value: code for code, value in enumerate(known)}
    codes = np.array([position.get(value, len(known)) for value in values])
    sums = np.bincount(codes, targets, minlength=len(known) + 1)[: len(known)]
    counts = np.bincount(codes, minlength=len(known) + 1)[: len(known)]
    prior = float(targets.mean())
    means = (sums + SHRINKAGE * prior) / (counts + SHRINKAGE)
    by_category = dict(zip(known, means.tolist(), strict=True))
    if rare:
        by_category |= dict.fromkeys(rare, by_category.pop(OTHER_CATEGORY, prior))
    rates = tuple(by_category.values())
    return TargetEncodedFeature(
        name=name, source=source, values=tuple(by_category), rates=rates, rare=rare, prior=prior
    )


def _fit_datetime(name: str, column: Column, datetimes: NDArray[Any]) -> Iterator[Feature]:
    known = datetimes[~np.isnat(datetimes)]
    if not len(known):
        return
    for part in DEFAULT_DATETIME_PARTS if column.encode.parts is None else column.encode.parts:
        for feature in _date_parts(name, part, known, is_cyclic=column.encode.cyclic):
            if len(np.unique(feature.transform({name: known}))) > 1:
                yield feature
    if column.encode.holidays:
        first, last = (day.astype("datetime64[Y]").astype(int) + 1970 for day in (known.min(), known.max()))
        config_path = f"columns.{name}.encode.holidays"
        days = public_holidays(column.encode.holidays, first, last + FUTURE_HOLIDAY_YEARS, config_path=config_path)
        yield HolidayFeature(name=f"{name}.holiday", source=name, days=days)


def _date_parts(name: str, part: DatetimePart, known: NDArray[Any], *, is_cyclic: bool) -> Iterator[DatePartFeature]:
    days = (known.max() - known.min()) / np.timedelta64(1, "D")
    completed = float(days / CYCLE_LENGTH_DAYS[part]) if part in CYCLE_LENGTH_DAYS else 0.0
    origin = float(DATETIME_PARTS[part](known).min()) if part == "elapsed" else 0.0
    yield DatePartFeature(name=f"{name}.{part}", source=name, part=part, origin=origin, completed=completed)
    if is_cyclic and part in CYCLE_LENGTHS:
        for wave in ("sin", "cos"):
            yield DatePartFeature(name=f"{name}.{part}.{wave}", source=name, part=part, wave=wave, completed=completed)


def _fit_interaction(schema: TableSchema, columns: Columns, first: str, second: str) -> Feature:
    if schema.columns[first].kind == "category":
        known = distinct_categories(category_pairs(columns[first], columns[second]))
        return CrossFeature(name=f"{first} & {second}", source=first, other=second, values=known)
    return ProductFeature(name=f"{first} x {second}", source=first, other=second)
