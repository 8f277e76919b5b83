"""Build and parse dead letters: records without a result, with the reason in headers beside the original ones."""

from collections.abc import Sequence
from typing import NamedTuple

from model_name.errors import ModelNameError
from model_name.kafka.records import (
    DEAD_LETTER_PREFIX,
    RESULT_SOURCE_HEADERS,
    ConsumerRecord,
    Headers,
    OutputRecord,
    RecordPosition,
    parse_number,
    parse_source,
    source_headers,
)

REASON_HEADER = f"{DEAD_LETTER_PREFIX}reason"
KIND_HEADER = f"{DEAD_LETTER_PREFIX}kind"
ATTEMPTS_HEADER = f"{DEAD_LETTER_PREFIX}attempts"
DROPPED_HEADER = f"{DEAD_LETTER_PREFIX}dropped-bytes"
DEAD_LETTER_SOURCE_HEADERS = tuple(f"{DEAD_LETTER_PREFIX}{name}" for name in RESULT_SOURCE_HEADERS)
MAX_REASON_CHARACTERS = 1000


class DeadLetter(NamedTuple):
    """Contents of the headers of a dead letter.

    Attributes:
        source: Position of the original record.
        reason: Reason why there is no result.
        kind: Class name of the error.
        attempts: Number of attempts to predict the record, including those before a replay.
        dropped_bytes: Size of the original value, if it was too large for the dead letter.
    """

    source: RecordPosition | None
    reason: str
    kind: str
    attempts: int
    dropped_bytes: int | None


def to_dead_letter(
    record: ConsumerRecord, error: BaseException, attempts: int, *, keeps_value: bool = True, keeps_headers: bool = True
) -> OutputRecord:
    """Build the dead letter of a record.

    Args:
        record: Record without a result, as it was polled.
        error: Error of the last attempt.
        attempts: Number of attempts to predict it.
        keeps_value: Whether the dead letter contains the value; otherwise a replay reads it from its topic.
        keeps_headers: Whether the dead letter contains the key and the headers; otherwise a replay reads them, too.
    """
    reason = error.message if isinstance(error, ModelNameError) else f"{type(error).__name__}: {error}"
    headers: Headers = strip_headers(record.headers) if keeps_headers else []
    key = record.key if keeps_headers else None
    headers += [
        (REASON_HEADER, reason[:MAX_REASON_CHARACTERS].encode(errors="replace")),
        (KIND_HEADER, type(error).__name__.encode()),
        (ATTEMPTS_HEADER, b"%d" % (attempts + parse_headers(record.headers).attempts)),
    ]
    headers += source_headers(RecordPosition(record.topic, record.partition, record.offset), DEAD_LETTER_SOURCE_HEADERS)
    if not keeps_value and record.value is not None:
        headers.append((DROPPED_HEADER, b"%d" % len(record.value)))
    # A producer rejects a record with neither key nor value, hence the empty value; no key means no tombstone anyway.
    value = record.value if keeps_value else None
    return OutputRecord(key, b"" if value is None and key is None else value, headers)


def parse_headers(headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
    """Parse the headers of a dead letter; a record that never was one has zero attempts."""
    own = {name: value for name, value in headers if name.startswith(DEAD_LETTER_PREFIX)}
    return DeadLetter(
        source=parse_source(headers, DEAD_LETTER_SOURCE_HEADERS),
        reason=(own.get(REASON_HEADER) or b"").decode(errors="replace"),
        kind=(own.get(KIND_HEADER) or b"").decode(errors="replace"),
        attempts=parse_number(own.get(ATTEMPTS_HEADER)) or 0,
        dropped_bytes=parse_number(own.get(DROPPED_HEADER)),
    )


def strip_headers(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """Return the headers of the original record."""
    return [(name, value or b"") for name, value in headers if not name.startswith(DEAD_LETTER_PREFIX)]
