"""Random requests of every protocol, valid and mutated, for fuzzing a server."""

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.serving.protocols.tensors import CONTENTS_FIELDS, DATATYPES, DTYPES, Tensor, encode_raw

Row = dict[str, Any]
Delivery = Literal["complete", "stream", "grpc"]


@dataclass(frozen=True)
class FuzzRequest:
    """Data to send.

    Attributes:
        kind: Name of the generator, for the reader of a failure.
        delivery: Way to send it: `complete` is one HTTP request, `stream` any bytes, `grpc` a message.
        content: Bytes to send.
        is_valid: Whether the response has to be a prediction.
        target: Method of the gRPC service.
    """

    kind: str
    delivery: Delivery
    content: bytes
    is_valid: bool = False
    target: str = "ModelInfer"


def any_request(table: TableSchema, name: str) -> st.SearchStrategy[FuzzRequest]:
    """Generate requests: every tenth is valid, the others have one or a few mutations."""
    rows = st.lists(row(table), min_size=1, max_size=4)
    http_requests = [v1(rows, table, name), v2(rows, table, name), binary(rows, table, name), event(rows, table, name)]
    return st.one_of(
        *http_requests,
        grpc_message(rows, table, name),
        *[mutated_stream(http_request) for http_request in http_requests],
        paths(name),
        random_data(),
    )


# Rows, and replacements of values


def row(table: TableSchema) -> st.SearchStrategy[Row]:
    """Generate a valid row."""
    names = [*table.inputs]
    return st.tuples(*map(value, table.inputs.values())).map(lambda values: dict(zip(names, values, strict=True)))


def value(column: Column) -> st.SearchStrategy[Any]:
    """Generate a valid value."""
    match column.kind:
        case "numeric":
            low, high = column.min, column.max
            strategy: st.SearchStrategy[Any] = st.floats(
                -1e6 if low is None else low, 1e6 if high is None else high, width=32, allow_subnormal=False
            )
        case "boolean":
            strategy = st.booleans()
        case "datetime":
            strategy = st.datetimes().map(lambda moment: moment.isoformat())
        case _:
            strategy = st.sampled_from(column.values or ("gas", "wood", "größe", "\U0001f600", "a,b", 'a"b', "\\"))
    return strategy | st.none() if column.nullable else strategy


TEXTS = st.text(max_size=6) | st.text(alphabet="\x00\x1b\r\n\u2028\u202e\ufeff\"',:{}[]\\", max_size=4)
PLACEHOLDERS = {
    "@deep@": b"[" * 900 + b"]" * 900,
    "@deeper@": b"[" * 3000 + b"]" * 3000,
    "@deepest@": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "@huge@": b"1" * 400,
    "@digits@": b"1" * 5000,
    "@exponent@": b"1e99999",
    "@half@": b'"\\ud800"',
    "@halves@": b'"\\udc00\\ud800"',
    "@nul@": b'"\\u0000"',
    "@long@": b'"' + b"x" * 20_000 + b'"',
    "@wide@": '"{}"'.format("\u4e2d" * 9000).encode(),
    "@bytes@": b'"\xff\xfe\xed\xa0\x80"',
    "@nan@": b"NaN",
    "@inf@": b"-Infinity",
    "@twice@": b'{"area": 1, "area": 2}',
    "@zero@": b"-0",
    "@plus@": b"+1",
    "@hex@": b"0x10",
    "@comment@": b"/* */ 1",
    "@comma@": b"1,",
}
"""Placeholders of values that Python's JSON encoder does not write."""
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**38, 10**300, 1e38, 3.5e38, 1e300, 5e-324, -1, 0, 1e-46]),
    st.floats(),
    TEXTS,
    st.sampled_from([*PLACEHOLDERS]),
    st.sampled_from(["61.5", "true", "null", "NaN", "east", "2025-02-30", "9999-12-31T23:59:59-23:59", "0001-01-01Z"]),
)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(TEXTS, SCALARS, max_size=3)


def dump_json(document: Any) -> bytes:
    """Encode a document in JSON and replace its placeholders."""
    text = json.dumps(document).encode()
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(f'"{placeholder}"'.encode(), value)
    return text


