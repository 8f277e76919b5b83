"""Consumer records without a broker."""

from typing import Any, NamedTuple

from model_name.kafka.records import Headers


class FakeRecord(NamedTuple):
    """Record with the attributes of one that a consumer returns."""

    value: bytes | None = b"{}"
    headers: Any = ()
    key: bytes | None = None
    topic: str = "in"
    partition: int = 1
    offset: int = 5
    timestamp: int = 1_700_000_000_123


def event_headers(**attributes: str) -> Headers:
    """Build the headers of an event in binary mode."""
    merged = {"specversion": "1.0", "id": "e-1", "source": "/here", "type": "flat"} | attributes
    return [(f"ce_{name}", text.encode()) for name, text in merged.items()]
