"""Formatter of the prediction log: a block of rows is one line of JSON with an array per column.

`docs/serving.md` describes the format; `model_name.io.prediction_log_reader` reads it, and that of older releases.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from model_name.core.schemas.columns import label_text
from model_name.serving.bundle import Manifest
from model_name.serving.prediction_log.blocks import Block, BlockRequests, Values

FORMAT = 2  # of a line; format 1, without this number, was one line per row
MAX_KEY_BYTES = blake2b.MAX_KEY_SIZE
HASH_BYTES = 16
OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
TIME_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
BOOLEAN_VALUES = {0.0: False, 1.0: True}  # any other number is a missing value


class EncodedBlock(NamedTuple):
    """Encoded rows.

    Attributes:
        text: One line of JSON, with its line feed.
        rows: Number of rows.
    """

    text: bytes
    rows: int


class BlockFormatter:
    """Formats the predictions of one version.

    Attributes:
        manifest: Manifest of the version.
        omitted_columns: Names of the sensitive columns that are not logged, because there is no key.
    """

    def __init__(self, manifest: Manifest, *, slot: str, key: bytes | None, text_ids: bool) -> None:
        """Select the columns to log and to hash.

        Args:
            manifest: Manifest of the version.
            slot: Blue-green slot of the server.
            key: Key that hashes the values of sensitive columns; None to omit them.
            text_ids: Whether `text-id` columns are logged.
        """
        self.manifest = manifest
        table = {
            name: column for name, column in manifest.table.columns.items() if text_ids or column.kind != "text-id"
        }
        sensitive = {name for name, column in table.items() if column.sensitive}
        self.omitted_columns = () if key else tuple(name for name in table if name in sensitive)
        self._logged = [name for name in table if name not in self.omitted_columns]
        self._booleans = {name for name, column in table.items() if column.kind == "boolean"}
        self._hashed = sensitive
        self._hash = blake2b(key=key or b"", digest_size=HASH_BYTES)
        self._header = {
            "format": FORMAT,
            "model": manifest.name,
            "version": manifest.version,
            "semver": manifest.semver,
            "slot": slot,
        }

    def format_block(self, block: Block) -> dict[str, EncodedBlock]:
        """Format rows.

        Returns:
            Lines by the day on which their requests were received (YYYY-MM-DD in UTC).
        """
        times = (np.array([received_at for *_, received_at in block.requests.records]) * 1e6).astype("datetime64[us]")
        days = times.astype("datetime64[D]")
        first, last = days.min(), days.max()
        if first == last:
            return {str(first): self._encode(block, times)}
        return {str(day): self._encode(block.select(days == day), times[days == day]) for day in np.unique(days)}

    def _encode(self, block: Block, times: NDArray[Any]) -> EncodedBlock:
        """Encode rows of one day."""
        document = {
            **self._header,
            "requests": describe_requests(block.requests, times),
            "inputs": {
                name: self._encode_input(name, block.inputs[name]) for name in self._logged if name in block.inputs
            },
            "outputs": encode_outputs(block),
        }
        return EncodedBlock(encode_line(document), block.rows)

    def _encode_input(self, name: str, values: Values) -> Values:
        """Encode a typed column: booleans as such, and sensitive values as their hashes."""
        if name in self._booleans:
            values = [*map(BOOLEAN_VALUES.get, to_list(values))]
        return self._hash_values(to_list(values)) if name in self._hashed else values

    def _hash_values(self, values: Sequence[Any]) -> list[str | None]:
        """Hash values; equal values have one hash in every process that has the key."""
        hashes = {value: self._hash_value(value) for value in {*values}}
        return [hashes[value] for value in values]

    def _hash_value(self, value: Any) -> str | None:
        if value is None or value != value:  # noqa: PLR0124  NaN
            return None
        text = value.isoformat() if isinstance(value, datetime) else label_text(value)
        state = self._hash.copy()
        state.update(text.encode(errors="surrogatepass"))
        return state.hexdigest()


def describe_requests(requests: BlockRequests, times: NDArray[Any]) -> dict[str, Any]:
    """Describe the requests of a block by one array per property; `trace_id` only if a request has a trace."""
    ids, trace_ids, protocols, _ = zip(*requests.records, strict=True)
    return {
        "id": ids,
        **({"trace_id": [trace_id or None for trace_id in trace_ids]} if any(trace_ids) else {}),
        "time": orjson.Fragment(orjson.dumps(times, option=TIME_OPTIONS)),
        "protocol": protocols,
        "latency_ms": np.round(requests.latencies * 1e3, 3),
        "weight": requests.weights,
        "first_row": requests.first_rows,
        "rows": requests.row_counts,
    }


def encode_outputs(block: Block) -> dict[str, Any]:
    """Encode the outputs of a block: one array per output, and those of the probabilities by label."""
    document: dict[str, Any] = dict(block.outputs)
    if "probabilities" in document:
        matrix = np.ascontiguousarray(np.asarray(document["probabilities"], dtype=np.float64).T)
        document["probabilities"] = dict(zip(map(label_text, block.classes), matrix, strict=True))
    return document


def to_list(values: Values) -> list[Any]:
    """Convert the values of a column to Python objects."""
    return values if isinstance(values, list) else values.tolist()


def encode_line(document: Mapping[str, Any]) -> bytes:
    """Encode an object as a line of JSON."""
    try:
        return orjson.dumps(document, option=OPTIONS)
    except TypeError:  # half a surrogate pair: JSON can escape one, UTF-8 cannot encode it
        return orjson.dumps(replace_lone_surrogates(document), option=OPTIONS)


def replace_lone_surrogates(value: Any) -> Any:
    """Replace what UTF-8 cannot encode in all texts of a value by question marks."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {replace_lone_surrogates(name): replace_lone_surrogates(part) for name, part in value.items()}
    return [*map(replace_lone_surrogates, value)] if isinstance(value, list | tuple) else value