@st.composite
def mutate_document(draw: st.DrawFn, document: Any) -> Any:
    """Replace, remove, duplicate or rename up to three parts of a document."""
    for _ in range(draw(st.integers(1, 3))):
        parent: Any = document
        while isinstance(parent, dict | list) and parent:
            key = (
                draw(st.sampled_from([*parent])) if isinstance(parent, dict) else draw(st.integers(0, len(parent) - 1))
            )
            if not isinstance(parent[key], dict | list) or not parent[key] or draw(st.integers(0, 3)) == 0:
                break
            parent = parent[key]
        if not isinstance(parent, dict | list) or not parent:
            return draw(ANYTHING)
        match draw(st.integers(0, 4)):
            case 0 | 1:
                parent[key] = draw(ANYTHING)
            case 2:
                del parent[key]
            case 3 if isinstance(parent, dict):
                parent[draw(TEXTS | st.sampled_from(["area", "price", "rent", "remark", *PLACEHOLDERS]))] = parent.pop(
                    key
                )
            case _ if isinstance(parent, list):
                parent.insert(key, parent[key])
            case _:
                parent[draw(TEXTS)] = draw(ANYTHING)
    return document


@st.composite
def mutate_content(draw: st.DrawFn, content: bytes) -> bytes:
    """Change, remove or duplicate up to three parts of some bytes."""
    mutated = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(mutated)))
        match draw(st.integers(0, 4)):
            case 0:
                del mutated[start:]
            case 1:
                mutated[start:start] = draw(st.binary(max_size=8))
            case 2 if start < len(mutated):
                mutated[start] ^= 1 << draw(st.integers(0, 7))
            case 3:
                del mutated[start : start + draw(st.integers(1, 20))]
            case _:
                mutated[start:start] = mutated[start : start + draw(st.integers(1, 40))]
    return bytes(mutated)


# HTTP

HEADERS = st.sampled_from(
    [
        "content-type: text/csv",
        "content-type: application/json; charset=utf-16",
        "content-type: \xff\xfe",
        "content-type: application/cloudevents-batch+json",
        "content-type: application/cloudevents+json",
        "content-type: multipart/form-data; boundary=x",
        "accept: application/xml",
        "accept-encoding: br;q=1.0, *;q=0",
        "content-encoding: identity",
        "content-encoding: br",
        "content-encoding: gzip",
        "content-encoding: gzip, gzip",
        "inference-header-content-length: 0",
        "inference-header-content-length: 10",
        "inference-header-content-length: 99999999999999999999",
        "inference-header-content-length: -1",
        "inference-header-content-length: \xb2",
        "authorization: Bearer \xff",
        "x-request-id: a b",
        "x-request-id: " + "x" * 200,
        "x-secret: geheim",
        "expect: 100-continue",
        "expect: 200-ok",
        "connection: keep-alive, upgrade",
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==",
        "ce-specversion: 1.0",
        "ce-specversion: 9.9",
        "ce-id: %ff",
        "ce-id: a%0d%0ab",
        "ce-\xff: x",
        "x-forwarded-for: \xff",
        "range: bytes=0-1",
        "if-none-match: *",
        "transfer-encoding: identity",
        "x: " + "y" * 60_000,
        "te: trailers",
        "cookie: " + "a=b; " * 500,
        "host: ",
        "x-empty:",
    ]
)


def request_line(method: str, path: str, version: str = "1.1") -> str:
    return f"{method} {path} HTTP/{version}"


