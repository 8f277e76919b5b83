"""Records without a result: what is wrong with them stands in headers beside what they were."""

from collections.abc import Sequence
from typing import NamedTuple

from model_name.errors import ModelNameError
from model_name.kafka.records import (
    DEAD_LETTER_PREFIX,
    RESULT_SOURCE_HEADERS,
    Headers,
    OutputRecord,
    ConsumerRecord,
    RecordPosition,
    source_headers,
    parse_number,
    parse_source,
)

REASON_HEADER = f"{DEAD_LETTER_PREFIX}reason"
KIND_HEADER = f"{DEAD_LETTER_PREFIX}kind"
ATTEMPTS_HEADER = f"{DEAD_LETTER_PREFIX}attempts"
DROPPED_HEADER = f"{DEAD_LETTER_PREFIX}dropped-bytes"
DEAD_LETTER_SOURCE_HEADERS = tuple(f"{DEAD_LETTER_PREFIX}{name}" for name in RESULT_SOURCE_HEADERS)
MAX_REASON_CHARACTERS = 1000  # of a reason


class DeadLetter(NamedTuple):
    """What the headers of a dead letter say.

    Attributes:
        source: Where the record lies that it was made of.
        reason: Why there is no result.
        kind: Of error.
        attempts: To predict it, with those before it was sent back.
        dropped: The size of its value, where that was too large to be kept.
    """

    source: RecordPosition | None
    reason: str
    kind: str
    attempts: int
    dropped: int | None


def to_dead_letter(
    record: ConsumerRecord, error: BaseException, attempts: int, *, keeps_value: bool = True, keeps_headers: bool = True
) -> OutputRecord:
    """The message for a record that has no result.

    Args:
        record: As it was polled.
        error: Why.
        attempts: How often it was tried.
        keeps_value: Whether the value goes with it; without, it is found by the source.
        keeps_headers: Whether its key and its headers do; without, they are found there, too.
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
    # A producer takes no record with neither key nor value: a tombstone without a key is none anywhere.
    value = record.value if keeps_value else None
    return OutputRecord(key, b"" if value is None and key is None else value, headers)


def parse_headers(headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
    """What the headers say; a record that never was a dead letter has no attempts."""
    found = {name: value for name, value in headers if name.startswith(DEAD_LETTER_PREFIX)}
    return DeadLetter(
        source=parse_source(headers, DEAD_LETTER_SOURCE_HEADERS),
        reason=(found.get(REASON_HEADER) or b"").decode(errors="replace"),
        kind=(found.get(KIND_HEADER) or b"").decode(errors="replace"),
        attempts=parse_number(found.get(ATTEMPTS_HEADER)) or 0,
        dropped=parse_number(found.get(DROPPED_HEADER)),
    )


def strip_headers(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """The headers that the record had before."""
    return [(name, value or b"") for name, value in headers if not name.startswith(DEAD_LETTER_PREFIX)]
