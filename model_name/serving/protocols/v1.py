"""V1 of KServe's protocol: requests and responses in JSON, by row."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson
from typing_extensions import override

from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import label_text
from model_name.errors import DataError, TooLargeError
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols import strict_json
from model_name.serving.protocols.fast_json import match_instances, try_decode_v1
from model_name.serving.protocols.long_lists import (
    MAX_PART_BYTES,
    MIN_LONG_BYTES,
    parse_long_list,
    parse_part,
    parse_untyped,
)

SPLIT_DECODER = msgspec.json.Decoder(list[msgspec.Raw])
MAX_CHARACTER_BYTES = 12  # of a character in JSON: a surrogate pair of escapes
INTERVAL_PARAMETER = "interval"
"""Name of the request parameter with the level of prediction intervals."""


class V1Request(InferenceRequest):
    """Request `{"instances": [ROW, ...]}`; a row is an object, or an array in the order of the inputs.

    `null` is a missing value. The response is `{"predictions": [...]}`: one plain number or label per instance, as the
    V1 servers of scikit-learn and XGBoost do. A classification adds `"probabilities": [{LABEL: p, ...}, ...]` in
    parallel. With `"parameters": {"interval": 0.9}` each prediction of a regression is an object
    `{"prediction": x, "lower": l, "upper": u}` instead.
    """

    protocol = "v1"

    def __init__(self, body: bytes, id: str) -> None:  # noqa: A002  the protocols' word for it
        """Store a body, which its batch decodes.

        Args:
            body: Body of the request.
            id: Id of the request.
        """
        super().__init__(id, len(body))
        self.body = body

    @override
    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        decoded = try_decode_v1(self.body, plane, limits)
        if decoded is not None:
            return decoded
        if (head := match_long_instances(self.body)) is not None:
            return parse_long_instances(self.body, head, plane, limits)
        document = strict_json.loads(self.body)
        decoded = parse_instances(document, limits)
        check_duplicate_columns(self.body, document)
        return decoded

    @override
    def encode(self, outputs: Outputs, manifest: Manifest) -> bytes:
        return orjson.dumps(encode_predictions(outputs))


def parse_instances(body: Any, limits: Limits) -> DecodedRequest:
    """Parse the rows and the interval level of a body of V1.

    Raises:
        DataError: The body has no list of instances, the list is empty, or the interval level is invalid.
        TooLargeError: The body has more rows than `limits.rows`.
    """
    if not isinstance(body, dict) or "instances" not in body:
        raise DataError('the body is not an object with "instances"')
    rows = body["instances"]
    if not isinstance(rows, list):
        raise DataError('Expected "instances" to be a list')
    if not rows:  # in a batch, the rows of other requests would hide it
        raise DataError("the request holds no row")
    limits.check_rows(len(rows))
    parameters = body.get("parameters")
    return DecodedRequest(rows=rows, interval=None if parameters is None else parse_interval_level(parameters))


def match_long_instances(body: bytes) -> re.Match[bytes] | None:
    """Match the start of a body for `parse_long_instances`; None if it is short, or does not start with rows."""
    return match_instances(body) if len(body) >= MIN_LONG_BYTES else None


def parse_long_instances(body: bytes, head: re.Match[bytes], plane: DataPlane, limits: Limits) -> DecodedRequest:
    """Parse a long body of V1 in parts, as `parse_instances` and `check_duplicate_columns` would.

    Raises:
        DataError: The body is invalid.
        TooLargeError: The body has more rows than `limits.rows`.
    """
    rows: list[Any] = []

    def parse(part: bytes, first_row: int) -> int:
        if not (parsed := parse_part(part, SPLIT_DECODER)) or isinstance(parsed[0], msgspec.Raw):
            parsed = parse_untyped(part)  # now that the part is known to be cut in the right place
        if (unique := strict_json.find_duplicate_keys(part, _count_keys(parsed))) is not None:
            _check_unique_rows(unique, first_row)
        rows.extend(parsed)
        return len(parsed)

    max_row_bytes = max(MAX_PART_BYTES, MAX_CHARACTER_BYTES * limits.text_length * (1 + len(plane.schema.columns)))
    end, count = parse_long_list(body, head, parse, max_items=limits.rows, max_part_bytes=max_row_bytes)
    if count > limits.rows:
        raise TooLargeError(f"the request has more than {limits.rows} rows, this server takes {limits.rows} at once")
    document = strict_json.loads(end)
    decoded = parse_instances(document, limits)
    check_duplicate_columns(end, document, first_row=count)
    rows.extend(decoded.rows or ())
    limits.check_rows(len(rows))
    return decoded._replace(rows=rows)


def check_duplicate_columns(body: bytes, document: Mapping[str, Any], inside: str = "", *, first_row: int = 0) -> None:
    """Check that no column comes twice in a row.

    Args:
        body: Body of the request.
        document: Parsed body.
        inside: Key of the part with the rows, if it is not the whole document.
        first_row: Number of rows before those of the body.

    Raises:
        DataError: A column comes twice in a row; the message names column and row.
    """
    data = document[inside] if inside else document
    parameters = data.get("parameters")
    keys = (
        len(document)
        + len(data) * bool(inside)
        + (len(parameters) if isinstance(parameters, dict) else 0)
        + _count_keys(data["instances"])
    )
    unique = strict_json.find_duplicate_keys(body, keys)
    if unique is None:
        return
    if inside and isinstance(unique, dict):
        unique = unique[inside]
    if isinstance(unique, strict_json.DuplicateKey):
        raise DataError(f"{unique}: comes twice")
    _check_unique_rows(unique["instances"], first_row)


def _count_keys(rows: Sequence[Any]) -> int:
    return sum([len(row) for row in rows if type(row) is dict])


def _check_unique_rows(rows: Sequence[Any], first_row: int) -> None:
    """Check that `find_duplicate_keys` has marked no row.

    Raises:
        DataError: A column comes twice in a row.
    """
    for row, value in enumerate(rows, first_row):
        if isinstance(value, strict_json.DuplicateKey):
            raise DataError(
                f"{value}, row {row}: comes twice" if first_row + len(rows) > 1 else f"{value}: comes twice"
            )


def parse_interval_level(parameters: Any) -> float | None:
    """Parse the level of the prediction intervals in the parameters of a request; None if there is none.

    Raises:
        DataError: The parameters are not an object, or the level is not a number.
    """
    if not isinstance(parameters, Mapping):
        raise DataError('"parameters" is not an object')
    level = parameters.get(INTERVAL_PARAMETER)
    try:
        return None if level is None else float(level)
    except (TypeError, ValueError, OverflowError) as err:
        raise DataError(f"{INTERVAL_PARAMETER}: {strict_json.quote(level)!r} is not a number between 0 and 1") from err


def encode_predictions(outputs: Outputs) -> dict[str, Any]:
    """Encode outputs as the JSON document of a V1 response."""
    if outputs.lower is not None:
        columns = {name: values.tolist() for name, values in outputs.columns.items()}
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}
    body: dict[str, Any] = {"predictions": outputs.prediction.tolist()}
    if outputs.probabilities is not None:
        labels = [label_text(label) for label in outputs.classes]
        body["probabilities"] = [dict(zip(labels, row, strict=True)) for row in outputs.probabilities.tolist()]
    return body