@st.composite
def http_with_body(draw: st.DrawFn, path: str, body: bytes, headers: list[str], *, is_mutated: bool) -> bytes:
    """Build an HTTP request with a body that is plain, compressed or chunked."""
    head = [request_line("POST", path), "host: here", *headers]
    how = draw(st.integers(0, 9))
    if how == 0:
        body, encoding = draw(st.sampled_from([(gzip.compress(body), "gzip"), (zlib.compress(body), "deflate")]))
        if is_mutated and draw(st.booleans()):
            body = draw(mutate_content(body))
        head.append(f"content-encoding: {encoding}")
    if is_mutated and how == 1:
        head.append("content-encoding: gzip")
        body = ZIP_BOMB
    if is_mutated:
        head += draw(st.lists(HEADERS, max_size=2))
    if how == 2:
        size = draw(st.integers(1, 1 + len(body)))
        extension = b";a=b" * draw(st.integers(0, 1))
        parts = [body[start : start + size] for start in range(0, len(body), max(size, len(body) // 50))]
        if size < len(body) // 50:
            parts = [body]
        chunks = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part]
        trailer = b"x-late: 1\r\n" * draw(st.integers(0, 1))
        head.append("transfer-encoding: chunked")
        body = b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"
    else:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def zip_bomb(name: str, *headers: str) -> FuzzRequest:
    """Build a request whose small body decompresses to a large one."""
    line = request_line("POST", f"/v1/models/{name}:predict")
    head = [line, *headers, "content-encoding: gzip", f"content-length: {len(ZIP_BOMB)}", "", ""]
    return FuzzRequest("v1", "complete", "\r\n".join(head).encode() + ZIP_BOMB)


ZIP_BOMB = gzip.compress(b'{"instances": [' + b" " * 2**22)


@st.composite
def v1(draw: st.DrawFn, rows: st.SearchStrategy[list[Row]], table: TableSchema, name: str) -> FuzzRequest:
    """Generate a V1 request."""
    return draw(document_request("v1", f"/v1/models/{name}:predict", draw(v1_document(rows)), []))


@st.composite
def v1_document(draw: st.DrawFn, rows: st.SearchStrategy[list[Row]]) -> Any:
    """Generate a body of V1."""
    drawn = draw(rows)
    return {"instances": [[*values.values()] for values in drawn] if draw(st.booleans()) else drawn}


@st.composite
def document_request(draw: st.DrawFn, kind: str, path: str, document: Any, headers: list[str]) -> FuzzRequest:
    """Build a request of a document: valid, or mutated before or after its encoding."""
    how = draw(st.integers(0, 9))
    if how == 0:
        return FuzzRequest(
            kind, "complete", draw(http_with_body(path, dump_json(document), headers, is_mutated=False)), is_valid=True
        )
    body = dump_json(draw(mutate_document(document)) if how < 7 else document)
    if how in (7, 8):
        body = draw(mutate_content(body))
    return FuzzRequest(kind, "complete", draw(http_with_body(path, body, headers, is_mutated=how in (6, 9))))


def tensor_of(column: Column, name: str, values: list[Any]) -> Row:
    return {"name": name, "shape": [len(values)], "datatype": DATATYPES[column.kind][0], "data": values}


@st.composite
def v2(draw: st.DrawFn, rows: st.SearchStrategy[list[Row]], table: TableSchema, name: str) -> FuzzRequest:
    """Generate a V2 request in JSON."""
    drawn = draw(rows)
    inputs = [tensor_of(column, key, [values[key] for values in drawn]) for key, column in table.inputs.items()]
    document: Row = {"inputs": inputs} | draw(
        st.fixed_dictionaries(
            {}, optional={"id": TEXTS, "parameters": st.just({}), "outputs": st.just([{"name": "prediction"}])}
        )
    )
    version = draw(st.sampled_from(["", "", "", "/versions/7"]))
    return draw(document_request("v2", f"/v2/models/{name}{version}/infer", document, []))


def raw_tensors(table: TableSchema, rows: list[Row]) -> list[Tensor]:
    """Convert rows to tensors, in which NaN or the empty text is a missing value."""
    tensors = []
    for name, column in table.inputs.items():
        values = [one[name] for one in rows]
        if DATATYPES[column.kind][0] == "BYTES":
            tensors.append(Tensor(name, "BYTES", [len(rows)], ["" if one is None else one for one in values]))
        else:
            numbers = np.array([np.nan if one is None else one for one in values], dtype=np.float64)
            tensors.append(Tensor(name, "FP64", [len(rows)], numbers))
    return tensors


@st.composite
def binary(draw: st.DrawFn, rows: st.SearchStrategy[list[Row]], table: TableSchema, name: str) -> FuzzRequest:
    """Generate a V2 request with binary tensors."""
    tensors = raw_tensors(table, draw(rows))
    contents = [encode_raw(tensor) for tensor in tensors]
    inputs = [
        {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": len(content)},
        }
        for tensor, content in zip(tensors, contents, strict=True)
    ]
    document: Any = {"inputs": inputs, "parameters": {"binary_data_output": draw(st.booleans())}}
    tail = b"".join(contents)
    how = draw(st.integers(0, 9))
    if 1 <= how < 6:
        document = draw(mutate_document(document))
    if how >= 6:
        tail = draw(mutate_content(tail))
    if how == 7:
        datatype = draw(st.sampled_from([*DTYPES, "BYTES"]))
        draw(st.sampled_from(document["inputs"]))["datatype"] = datatype
    text = dump_json(document)
    length = len(text) + (draw(st.integers(-3, 3)) if how == 9 else 0)
    headers = [f"inference-header-content-length: {length}", "content-type: application/octet-stream"]
    content = draw(http_with_body(f"/v2/models/{name}/infer", text + tail, headers, is_mutated=how == 8))
    return FuzzRequest("binary", "complete", content, is_valid=how == 0)


@st.composite
def event(draw: st.DrawFn, rows: st.SearchStrategy[list[Row]], table: TableSchema, name: str) -> FuzzRequest:
    """Generate a CloudEvent."""
    path, data = f"/v1/models/{name}:predict", draw(v1_document(rows))
    names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
    texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
    extensions = draw(st.dictionaries(names, texts, max_size=2))
    attributes = {"specversion": "1.0", "id": draw(texts), "source": draw(texts), "type": "t"} | {
        f"x{key}": text for key, text in extensions.items()
    }
    if draw(st.booleans()):
        as_text = draw(st.integers(0, 3)) == 0
        document = attributes | {"data": json.dumps(data) if as_text else data}
        return draw(document_request("event", path, document, ["content-type: application/cloudevents+json"]))
    headers = [f"ce-{key}: {quote(text, safe='')}" for key, text in attributes.items()]
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(headers) - 1))
        headers[at] = draw(st.sampled_from([headers[at][:6], f"{headers[at]}%", f"{headers[at]}%ff%00", "ce-: x"]))
        body = dump_json(data)
        return FuzzRequest("event", "complete", draw(http_with_body(path, body, headers, is_mutated=False)))
    return draw(document_request("event", path, data, headers))


