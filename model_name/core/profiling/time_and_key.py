"""Detection of the time column, the key and duplicate rows of a table."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core.profiling.column_facts import MIN_KEY_ROWS, ColumnFacts
from model_name.errors import DataError

MAX_KEY_CANDIDATES = 8
MAX_KEY_COLUMNS = 3
MIN_DUPLICATE_SHARE = 0.001  # of rows that equal an earlier one; fewer have little effect
MIN_DUPLICATE_CHECK_ROWS = 100
MIN_DIFFERING_SHARE = 0.1  # of rows with distinct values in one column; then rows are not equal by chance


def find_time(facts: Mapping[str, ColumnFacts], given: str | None) -> tuple[str | None, str]:
    """Find the time column.

    Args:
        facts: Facts of the columns by name.
        given: Name of the column, if the user chose it.

    Returns:
        The name of the column or None, and a message that gives the reason.

    Raises:
        DataError: The given column cannot order the rows.
    """
    if given is not None:
        problem = _time_column_problem(facts.get(given))
        if problem:
            raise DataError(f"{given}: cannot be the time column: {problem}", hint="name another --time, or none")
        return given, f"time: {given} orders the rows; the newest are held out"
    candidates = [name for name, column in facts.items() if column.kind == "datetime" and len(column.distinct)]
    if not candidates:
        return None, "time: there is no datetime column; rows are held out at random"
    if len(candidates) > 1:
        text = f"time: {', '.join(candidates)} could each order the rows; none was chosen"
        return None, f"{text}, so rows are held out at random; name one with --time"
    problem = _time_column_problem(facts[candidates[0]])
    if problem:
        return None, f"time: {candidates[0]} was not chosen, because {problem}; rows are held out at random"
    return candidates[0], f"time: {candidates[0]}, the only datetime column, orders the rows; the newest are held out"


def find_key(
    facts: Mapping[str, ColumnFacts], given: tuple[str, ...], target_facts: ColumnFacts
) -> tuple[tuple[str, ...], Literal["refuse", "drop"], str]:
    """Find the key of the table.

    Args:
        facts: Facts of the columns by name.
        given: Names of the key's columns, if the user chose them.
        target_facts: Facts of the target.

    Returns:
        The names of the key's columns, the treatment of rows that share it, and a message that gives the reason.

    Raises:
        DataError: A given column cannot be decoded, or the rows without duplicates have a single target value.
    """
    if not given:
        key = _find_smallest_key(facts)
        if key:
            return key, "refuse", f"key: {', '.join(key)} identifies each row; rows that share it will be refused"
        text = "key: no text or date column, nor a combination of up to three, identifies each row"
        return (), "refuse", f"{text}; name the key with --key, which may contain numbers"
    for name in given:
        if name not in facts:
            raise DataError(f"{name}: cannot be part of the key: its values cannot be read")
    names = ", ".join(given)
    is_duplicate = pd.DataFrame({name: facts[name].codes for name in given}).duplicated().to_numpy()
    if not is_duplicate.any():
        return given, "refuse", f"key: {names} identifies each row"
    if len(np.unique(target_facts.codes[~is_duplicate])) < 2:
        raise DataError(f"{names}: with this key the rows left have one target", hint="name another --key")
    text = f"key: {int(is_duplicate.sum()):,} rows have the {names} of an earlier row and are dropped"
    return given, "drop", f"{text} (`duplicates: drop`); name more columns with --key to keep them"


def find_duplicate_rows(
    facts: Mapping[str, ColumnFacts], target_facts: ColumnFacts
) -> tuple[Literal["refuse", "drop"], str]:
    """Find rows of a table without a key that equal an earlier one.

    They are dropped only if a column is distinct in enough rows, so that rows are not equal by chance.

    Returns:
        The treatment of such rows, and a message that gives the reason, which is empty if there are none.
    """
    codes = {name: column.codes for name, column in facts.items()} | {"": target_facts.codes}
    is_duplicate = pd.DataFrame(codes).duplicated().to_numpy()
    if not is_duplicate.any():
        return "refuse", ""
    rows, share = len(is_duplicate), is_duplicate.mean()
    text = f"duplicates: {int(is_duplicate.sum()):,} rows ({share:.2%}) equal an earlier one in every column"
    has_distinct_column = max(len(column.distinct) for column in facts.values()) > MIN_DIFFERING_SHARE * rows
    if rows >= MIN_DUPLICATE_CHECK_ROWS and share > MIN_DUPLICATE_SHARE and has_distinct_column:
        return "drop", f"{text} and are dropped; remove `duplicates: drop` if they are distinct cases"
    return "refuse", f"{text}; they are kept as distinct cases, `duplicates: drop` keeps one of each"


def are_rows_unique(columns: Sequence[NDArray[np.int64]]) -> bool:
    """Return whether no two rows agree in all columns."""
    table = pd.DataFrame(dict(enumerate(columns)))
    # Duplicates are likely close to each other, so that the first rows rule out most combinations.
    return not table.head(10_000).duplicated().any() and not table.duplicated().any()


def _time_column_problem(column: ColumnFacts | None) -> str:
    if column is None or column.kind != "datetime":
        return f"it is {column.kind}, not a datetime" if column else "its values cannot be read"
    if not column.is_complete:
        return f"it is missing in {column.missing_count:,} rows"
    times = np.sort(column.values)
    if len(np.unique(times.astype("datetime64[D]"))) < 2:
        return "it holds a single day"
    return "" if times[len(times) // 2] > times[0] else "over half of the rows have its first moment"


def _find_smallest_key(facts: Mapping[str, ColumnFacts]) -> tuple[str, ...]:
    """Find the fewest columns that identify a row: a sequence or a text id, else texts and dates together; or none."""
    complete = {name: column for name, column in facts.items() if column.is_complete and len(column.distinct) > 1}
    rows = len(next(iter(complete.values())).values) if complete else 0
    if rows < MIN_KEY_ROWS:
        return ()
    for name, column in complete.items():
        if column.is_sequence or (column.kind == "text-id" and column.is_unique):
            return (name,)
    texts = [name for name, column in complete.items() if column.kind in {"category", "text-id", "datetime"}]
    most_distinct = sorted(texts, key=lambda name: -len(complete[name].distinct))[:MAX_KEY_CANDIDATES]
    candidates = [name for name in texts if name in most_distinct]
    for size in range(1, MAX_KEY_COLUMNS + 1):
        for names in combinations(candidates, size):
            has_enough_values = prod(len(complete[name].distinct) for name in names) >= rows
            if has_enough_values and are_rows_unique([complete[name].codes for name in names]):
                return names
    return ()
