"""Proposals of encodings for columns that the defaults do not suit, with a message about each."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.features.holidays import public_holidays
from model_name.core.profiling.column_facts import ColumnFacts
from model_name.core.schemas import Target
from model_name.core.schemas.columns import and_more
from model_name.core.schemas.encodings import Encoding

MAX_ORDINAL_CATEGORIES = 10  # with more, trees were better with the mean of the target (docs/features.md)
MIN_ROWS_PER_CATEGORY = 2  # mean number of rows that a target encoding needs
MAX_TARGET_ENCODED_CLASSES = 10  # a target encoding makes a feature for each class
MIN_SKEW = 10.0  # ratio of the 99th percentile to the median from which a number is skewed


def propose_encodings(
    facts: Mapping[str, ColumnFacts], target: Target, *, no_features: Collection[str]
) -> dict[str, Encoding]:
    """Propose encodings for the columns that the defaults do not suit.

    Args:
        facts: Facts of the columns by name.
        target: Target of the predictions.
        no_features: Names of the columns that are no features.
    """
    encodings = {}
    for name, column in facts.items():
        if name in no_features:
            continue
        if column.kind == "category" and _suits_target_encoding(column, target):
            encodings[name] = Encoding(code="target")
        if column.kind == "numeric" and _is_skewed(column.values):
            encodings[name] = Encoding(scale="log")
    return encodings


def propose_holidays(facts: Mapping[str, ColumnFacts], time: str | None, country: str) -> dict[str, Encoding]:
    """Propose the holidays of a country as a feature of the time column, if there is one.

    Raises:
        ConfigError: The country is unknown, or has no such subdivision.
    """
    if not country:
        return {}
    datetimes = facts[time].values if time else np.array(["2000"], dtype="datetime64[us]")
    first, last = (day.astype("datetime64[Y]").astype(int) + 1970 for day in (datetimes.min(), datetimes.max()))
    public_holidays(country, first, last, config_path="--country")
    return {time: Encoding(holidays=country)} if time else {}


def encoding_messages(encodings: Mapping[str, Encoding], facts: Mapping[str, ColumnFacts]) -> Iterator[str]:
    """Describe the proposed encodings and how to change them."""
    for name, encoding in encodings.items():
        if encoding.code == "target":
            text = f"{name}: its {len(facts[name].distinct):,} categories are encoded as the mean of the target in each"
            yield f"{text} (`encode: {{code: target}}`); remove that to encode their positions"
    skewed = [name for name, encoding in encodings.items() if encoding.scale == "log"]
    if skewed:
        text = f"{skewed[0]}{and_more(skewed[1:])}: a few values are far above the rest, so the logarithm is used"
        yield f"{text} (`encode: {{scale: log}}`); trees are not affected by it"


def holiday_messages(facts: Mapping[str, ColumnFacts], time: str | None, country: str) -> Iterator[str]:
    """Describe whether holidays are marked."""
    if country and time is None:
        yield f"holidays: there is no time column on which those of {country} could be marked"
    elif country:
        yield f"{time}: the public holidays of {country} are marked (`encode: {{holidays: {country}}}`)"
    elif time is not None and _is_daily_or_finer(facts[time].distinct):
        yield f"{time}: no public holidays are marked; name a country to mark its own, e.g. --country US"


def _suits_target_encoding(column: ColumnFacts, target: Target) -> bool:
    rows = len(column.values) - column.missing_count
    has_few_classes = len(target.classes or ()) <= MAX_TARGET_ENCODED_CLASSES
    return has_few_classes and MAX_ORDINAL_CATEGORIES < len(column.distinct) <= rows / MIN_ROWS_PER_CATEGORY


def _is_skewed(values: NDArray[Any]) -> bool:
    """Return whether a non-negative number has a long tail above 1, where the logarithm compresses it."""
    known = values[np.isfinite(values)]
    if not len(known) or known.min() < 0:
        return False
    median, high = np.quantile(known, (0.5, 0.99))
    return bool(high > MIN_SKEW * max(median, 1.0))


def _is_daily_or_finer(datetimes: NDArray[Any]) -> bool:
    steps = np.diff(np.sort(datetimes))
    return bool(len(steps) and np.median(steps) <= np.timedelta64(1, "D"))