# gRPC


@st.composite
def grpc_message(draw: st.DrawFn, rows: st.SearchStrategy[list[Row]], table: TableSchema, name: str) -> FuzzRequest:
    """Generate a gRPC message with typed or raw contents."""
    message = pb.ModelInferRequest(model_name=name, id=draw(st.sampled_from(["", "1", "\x00", "größe"])))
    is_raw = draw(st.booleans())
    for tensor in raw_tensors(table, draw(rows)):
        item = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if is_raw:
            message.raw_input_contents.append(encode_raw(tensor))
        elif tensor.datatype == "BYTES":
            item.contents.bytes_contents.extend(text.encode() for text in tensor.values)
        else:
            item.contents.fp64_contents.extend(tensor.values.tolist())
    how = draw(st.integers(0, 9))
    content = message.SerializeToString()
    if how == 0:
        return FuzzRequest("grpc", "grpc", content, is_valid=True)
    if how < 5:
        for _ in range(draw(st.integers(1, 2))):
            draw(st.sampled_from(MUTATIONS))(draw, message)
        content = message.SerializeToString()
    elif how < 9:
        content = draw(mutate_content(content))
    methods = ["ModelMetadata", "ModelReady", "RepositoryModelLoad", "ServerReady", "ServerLive", "Nothing"]
    return FuzzRequest("grpc", "grpc", content, target=draw(st.sampled_from(methods)) if how == 9 else "ModelInfer")


def _mutate_names(draw: st.DrawFn, message: Any) -> None:
    texts = TEXTS.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))
    part = draw(st.sampled_from([message, *message.inputs]))
    field = "model_name" if part is message else "name"
    setattr(part, draw(st.sampled_from([field, "model_version" if part is message else "datatype"])), draw(texts))


def _mutate_shape(draw: st.DrawFn, message: Any) -> None:
    item = draw(st.sampled_from(message.inputs))
    del item.shape[:]
    item.shape.extend(draw(st.lists(st.sampled_from([0, 1, 2, -1, 6, 2**62, -(2**63)]), max_size=3)))


def _mutate_datatype(draw: st.DrawFn, message: Any) -> None:
    draw(st.sampled_from(message.inputs)).datatype = draw(st.sampled_from([*DTYPES, "BYTES", "FP128", "", "fp32"]))


def _mutate_values(draw: st.DrawFn, message: Any) -> None:
    contents = draw(st.sampled_from(message.inputs)).contents
    contents.ClearField(draw(st.sampled_from([*CONTENTS_FIELDS.values()])))
    contents.fp64_contents.extend(draw(st.lists(st.floats(), max_size=3)))


def _mutate_text_contents(draw: st.DrawFn, message: Any) -> None:
    draw(st.sampled_from(message.inputs)).contents.bytes_contents.extend(
        draw(st.lists(st.binary(max_size=4), max_size=3))
    )


