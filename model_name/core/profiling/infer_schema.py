"""From a table to its schema: what each column is, what names a row, and what looks wrong, a sentence each."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core.dataframes import Frame
from model_name.core.profiling.column_facts import Facts, readable
from model_name.core.profiling.encoding_proposals import (
    propose_encodings,
    propose_holidays,
    said_of_encodings,
    said_of_holidays,
)
from model_name.core.profiling.lag_discovery import find_series, propose_histories, said_of_histories
from model_name.core.profiling.target_column import read_target, said_of_target
from model_name.core.profiling.target_leakage import leaks
from model_name.core.profiling.time_and_key import find_copies, find_key, find_time
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import LARGEST, Column, Kind, also
from model_name.core.schemas.encodings import Encoding
from model_name.core.schemas.strict_models import did_you_mean
from model_name.errors import DataError

LISTED_CATEGORIES = 100  # more are not written down but taken from the training part


@dataclass(frozen=True)
class Inferred:
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
class Doubt:
    """Why a column should not be a feature.

    Attributes:
        reason: A few words.
        is_suspicion: Whether it may be wrong: then the column comes back rather than leave a model without features.
    """

    reason: str
    is_suspicion: bool = False


def infer(
    frame: Frame, *, name: str, target: str, time: str | None = None, key: Sequence[str] = (), country: str = ""
) -> Inferred:
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
    named = _with_text_names(frame)
    _require_columns(named, target, time, key)
    described, goal = read_target(named, target)
    facts, unreadable = readable(named, [name for name in named.columns if name != target])
    moment, said_of_time = find_time(facts, time)
    names_row, duplicates, said_of_key = find_key(facts, tuple(key), goal)
    doubts = _doubts(facts, goal, described, keep=moment)
    if not names_row and not unreadable:  # rows may differ in what cannot be read
        duplicates, said_of_copies = find_copies(facts, goal)
        said_of_key = "; ".join(filter(None, (said_of_key, said_of_copies)))
    encodings = propose_encodings(facts, described, no_features=doubts) | propose_holidays(facts, moment, country)
    columns = {
        name: _column(found, encodings.get(name, Encoding()), is_feature=name not in doubts)
        for name, found in facts.items()
    }
    if not any(column.is_input for column in columns.values()):
        raise _no_feature(facts, unreadable, doubts)
    told, said_of_earlier = _histories(facts, goal, described, moment, taken=named.columns)
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
        *said_of_target(described, goal),
        said_of_time,
        said_of_key,
        *(f"{name}: left out (`extra: drop`), no kind reads its values ({what})" for name, what in unreadable.items()),
        *said_of_holidays(facts, moment, country),
        *said_of_earlier,
        *_said_of_columns(facts),
        *said_of_encodings(encodings, facts),
        *_said_of_features(facts, doubts, target),
    ]
    notes = {name: _note(found, doubts.get(name)) for name, found in facts.items()}
    return Inferred(schema, tuple(findings), notes)


def bounds(values: NDArray[Any]) -> tuple[float | None, float | None]:
    """Bounds that new values should keep to: the observed ones and their span beyond, but not across zero.

    Returns:
        The lower and the upper one, rounded outward to two digits of the span; None where there is nothing to go by.
    """
    known = values[np.abs(values) <= LARGEST]
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
    return min(_outward(lower, digits, np.floor), low), max(_outward(upper, digits, np.ceil), high)


def _with_text_names(frame: Frame) -> Frame:
    if frame.empty:
        raise DataError("the table is empty: it has no rows", hint="check the path and the limit of its reader")
    named = frame.copy(deep=False)
    named.columns = pd.Index([str(name) for name in frame.columns])
    if not named.columns.is_unique:
        twice = named.columns[named.columns.duplicated()][0]
        raise DataError(f"{twice}: the table has this column twice", hint="rename one of them")
    return named


def _require_columns(frame: Frame, target: str, time: str | None, key: Sequence[str]) -> None:
    for role, names in (("target", [target]), ("time", [time] if time is not None else []), ("key", key)):
        for name in names:
            if name not in frame.columns:
                nearest = did_you_mean(name, list(frame.columns))
                raise DataError(f"{name}: the {role} is not a column of the table{nearest}")
            if name == target and role != "target":
                raise DataError(f"{name}: is the target and cannot be the {role} as well")
    if len(set(key)) < len(key):
        raise DataError(f"the key names a column twice: {', '.join(key)}")


def _histories(
    facts: Mapping[str, Facts], goal: Facts, target: Target, time: str | None, *, taken: Collection[str]
) -> tuple[dict[str, Column], list[str]]:
    """The columns that tell of earlier values of a number to predict, and why these."""
    if time is None or target.task != "regression":
        return {}, []
    series = find_series(facts, time)
    proposal = propose_histories(series, goal.values, target.name, taken) if series else None
    return (dict(proposal.columns) if proposal else {}), list(said_of_histories(series, proposal, target.name))


def _doubts(facts: Mapping[str, Facts], goal: Facts, target: Target, *, keep: str | None) -> dict[str, Doubt]:
    """Why columns should not be features, by name."""
    doubts: dict[str, Doubt] = {}
    for name, found in facts.items():
        if not len(found.distinct):
            doubts[name] = Doubt("all its values are missing")
        elif len(found.distinct) == 1 and found.is_whole:
            doubts[name] = Doubt(f"it is constant ({found.distinct[0]})")
        elif found.is_sequence:
            doubts[name] = Doubt("it counts the rows, as an id does", is_suspicion=True)
    copies = {name: Doubt(f"it is the same as {first}") for name, first in _copies(facts) if name != keep}
    doubts = copies | doubts
    left = {name: found for name, found in facts.items() if name not in doubts and found.kind != "text-id"}
    for name, score in leaks(left, goal, is_regression=target.task == "regression"):
        reason = f"it alone predicts the target nearly perfectly ({score:.1%}): a suspected leak"
        doubts[name] = Doubt(reason, is_suspicion=True)
    if all(name in doubts or found.kind == "text-id" for name, found in facts.items()):
        return {name: doubt for name, doubt in doubts.items() if not doubt.is_suspicion}
    return doubts


def _copies(facts: Mapping[str, Facts]) -> Iterator[tuple[str, str]]:
    first: dict[tuple[Kind, int, int], str] = {}
    for name, found in facts.items():
        distinct = pd.util.hash_array(found.distinct)
        earlier = first.setdefault((found.kind, hash(found.codes.tobytes()), hash(distinct.tobytes())), name)
        if earlier != name and np.array_equal(facts[earlier].distinct, found.distinct):
            yield name, earlier


def _column(found: Facts, encode: Encoding, *, is_feature: bool) -> Column:
    # What no model looks at, such as a counter of rows, may grow: a bound would only refuse the next batch.
    low, high = bounds(found.values) if found.kind == "numeric" and is_feature else (None, None)
    is_listed = found.kind == "category" and 0 < len(found.distinct) <= LISTED_CATEGORIES
    return Column(
        kind=found.kind,
        nullable=not found.is_whole,
        min=low,
        max=high,
        values=tuple(sorted(found.distinct)) if is_listed else None,
        feature=is_feature,
        encode=encode,
    )


def _outward(value: float, digits: int, whole: Any) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = round(float(whole(value * 10.0**digits) / 10.0**digits), digits)
    return rounded if np.isfinite(rounded) else value


def _no_feature(facts: Mapping[str, Facts], unreadable: Mapping[str, str], doubts: Mapping[str, Doubt]) -> DataError:
    reasons = [f"{name}: {doubts[name].reason if name in doubts else 'it names rows'}" for name in facts]
    reasons += [f"{name}: its values cannot be read ({what})" for name, what in unreadable.items()]
    words = "; ".join(reasons) or "the table has no other column than the target"
    return DataError(
        f"no column is left for a model to look at: {words}",
        hint="bring a table with columns that say something about the target",
    )


def _said_of_columns(facts: Mapping[str, Facts]) -> Iterator[str]:
    for name, found in facts.items():
        if found.kind == "numeric":
            infinite = int((np.abs(found.values) > LARGEST).sum())
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


def _said_of_features(facts: Mapping[str, Facts], doubts: Mapping[str, Doubt], target: str) -> Iterator[str]:
    for name, doubt in doubts.items():
        more = "; remove `feature: false` to let the model look at it" if doubt.is_suspicion else ""
        yield f"{name}: is no feature (`feature: false`), because {doubt.reason}{more}"
    likely = [name for name in facts if name not in doubts and len(target) > 2 and target.casefold() in name.casefold()]
    if likely:
        words = f"{likely[0]}{also(likely[1:])}: has the target's name in its own"
        yield f"{words}; set `feature: false` if it is known only after the target"


def _note(found: Facts, doubt: Doubt | None) -> str:
    parts = [doubt.reason] if doubt else []
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
