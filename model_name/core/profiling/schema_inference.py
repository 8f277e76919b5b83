"""From a table to its schema: what each column is, what names a row, and what looks wrong, a sentence each."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core.dataframes import Frame
from model_name.core.profiling.column_facts import ColumnFacts, facts_by_column
from model_name.core.profiling.encoding_proposals import (
    propose_encodings,
    propose_holidays,
    encoding_messages,
    holiday_messages,
)
from model_name.core.profiling.lag_discovery import find_time_series, propose_lags, lag_messages
from model_name.core.profiling.target_column import infer_target, target_messages
from model_name.core.profiling.target_leakage import find_leaking_columns
from model_name.core.profiling.time_and_key import find_duplicate_rows, find_key, find_time
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import FLOAT32_MAX, Column, Kind, and_more
from model_name.core.schemas.encodings import Encoding
from model_name.core.schemas.strict_models import did_you_mean
from model_name.errors import DataError

LISTED_CATEGORIES = 100  # more are not written down but taken from the training part


@dataclass(frozen=True)
class InferredSchema:
    """What a table seems to be.

    Attributes:
        schema: Its schema, which accepts it; infinite values of a column alone, no schema does.
        findings: What was decided and what looks wrong, a sentence each.
        notes: What was seen in a column, by name.
    """

    schema: TableSchema
    findings: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExclusionReason:
    """Why a column should not be a feature.

    Attributes:
        reason: A few words.
        is_suspicion: Whether it may be wrong: then the column comes back rather than leave a model without features.
    """

    reason: str
    is_suspicion: bool = False


def infer_schema(
    frame: Frame, *, name: str, target: str, time: str | None = None, key: Sequence[str] = (), country: str = ""
) -> InferredSchema:
    """Guess the schema of a table and say what was guessed.

    Args:
        frame: The table.
        name: What it is about.
        target: The column to predict.
        time: The datetime column that orders the rows; the only one by default.
        key: The columns that name a row; by default the fewest that do.
        country: Whose public holidays are marked on the time column: `US`, `DE-BY`; by default none are.

    Raises:
        DataError: There is nothing to learn from the table, or a named column is not in it or not fit for its role.
        ConfigError: There is no such country.
    """
    named = _rename_columns_to_text(frame)
    _check_roles(named, target, time, key)
    described, target_facts = infer_target(named, target)
    facts, unreadable = facts_by_column(named, [name for name in named.columns if name != target])
    moment, said_of_time = find_time(facts, time)
    names_row, duplicates, said_of_key = find_key(facts, tuple(key), target_facts)
    exclusions = _exclusion_reasons(facts, target_facts, described, keep=moment)
    if not names_row and not unreadable:  # rows may differ in what cannot be read
        duplicates, said_of_copies = find_duplicate_rows(facts, target_facts)
        said_of_key = "; ".join(filter(None, (said_of_key, said_of_copies)))
    encodings = propose_encodings(facts, described, no_features=exclusions) | propose_holidays(facts, moment, country)
    columns = {
        name: _build_column(found, encodings.get(name, Encoding()), is_feature=name not in exclusions)
        for name, found in facts.items()
    }
    if not any(column.is_input for column in columns.values()):
        raise _no_feature_error(facts, unreadable, exclusions)
    told, said_of_earlier = _propose_lag_columns(facts, target_facts, described, moment, taken=named.columns)
    schema = TableSchema(
        name=name,
        target=described,
        columns=columns | told,
        time=moment,
        key=names_row,
        extra="drop" if unreadable else "refuse",
        duplicates=duplicates,
    )
    findings = [
        *target_messages(described, target_facts),
        said_of_time,
        said_of_key,
        *(f"{name}: left out (`extra: drop`), no kind reads its values ({what})" for name, what in unreadable.items()),
        *holiday_messages(facts, moment, country),
        *said_of_earlier,
        *_column_messages(facts),
        *encoding_messages(encodings, facts),
        *_feature_messages(facts, exclusions, target),
    ]
    notes = {name: _column_note(found, exclusions.get(name)) for name, found in facts.items()}
    return InferredSchema(schema, tuple(findings), notes)


def propose_bounds(values: NDArray[Any]) -> tuple[float | None, float | None]:
    """Bounds that new values should keep to: the observed ones and their span beyond, but not across zero.

    Returns:
        The lower and the upper one, rounded outward to two digits of the span; None where there is nothing to go by.
    """
    known = values[np.abs(values) <= FLOAT32_MAX]
    if not len(known):
        return None, None
    low, high = float(known.min()), float(known.max())
    span = high - low or abs(low) or 1.0
    if span < 1e-300:  # its digits are beyond float64
        return None, None
    lower = max(low - span, 0.0) if low >= 0 else low - span
    upper = min(high + span, 0.0) if high <= 0 and low < 0 else high + span
    digits = 1 - int(np.floor(np.log10(span)))
    # min and max: for huge values with a small span, rounding could fall back into what was observed.
    return min(_round_outward(lower, digits, np.floor), low), max(_round_outward(upper, digits, np.ceil), high)


def _rename_columns_to_text(frame: Frame) -> Frame:
    if frame.empty:
        raise DataError("the table is empty: it has no rows", hint="check the path and the limit of its reader")
    named = frame.copy(deep=False)
    named.columns = pd.Index([str(name) for name in frame.columns])
    if not named.columns.is_unique:
        twice = named.columns[named.columns.duplicated()][0]
        raise DataError(f"{twice}: the table has this column twice", hint="rename one of them")
    return named


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
    facts: Mapping[str, ColumnFacts], target_facts: ColumnFacts, target: Target, time: str | None, *, taken: Collection[str]
) -> tuple[dict[str, Column], list[str]]:
    """The columns that tell of earlier values of a number to predict, and why these."""
    if time is None or target.task != "regression":
        return {}, []
    series = find_time_series(facts, time)
    proposal = propose_lags(series, target_facts.values, target.name, taken) if series else None
    return (dict(proposal.columns) if proposal else {}), list(lag_messages(series, proposal, target.name))


def _exclusion_reasons(facts: Mapping[str, ColumnFacts], target_facts: ColumnFacts, target: Target, *, keep: str | None) -> dict[str, ExclusionReason]:
    """Why columns should not be features, by name."""
    exclusions: dict[str, ExclusionReason] = {}
    for name, found in facts.items():
        if not len(found.distinct):
            exclusions[name] = ExclusionReason("all its values are missing")
        elif len(found.distinct) == 1 and found.is_complete:
            exclusions[name] = ExclusionReason(f"it is constant ({found.distinct[0]})")
        elif found.is_sequence:
            exclusions[name] = ExclusionReason("it counts the rows, as an id does", is_suspicion=True)
    copies = {name: ExclusionReason(f"it is the same as {first}") for name, first in _find_equal_columns(facts) if name != keep}
    exclusions = copies | exclusions
    left = {name: found for name, found in facts.items() if name not in exclusions and found.kind != "text-id"}
    for name, score in find_leaking_columns(left, target_facts, is_regression=target.task == "regression"):
        reason = f"it alone predicts the target nearly perfectly ({score:.1%}): a suspected leak"
        exclusions[name] = ExclusionReason(reason, is_suspicion=True)
    if all(name in exclusions or found.kind == "text-id" for name, found in facts.items()):
        return {name: exclusion for name, exclusion in exclusions.items() if not exclusion.is_suspicion}
    return exclusions


def _find_equal_columns(facts: Mapping[str, ColumnFacts]) -> Iterator[tuple[str, str]]:
    first: dict[tuple[Kind, int, int], str] = {}
    for name, found in facts.items():
        distinct = pd.util.hash_array(found.distinct)
        earlier = first.setdefault((found.kind, hash(found.codes.tobytes()), hash(distinct.tobytes())), name)
        if earlier != name and np.array_equal(facts[earlier].distinct, found.distinct):
            yield name, earlier


def _build_column(found: ColumnFacts, encode: Encoding, *, is_feature: bool) -> Column:
    # What no model looks at, such as a counter of rows, may grow: a bound would only refuse the next batch.
    low, high = propose_bounds(found.values) if found.kind == "numeric" and is_feature else (None, None)
    is_listed = found.kind == "category" and 0 < len(found.distinct) <= LISTED_CATEGORIES
    return Column(
        kind=found.kind,
        nullable=not found.is_complete,
        min=low,
        max=high,
        values=tuple(sorted(found.distinct)) if is_listed else None,
        feature=is_feature,
        encode=encode,
    )


def _round_outward(value: float, digits: int, whole: Any) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = round(float(whole(value * 10.0**digits) / 10.0**digits), digits)
    return rounded if np.isfinite(rounded) else value


def _no_feature_error(facts: Mapping[str, ColumnFacts], unreadable: Mapping[str, str], exclusions: Mapping[str, ExclusionReason]) -> DataError:
    reasons = [f"{name}: {exclusions[name].reason if name in exclusions else 'it names rows'}" for name in facts]
    reasons += [f"{name}: its values cannot be read ({what})" for name, what in unreadable.items()]
    words = "; ".join(reasons) or "the table has no other column than the target"
    return DataError(
        f"no column is left for a model to look at: {words}",
        hint="bring a table with columns that say something about the target",
    )


def _column_messages(facts: Mapping[str, ColumnFacts]) -> Iterator[str]:
    for name, found in facts.items():
        if found.kind == "numeric":
            infinite = int((np.abs(found.values) > FLOAT32_MAX).sum())
            if infinite:
                words = f"{name}: is infinite, or too large for a model, in {infinite:,} rows"
                yield f"{words}; every job REFUSES the table until these are mended or left empty"
            if found.is_integer and set(found.distinct) == {0.0, 1.0}:
                yield f"{name}: holds only 0 and 1 and is numeric; for no and yes set `kind: boolean`, without bounds"
        if found.kind == "datetime" and found.is_text:
            yield f"{name}: holds dates as texts; they are read as ISO 8601"
        if found.kind == "text-id":
            words = f"{name}: its {len(found.distinct):,} different texts name rows, no model looks at them (`text-id`)"
            yield f"{words}; set `kind: category` if they are categories"
        if found.kind == "category" and len(found.distinct) > LISTED_CATEGORIES:
            yield f"{name}: its {len(found.distinct):,} categories are not listed, those of the training part count"


def _feature_messages(facts: Mapping[str, ColumnFacts], exclusions: Mapping[str, ExclusionReason], target: str) -> Iterator[str]:
    for name, exclusion in exclusions.items():
        more = "; remove `feature: false` to let the model look at it" if exclusion.is_suspicion else ""
        yield f"{name}: is no feature (`feature: false`), because {exclusion.reason}{more}"
    likely = [name for name in facts if name not in exclusions and len(target) > 2 and target.casefold() in name.casefold()]
    if likely:
        words = f"{likely[0]}{and_more(likely[1:])}: has the target's name in its own"
        yield f"{words}; set `feature: false` if it is known only after the target"


def _column_note(found: ColumnFacts, exclusion: ExclusionReason | None) -> str:
    parts = [exclusion.reason] if exclusion else []
    if found.kind == "numeric" and np.isfinite(found.distinct).any():
        known = found.distinct[np.isfinite(found.distinct)]
        parts.append(f"{known.min():.6g} to {known.max():.6g}")
    if found.kind == "datetime" and len(found.distinct):
        parts.append(f"{str(found.distinct.min())[:10]} to {str(found.distinct.max())[:10]}")
    if found.kind in {"category", "text-id"} and len(found.distinct) > LISTED_CATEGORIES:
        parts.append(f"{len(found.distinct):,} different texts")
    if found.missing:
        parts.append(f"{found.missing / len(found.values):.1%} missing")
    return ", ".join(parts)
