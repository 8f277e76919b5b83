"""Inference of a schema from a table, with a message about each decision and each likely mistake."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core.dataframes import Frame
from model_name.core.profiling.column_facts import ColumnFacts, facts_by_column
from model_name.core.profiling.encoding_proposals import (
    encoding_messages,
    holiday_messages,
    propose_encodings,
    propose_holidays,
)
from model_name.core.profiling.lag_discovery import find_time_series, lag_messages, propose_lags
from model_name.core.profiling.target_column import infer_target, target_messages
from model_name.core.profiling.target_leakage import find_leaking_columns
from model_name.core.profiling.time_and_key import find_duplicate_rows, find_key, find_time
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import FLOAT32_MAX, Column, Kind, and_more
from model_name.core.schemas.encodings import Encoding
from model_name.core.schemas.strict_models import did_you_mean
from model_name.errors import DataError

MAX_LISTED_CATEGORIES = 100  # more are not listed in the schema; then those of the training part are used


@dataclass(frozen=True)
class InferredSchema:
    """An inferred schema and the messages about it.

    Attributes:
        schema: The schema. It accepts the table, unless a column holds infinite values, which no schema accepts.
        findings: Messages about decisions and likely mistakes.
        notes: Short notes about the columns by name.
    """

    schema: TableSchema
    findings: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExclusionReason:
    """Reason why a column should not be a feature.

    Attributes:
        reason: Short text.
        is_suspicion: Whether the reason may be wrong. Suspicions are ignored if no feature would be left.
    """

    reason: str
    is_suspicion: bool = False


def infer_schema(
    frame: Frame, *, name: str, target: str, time: str | None = None, key: Sequence[str] = (), country: str = ""
) -> InferredSchema:
    """Infer the schema of a table.

    Args:
        frame: The raw table.
        name: Name of the table's subject.
        target: Name of the column to predict.
        time: Name of the datetime column that orders the rows; by default the only one.
        key: Names of the columns that identify a row; by default the fewest that do.
        country: Country whose public holidays are marked on the time column, `US` or `DE-BY`; by default none.

    Raises:
        DataError: No model can be fitted to the table, or a named column is absent or unsuitable for its role.
        ConfigError: The country is unknown, or has no such subdivision.
    """
    table = _rename_columns_to_text(frame)
    _check_roles(table, target, time, key)
    target_schema, target_facts = infer_target(table, target)
    facts, unreadable = facts_by_column(table, [column for column in table.columns if column != target])
    time_column, time_message = find_time(facts, time)
    key_columns, duplicates, key_message = find_key(facts, tuple(key), target_facts)
    exclusions = _exclusion_reasons(facts, target_facts, target_schema, keep=time_column)
    if not key_columns and not unreadable:  # rows may differ in columns that cannot be decoded
        duplicates, duplicates_message = find_duplicate_rows(facts, target_facts)
        key_message = "; ".join(filter(None, (key_message, duplicates_message)))
    encodings = propose_encodings(facts, target_schema, no_features=exclusions)
    encodings |= propose_holidays(facts, time_column, country)
    columns = {
        name: _build_column(column, encodings.get(name, Encoding()), is_feature=name not in exclusions)
        for name, column in facts.items()
    }
    if not any(column.is_input for column in columns.values()):
        raise _no_feature_error(facts, unreadable, exclusions)
    lag_columns, lag_findings = _propose_lag_columns(
        facts, target_facts, target_schema, time_column, taken=table.columns
    )
    schema = TableSchema(
        name=name,
        target=target_schema,
        columns=columns | lag_columns,
        time=time_column,
        key=key_columns,
        extra="drop" if unreadable else "refuse",
        duplicates=duplicates,
    )
    findings = [
        *target_messages(target_schema, target_facts),
        time_message,
        key_message,
        *(
            f"{name}: left out (`extra: drop`), because no kind of column supports its values ({dtype})"
            for name, dtype in unreadable.items()
        ),
        *holiday_messages(facts, time_column, country),
        *lag_findings,
        *_column_messages(facts),
        *encoding_messages(encodings, facts),
        *_feature_messages(facts, exclusions, target),
    ]
    notes = {name: _column_note(column, exclusions.get(name)) for name, column in facts.items()}
    return InferredSchema(schema, tuple(findings), notes)


def propose_bounds(values: NDArray[Any]) -> tuple[float | None, float | None]:
    """Propose bounds for new values: the observed range, extended by its span on both sides, but not across zero.

    Returns:
        The lower and the upper bound, rounded outward to two digits of the span; None for both if there is no finite
        value.
    """
    known = values[np.abs(values) <= FLOAT32_MAX]
    if not len(known):
        return None, None
    low, high = float(known.min()), float(known.max())
    span = high - low or abs(low) or 1.0
    if span < 1e-300:  # too small for float64 to round
        return None, None
    lower = max(low - span, 0.0) if low >= 0 else low - span
    upper = min(high + span, 0.0) if high <= 0 and low < 0 else high + span
    digits = 1 - int(np.floor(np.log10(span)))
    # min and max: for huge values with a small span, rounding could move a bound inside the observed range.
    return min(_round_outward(lower, digits, np.floor), low), max(_round_outward(upper, digits, np.ceil), high)


def _rename_columns_to_text(frame: Frame) -> Frame:
    if frame.empty:
        raise DataError("the table is empty: it has no rows", hint="check the path and the limit of its reader")
    table = frame.copy(deep=False)
    table.columns = pd.Index([str(name) for name in frame.columns])
    if not table.columns.is_unique:
        name = table.columns[table.columns.duplicated()][0]
        raise DataError(f"{name}: the table has this column twice", hint="rename one of them")
    return table


def _check_roles(frame: Frame, target: str, time: str | None, key: Sequence[str]) -> None:
    for role, names in (("target", [target]), ("time", [time] if time is not None else []), ("key", key)):
        for name in names:
            if name not in frame.columns:
                nearest = did_you_mean(name, list(frame.columns))
                raise DataError(f"{name}: the {role} is not a column of the table{nearest}")
            if name == target and role != "target":
                raise DataError(f"{name}: is the target and cannot be the {role} as well")
    if len(set(key)) < len(key):
        raise DataError(f"the key names a column twice: {', '.join(key)}")


def _propose_lag_columns(
    facts: Mapping[str, ColumnFacts],
    target_facts: ColumnFacts,
    target: Target,
    time: str | None,
    *,
    taken: Collection[str],
) -> tuple[dict[str, Column], list[str]]:
    """Propose lag columns of the target of a regression, with messages."""
    if time is None or target.task != "regression":
        return {}, []
    series = find_time_series(facts, time)
    proposal = propose_lags(series, target_facts.values, target.name, taken) if series else None
    return (dict(proposal.columns) if proposal else {}), list(lag_messages(series, proposal, target.name))


def _exclusion_reasons(
    facts: Mapping[str, ColumnFacts], target_facts: ColumnFacts, target: Target, *, keep: str | None
) -> dict[str, ExclusionReason]:
    """Collect the reasons why columns should not be features, by name."""
    exclusions: dict[str, ExclusionReason] = {}
    for name, column in facts.items():
        if not len(column.distinct):
            exclusions[name] = ExclusionReason("all its values are missing")
        elif len(column.distinct) == 1 and column.is_complete:
            exclusions[name] = ExclusionReason(f"it is constant ({column.distinct[0]})")
        elif column.is_sequence:
            exclusions[name] = ExclusionReason("it counts the rows, as an id does", is_suspicion=True)
    equal = {
        name: ExclusionReason(f"it is the same as {first}")
        for name, first in _find_equal_columns(facts)
        if name != keep
    }
    exclusions = equal | exclusions
    rest = {name: column for name, column in facts.items() if name not in exclusions and column.kind != "text-id"}
    for name, score in find_leaking_columns(rest, target_facts, is_regression=target.task == "regression"):
        reason = f"it alone predicts the target nearly perfectly ({score:.1%}): a suspected leak"
        exclusions[name] = ExclusionReason(reason, is_suspicion=True)
    if all(name in exclusions or column.kind == "text-id" for name, column in facts.items()):
        return {name: exclusion for name, exclusion in exclusions.items() if not exclusion.is_suspicion}
    return exclusions


def _find_equal_columns(facts: Mapping[str, ColumnFacts]) -> Iterator[tuple[str, str]]:
    """Find columns that equal an earlier one, as pairs of the name and the earlier name."""
    first: dict[tuple[Kind, int, int], str] = {}
    for name, column in facts.items():
        distinct = pd.util.hash_array(column.distinct)
        digest = (column.kind, hash(column.codes.tobytes()), hash(distinct.tobytes()))
        earlier = first.setdefault(digest, name)
        if earlier != name and np.array_equal(facts[earlier].distinct, column.distinct):
            yield name, earlier


def _build_column(column: ColumnFacts, encode: Encoding, *, is_feature: bool) -> Column:
    # A column that is no feature, such as a row counter, may grow: bounds would only refuse the next batch.
    low, high = propose_bounds(column.values) if column.kind == "numeric" and is_feature else (None, None)
    is_listed = column.kind == "category" and 0 < len(column.distinct) <= MAX_LISTED_CATEGORIES
    return Column(
        kind=column.kind,
        nullable=not column.is_complete,
        min=low,
        max=high,
        values=tuple(sorted(column.distinct)) if is_listed else None,
        feature=is_feature,
        encode=encode,
    )


def _round_outward(value: float, digits: int, floor_or_ceil: Any) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = round(float(floor_or_ceil(value * 10.0**digits) / 10.0**digits), digits)
    return rounded if np.isfinite(rounded) else value


def _no_feature_error(
    facts: Mapping[str, ColumnFacts], unreadable: Mapping[str, str], exclusions: Mapping[str, ExclusionReason]
) -> DataError:
    reasons = [f"{name}: {exclusions[name].reason if name in exclusions else 'it names rows'}" for name in facts]
    reasons += [f"{name}: its values cannot be read ({dtype})" for name, dtype in unreadable.items()]
    text = "; ".join(reasons) or "the table has no other column than the target"
    return DataError(
        f"no column is left for a model to look at: {text}",
        hint="bring a table with columns that say something about the target",
    )


def _column_messages(facts: Mapping[str, ColumnFacts]) -> Iterator[str]:
    for name, column in facts.items():
        count = len(column.distinct)
        if column.kind == "numeric":
            infinite = int((np.abs(column.values) > FLOAT32_MAX).sum())
            if infinite:
                text = f"{name}: is infinite, or too large for a model, in {infinite:,} rows"
                yield f"{text}; every job REFUSES the table until these values are corrected or left empty"
            if column.is_integer and set(column.distinct) == {0.0, 1.0}:
                yield f"{name}: is numeric with only 0 and 1; if it is a flag, set `kind: boolean`, without bounds"
        if column.kind == "datetime" and column.is_text:
            yield f"{name}: holds dates as texts, which are parsed as ISO 8601"
        if column.kind == "text-id":
            text = f"{name}: its {count:,} distinct texts identify rows, so it is no feature (`text-id`)"
            yield f"{text}; set `kind: category` if they are categories"
        if column.kind == "category" and count > MAX_LISTED_CATEGORIES:
            yield f"{name}: its {count:,} categories are not listed; those of the training part are used"


def _feature_messages(
    facts: Mapping[str, ColumnFacts], exclusions: Mapping[str, ExclusionReason], target: str
) -> Iterator[str]:
    for name, exclusion in exclusions.items():
        override = "; remove `feature: false` to make it a feature" if exclusion.is_suspicion else ""
        yield f"{name}: is no feature (`feature: false`), because {exclusion.reason}{override}"
    similar = [
        name for name in facts if name not in exclusions and len(target) > 2 and target.casefold() in name.casefold()
    ]
    if similar:
        text = f"{similar[0]}{and_more(similar[1:])}: contains the target's name"
        yield f"{text}; set `feature: false` if its value is known only after the target"


def _column_note(column: ColumnFacts, exclusion: ExclusionReason | None) -> str:
    parts = [exclusion.reason] if exclusion else []
    if column.kind == "numeric" and np.isfinite(column.distinct).any():
        known = column.distinct[np.isfinite(column.distinct)]
        parts.append(f"{known.min():.6g} to {known.max():.6g}")
    if column.kind == "datetime" and len(column.distinct):
        parts.append(f"{str(column.distinct.min())[:10]} to {str(column.distinct.max())[:10]}")
    if column.kind in {"category", "text-id"} and len(column.distinct) > MAX_LISTED_CATEGORIES:
        parts.append(f"{len(column.distinct):,} distinct texts")
    if column.missing_count:
        parts.append(f"{column.missing_count / len(column.values):.1%} missing")
    return ", ".join(parts)