def _mutate_raw_contents(draw: st.DrawFn, message: Any) -> None:
    message.raw_input_contents.append(draw(st.binary(max_size=20)))


def _mutate_count(draw: st.DrawFn, message: Any) -> None:
    if draw(st.booleans()):
        message.inputs.add().CopyFrom(draw(st.sampled_from(message.inputs)))
    else:
        del message.inputs[draw(st.integers(0, len(message.inputs) - 1)) :]
        message.inputs.add(name="area", datatype="FP64", shape=[1])


def _mutate_parameters(draw: st.DrawFn, message: Any) -> None:
    message.parameters["interval"].string_param = draw(st.sampled_from(["0.9", "nan", "", "x" * 500, "1e999"]))
    message.outputs.add(name=draw(st.sampled_from(["prediction", "margin", "\x00", "中" * 3000])))


MUTATIONS: list[Callable[[st.DrawFn, Any], None]] = [
    _mutate_names,
    _mutate_shape,
    _mutate_datatype,
    _mutate_values,
    _mutate_text_contents,
    _mutate_raw_contents,
    _mutate_count,
    _mutate_parameters,
]

# Bytes that may not be a request


@st.composite
def mutated_stream(draw: st.DrawFn, complete: st.SearchStrategy[FuzzRequest]) -> FuzzRequest:
    """Truncate or change a request, or send several at once."""
    first = draw(complete).content
    match draw(st.integers(0, 5)):
        case 0:
            content = first[: draw(st.integers(0, len(first)))]
        case 1:
            content = first + draw(complete).content + draw(mutate_content(first[:200]))
        case 2:
            content = first.replace(
                b" HTTP/1.1", draw(st.sampled_from([b" HTTP/1.0", b" HTTP/2.0", b"", b" FTP/1"])), 1
            )
        case 3:
            wrong = draw(st.sampled_from([b"0", b"1", b"-1", b"99999", b"1, 2", b"x", b"9" * 30, b"+5", b"0x9"]))
            content = first.replace(b"content-length: ", b"content-length: %b\r\nx: " % wrong, 1)
        case 4:
            line, _, rest = first.partition(b"\r\n")
            content = draw(mutate_content(line)) + b"\r\n" + rest
        case _:
            head, _, body = first.partition(b"\r\n\r\n")
            content = draw(mutate_content(head)) + b"\r\n\r\n" + body
    return FuzzRequest("stream", "stream", content)


@st.composite
def paths(draw: st.DrawFn, name: str) -> FuzzRequest:
    """Generate a request of any method to any path."""
    known = ["/", "/v1/models", f"/v1/models/{name}", f"/v1/models/{name}:predict", f"/v1/models/{name}:explain"]
    known += ["/v2", f"/v2/models/{name}", f"/v2/models/{name}/ready", f"/v2/models/{name}/infer", "/metrics"]
    known += [f"/v2/models/{name}/versions/7", f"/v2/repository/models/{name}/load", "/openapi.json", "/v2/health/live"]
    parts = [
        "//",
        "/../",
        "/%2e%2e/",
        "%00",
        "%ff",
        "%zz",
        "%",
        "?a=b",
        "?" + "q" * 2000,
        "#x",
        ";x",
        ":predict",
        "/versions/",
    ]
    path = draw(st.sampled_from(known))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(1, len(path)))
        path = path[:at] + draw(st.sampled_from(parts)) + path[at:]
    if draw(st.integers(0, 9)) == 0:
        path = draw(st.sampled_from(["*", "http://evil.example/v1/models", "/" + "a" * 30_000, "//evil", "/\\evil"]))
    methods = [
        "GET",
        "HEAD",
        "OPTIONS",
        "PUT",
        "DELETE",
        "PATCH",
        "POST",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "get",
        "BREW",
    ]
    lines = [request_line(draw(st.sampled_from(methods)), path, draw(st.sampled_from(["1.1", "1.1", "1.0"])))]
    lines += ["host: here", *draw(st.lists(HEADERS, max_size=2)), "content-length: 0"]
    return FuzzRequest("path", "stream", "\r\n".join([*lines, "", ""]).encode("latin-1"))


@st.composite
def random_data(draw: st.DrawFn) -> FuzzRequest:
    """Generate random bytes."""
    starts = [b"", b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"\r\n\r\n", b"POST "]
    return FuzzRequest("noise", "stream", draw(st.sampled_from(starts)) + draw(st.binary(max_size=60)))
