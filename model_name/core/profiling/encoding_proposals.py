"""How columns should become features, where a table calls for more than the defaults; a sentence for each decision."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.features.holidays import public_holidays
from model_name.core.profiling.column_facts import ColumnFacts
from model_name.core.schemas import Target
from model_name.core.schemas.columns import and_more
from model_name.core.schemas.encodings import Encoding

MAX_ORDINAL_CATEGORIES = 10  # above which trees did better with the mean of the target than with positions (docs/features.md)
MIN_ROWS_PER_CATEGORY = 2  # on average, for a mean of the target to mean anything
MAX_TARGET_ENCODED_CLASSES = 10  # as many features as that one column may become
MIN_SKEW = 10.0  # how far above the median the upper per cent of a skewed number lies


def propose_encodings(
    facts: Mapping[str, ColumnFacts], target: Target, *, no_features: Collection[str]
) -> dict[str, Encoding]:
    """How columns should become features, by name; those that the defaults fit are not in it."""
    encodings = {}
    for name, found in facts.items():
        if name in no_features:
            continue
        if found.kind == "category" and _suits_target_encoding(found, target):
            encodings[name] = Encoding(code="target")
        if found.kind == "numeric" and _is_skewed(found.values):
            encodings[name] = Encoding(scale="log")
    return encodings


def propose_holidays(facts: Mapping[str, ColumnFacts], time: str | None, country: str) -> dict[str, Encoding]:
    """The holidays of a country on the time column, where there is one.

    Raises:
        ConfigError: There is no such country, or it has no such part.
    """
    if not country:
        return {}
    moments = facts[time].values if time else np.array(["2000"], dtype="datetime64[us]")
    first, last = (moment.astype("datetime64[Y]").astype(int) + 1970 for moment in (moments.min(), moments.max()))
    public_holidays(country, first, last, config_path="--country")
    return {time: Encoding(holidays=country)} if time else {}


def encoding_messages(encodings: Mapping[str, Encoding], facts: Mapping[str, ColumnFacts]) -> Iterator[str]:
    """What was decided, and how to decide otherwise."""
    for name, encoding in encodings.items():
        if encoding.code == "target":
            words = f"{name}: its {len(facts[name].distinct):,} categories become the mean of the target in each"
            yield f"{words} (`encode: {{code: target}}`); remove that to have them numbered"
    skewed = [name for name, encoding in encodings.items() if encoding.scale == "log"]
    if skewed:
        words = (
            f"{skewed[0]}{and_more(skewed[1:])}: a few values are far above the usual ones, so the logarithm is looked at"
        )
        yield f"{words} (`encode: {{scale: log}}`); to trees it is the same"


def holiday_messages(facts: Mapping[str, ColumnFacts], time: str | None, country: str) -> Iterator[str]:
    """Whether holidays are looked at."""
    if country and time is None:
        yield f"holidays: there is no time column that those of {country} could be marked on"
    elif country:
        yield f"{time}: the public holidays of {country} are marked (`encode: {{holidays: {country}}}`)"
    elif time is not None and _is_daily_or_finer(facts[time].distinct):
        yield f"{time}: no public holidays are looked at; name a country to have its own marked, e.g. --country US"


def _suits_target_encoding(found: ColumnFacts, target: Target) -> bool:
    rows = len(found.values) - found.missing
    is_few_features = len(target.classes or ()) <= MAX_TARGET_ENCODED_CLASSES
    return is_few_features and MAX_ORDINAL_CATEGORIES < len(found.distinct) <= rows / MIN_ROWS_PER_CATEGORY


def _is_skewed(values: NDArray[Any]) -> bool:
    """Whether a number that is never negative has a long tail, above 1, where a logarithm bends it."""
    known = values[np.isfinite(values)]
    if not len(known) or known.min() < 0:
        return False
    median, high = np.quantile(known, (0.5, 0.99))
    return bool(high > MIN_SKEW * max(median, 1.0))


def _is_daily_or_finer(moments: NDArray[Any]) -> bool:
    steps = np.diff(np.sort(moments))
    return bool(len(steps) and np.median(steps) <= np.timedelta64(1, "D"))
