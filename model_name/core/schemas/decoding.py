"""Decoding of raw values, from JSON, protobuf, CSV or Parquet, into the typed array of a column.

Imports only numpy and pydantic, because servers import it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.columns import Column, Kind, is_missing, label_text
from model_name.core.schemas.validation import ValidationIssues

RawValues = Sequence[Any] | NDArray[Any]


def decode_column(name: str, column: Column, values: RawValues, issues: ValidationIssues) -> NDArray[Any]:
    """Decode the raw values of a column into its typed array.

    Args:
        name: Name of the column.
        column: Definition of the column.
        values: The raw values.
        issues: Collector of the values that are not of the column's kind; they are missing in the result.
    """
    decoder = KIND_DECODERS[column.kind]
    if isinstance(values, np.ndarray) and values.dtype.kind in decoder.array_kinds:
        return values.astype(decoder.dtype)
    if column.kind == "boolean" and isinstance(values, np.ndarray) and _holds_booleans(values):
        return values.astype(decoder.dtype)
    if decoder.plain_types.issuperset(map(type, values)):  # the common case; ten times as fast as value by value
        try:
            return to_array(values, decoder.dtype)
        except OverflowError:  # an integer too large for a float; value by value finds its row
            pass
    return _decode_each(name, decoder, values, issues)


def to_array(values: RawValues, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Copy values into an array; None becomes NaN in a float array."""
    decoded = np.empty(len(values), dtype=dtype)
    decoded[:] = values
    return decoded


def parse_number(value: Any) -> float:
    """Convert a raw value to a number.

    Raises:
        TypeError: The value is not a number, such as a text or a boolean.
        ValueError: The value cannot be converted to a number.
        OverflowError: The value is an integer too large for a float.
    """
    # A text is refused even if it looks like a number: a client that quotes its numbers has a bug.
    if isinstance(value, bool | np.bool_ | str | bytes | np.complexfloating | np.datetime64 | np.timedelta64):
        raise TypeError
    return float(value)


def _holds_booleans(values: NDArray[Any]) -> bool:
    """Return whether all numbers are 0, 1 or NaN, which is how a checked frame holds booleans."""
    return values.dtype.kind in "fiu" and bool((np.isnan(values) | (values == 0) | (values == 1)).all())


@dataclass(frozen=True)
class KindDecoder:
    """Decoder of the raw values of one kind of column.

    Attributes:
        decode: Function that decodes one value; raises TypeError, ValueError or OverflowError if it cannot.
        dtype: Type of the decoded array.
        reason: Text of the issue reported for a value that cannot be decoded.
        array_kinds: Kinds of numpy arrays (`dtype.kind`) that are converted at once.
        plain_types: Types of Python values that are converted at once.
    """

    decode: Callable[[Any], Any]
    dtype: np.dtype[Any]
    reason: str
    array_kinds: str = ""
    plain_types: frozenset[type] = frozenset()


def _decode_each(name: str, decoder: KindDecoder, values: RawValues, issues: ValidationIssues) -> NDArray[Any]:
    missing = {"O": None, "M": np.datetime64("NaT"), "f": np.nan}[decoder.dtype.kind]
    decoded = np.empty(len(values), dtype=decoder.dtype)
    failed = []
    for row, value in enumerate(values):
        if is_missing(value):
            decoded[row] = missing
            continue
        try:
            decoded[row] = decoder.decode(value)
        except (ValueError, TypeError, OverflowError):
            decoded[row] = missing
            failed.append(row)
    issues.add(name, failed, lambda row: decoder.reason, len(values))
    return decoded


def _decode_text(value: Any) -> str:
    if isinstance(value, str | bool | int | float | bytes | np.generic):
        return label_text(value)
    raise TypeError


def _decode_boolean(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or (isinstance(value, int | float | np.number) and value in (0, 1)):
        return float(value)
    raise TypeError


def _decode_datetime(value: Any) -> np.datetime64:
    if isinstance(value, np.datetime64):
        in_us: np.datetime64 = value.astype("datetime64[us]")
        return in_us
    if isinstance(value, date) and not isinstance(value, datetime):  # Parquet's date32
        return np.datetime64(value, "us")
    if isinstance(value, bytes):
        value = value.decode()
    parsed = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if parsed.tzinfo is not None:  # converted to UTC; a datetime without a zone is kept unchanged
        parsed = parsed.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(parsed, "us")


NUMBER_TYPES: frozenset[type] = frozenset({float, int, type(None)})
BOOLEAN_TYPES: frozenset[type] = frozenset({bool, type(None)})
TEXT_TYPES: frozenset[type] = frozenset({str, type(None)})
KIND_DECODERS: dict[Kind, KindDecoder] = {
    "numeric": KindDecoder(
        parse_number, np.dtype(np.float64), "not a number", array_kinds="fiu", plain_types=NUMBER_TYPES
    ),
    "boolean": KindDecoder(
        _decode_boolean, np.dtype(np.float64), "not a boolean", array_kinds="b", plain_types=BOOLEAN_TYPES
    ),
    "datetime": KindDecoder(
        _decode_datetime, np.dtype("datetime64[us]"), "not a date and time (ISO 8601)", array_kinds="M"
    ),
    "category": KindDecoder(_decode_text, np.dtype(object), "not a text", plain_types=TEXT_TYPES),
    "text-id": KindDecoder(_decode_text, np.dtype(object), "not a text", plain_types=TEXT_TYPES),
}
