"""Which columns say when a row was and which it is: what orders the rows, and what names them."""

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
MIN_DUPLICATE_SHARE = 0.001  # of rows that equal an earlier one, below which it hardly matters
MIN_DUPLICATE_CHECK_ROWS = 100
MIN_DIFFERING_SHARE = 0.1  # of the rows, that differ in one column where rows are not equal by chance


def find_time(facts: Mapping[str, ColumnFacts], given: str | None) -> tuple[str | None, str]:
    """The time column, and why it is that one.

    Raises:
        DataError: The given one does not order the rows.
    """
    if given is not None:
        problem = _time_column_problem(facts.get(given))
        if problem:
            raise DataError(f"{given}: cannot be the time column: {problem}", hint="name another --time, or none")
        return given, f"time: {given} orders the rows, the newest are held out"
    moments = [name for name, found in facts.items() if found.kind == "datetime" and len(found.distinct)]
    if not moments:
        return None, "time: there is no datetime column, rows are held out at random"
    if len(moments) > 1:
        words = f"time: which of {', '.join(moments)} orders the rows? None was taken, rows are held out at random"
        return None, f"{words}; name it with --time"
    problem = _time_column_problem(facts[moments[0]])
    if problem:
        return None, f"time: {moments[0]} was not taken, rows are held out at random: {problem}"
    return moments[0], f"time: {moments[0]}, the only datetime column, orders the rows; the newest are held out"


def find_key(
    facts: Mapping[str, ColumnFacts], given: tuple[str, ...], target_facts: ColumnFacts
) -> tuple[tuple[str, ...], Literal["refuse", "drop"], str]:
    """The key, what happens to rows that share it, and why it is that one.

    Raises:
        DataError: A given column cannot be read, or the rows without duplicates have one target.
    """
    if not given:
        found = _find_smallest_key(facts)
        if found:
            return found, "refuse", f"key: {', '.join(found)} names each row; rows that share it will be refused"
        words = "key: none of the texts and dates, nor up to three together, names each row"
        return (), "refuse", f"{words}; name the key with --key, numbers can be part of it"
    for name in given:
        if name not in facts:
            raise DataError(f"{name}: cannot be part of the key: its values cannot be read")
    names = ", ".join(given)
    again = pd.DataFrame({name: facts[name].codes for name in given}).duplicated().to_numpy()
    if not again.any():
        return given, "refuse", f"key: {names} names each row"
    if len(np.unique(target_facts.codes[~again])) < 2:
        raise DataError(f"{names}: with this key the rows left have one target", hint="name another --key")
    words = f"key: {int(again.sum()):,} rows have the {names} of an earlier row and are dropped (`duplicates: drop`)"
    return given, "drop", f"{words}; name more columns with --key to keep them"


def find_duplicate_rows(facts: Mapping[str, ColumnFacts], target_facts: ColumnFacts) -> tuple[Literal["refuse", "drop"], str]:
    """What happens to rows that equal an earlier one where no key names them, and why; "" where there are none.

    They are dropped only where a column nearly names each row, so that rows do not come to be equal by chance.
    """
    again = (
        pd.DataFrame({name: found.codes for name, found in facts.items()} | {"": target_facts.codes}).duplicated().to_numpy()
    )
    if not again.any():
        return "refuse", ""
    rows = len(again)
    words = f"duplicates: {int(again.sum()):,} rows ({again.mean():.2%}) equal an earlier one in every column"
    are_told_apart = max(len(found.distinct) for found in facts.values()) > MIN_DIFFERING_SHARE * rows
    if rows >= MIN_DUPLICATE_CHECK_ROWS and again.mean() > MIN_DUPLICATE_SHARE and are_told_apart:
        return "drop", f"{words} and are dropped; remove `duplicates: drop` if they are cases of their own"
    return "refuse", f"{words}; they are kept as cases of their own, `duplicates: drop` leaves one of each"


def are_rows_unique(columns: Sequence[NDArray[np.int64]]) -> bool:
    """Whether no two rows agree in all columns."""
    table = pd.DataFrame(dict(enumerate(columns)))
    # Neighbours are the likeliest duplicates, and most combinations end with them.
    return not table.head(10_000).duplicated().any() and not table.duplicated().any()


def _time_column_problem(found: ColumnFacts | None) -> str:
    if found is None or found.kind != "datetime":
        return f"it is {found.kind}, not a datetime" if found else "its values cannot be read"
    if not found.is_complete:
        return f"it is missing in {found.missing:,} rows"
    times = np.sort(found.values)
    if len(np.unique(times.astype("datetime64[D]"))) < 2:
        return "it holds a single day"
    return "" if times[len(times) // 2] > times[0] else "over half of the rows have its first moment"


def _find_smallest_key(facts: Mapping[str, ColumnFacts]) -> tuple[str, ...]:
    """The fewest columns that name a row: one that counts or names it, else texts and dates together; or none."""
    whole = {name: found for name, found in facts.items() if found.is_complete and len(found.distinct) > 1}
    rows = len(next(iter(whole.values())).values) if whole else 0
    if rows < MIN_KEY_ROWS:
        return ()
    for name, found in whole.items():
        if found.is_sequence or (found.kind == "text-id" and found.is_unique):
            return (name,)
    texts = [name for name, found in whole.items() if found.kind in {"category", "text-id", "datetime"}]
    telling = sorted(texts, key=lambda name: -len(whole[name].distinct))[:MAX_KEY_CANDIDATES]
    candidates = [name for name in texts if name in telling]
    for size in range(1, MAX_KEY_COLUMNS + 1):
        for names in combinations(candidates, size):
            are_enough = prod(len(whole[name].distinct) for name in names) >= rows
            if are_enough and are_rows_unique([whole[name].codes for name in names]):
                return names
    return ()
