"""Records without a result: what is wrong with them stands in headers beside what they were."""

from collections.abc import Sequence
from typing import NamedTuple

from model_name.errors import ModelNameError
from model_name.kafka.records import (
    DEAD_LETTER,
    RESULT,
    Headers,
    Message,
    Record,
    Source,
    coordinates,
    number_of,
    source_of,
)

REASON = f"{DEAD_LETTER}reason"
KIND = f"{DEAD_LETTER}kind"
ATTEMPTS = f"{DEAD_LETTER}attempts"
DROPPED = f"{DEAD_LETTER}dropped-bytes"
SOURCE = tuple(f"{DEAD_LETTER}{name}" for name in RESULT)
MOST_CHARACTERS = 1000  # of a reason


class DeadLetter(NamedTuple):
    """What the headers of a dead letter say.

    Attributes:
        source: Where the record lies that it was made of.
        reason: Why there is no result.
        kind: Of error.
        attempts: To predict it, with those before it was sent back.
        dropped: The size of its value, where that was too large to be kept.
    """

    source: Source | None
    reason: str
    kind: str
    attempts: int
    dropped: int | None


def dead_letter(
    record: Record, error: BaseException, attempts: int, *, keeps_value: bool = True, keeps_headers: bool = True
) -> Message:
    """The message for a record that has no result.

    Args:
        record: As it was polled.
        error: Why.
        attempts: How often it was tried.
        keeps_value: Whether the value goes with it; without, it is found by the source.
        keeps_headers: Whether its key and its headers do; without, they are found there, too.
    """
    reason = error.message if isinstance(error, ModelNameError) else f"{type(error).__name__}: {error}"
    headers: Headers = original(record.headers) if keeps_headers else []
    key = record.key if keeps_headers else None
    headers += [
        (REASON, reason[:MOST_CHARACTERS].encode(errors="replace")),
        (KIND, type(error).__name__.encode()),
        (ATTEMPTS, b"%d" % (attempts + read(record.headers).attempts)),
    ]
    headers += coordinates(Source(record.topic, record.partition, record.offset), SOURCE)
    if not keeps_value and record.value is not None:
        headers.append((DROPPED, b"%d" % len(record.value)))
    # A producer takes no record with neither key nor value: a tombstone without a key is none anywhere.
    value = record.value if keeps_value else None
    return Message(key, b"" if value is None and key is None else value, headers)


def read(headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
    """What the headers say; a record that never was a dead letter has no attempts."""
    found = {name: value for name, value in headers if name.startswith(DEAD_LETTER)}
    return DeadLetter(
        source=source_of(headers, SOURCE),
        reason=(found.get(REASON) or b"").decode(errors="replace"),
        kind=(found.get(KIND) or b"").decode(errors="replace"),
        attempts=number_of(found.get(ATTEMPTS)) or 0,
        dropped=number_of(found.get(DROPPED)),
    )


def original(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """The headers that the record had before."""
    return [(name, value or b"") for name, value in headers if not name.startswith(DEAD_LETTER)]
