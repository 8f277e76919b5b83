"""Repetition counts of long tests, chosen by the environment variable `MODEL_NAME_TEST_COUNTS`.

    KILLS = count(reduced=8, full=50)

`reduced`, the default, is for the checks of a change; `full` is for the run of everything.
"""

import os
from typing import TypeVar

T = TypeVar("T")
VARIABLE = "MODEL_NAME_TEST_COUNTS"
REDUCED, FULL = "reduced", "full"


def is_full_run(value: str | None) -> bool:
    """Return whether a value of the variable selects the full counts. Unset or empty selects the reduced ones.

    Raises:
        ValueError: The value is neither `reduced` nor `full`.
    """
    if value not in {None, "", REDUCED, FULL}:
        raise ValueError(f"{VARIABLE}={value}: not {REDUCED} or {FULL}")
    return value == FULL


IS_FULL = is_full_run(os.environ.get(VARIABLE))
"""Whether the full counts apply. Read at import: some fixtures remove the variables of this project."""


def count(*, reduced: T, full: T) -> T:
    """Select the count for this test run. Values of any type are allowed, such as a tuple of cases."""
    return full if IS_FULL else reduced
