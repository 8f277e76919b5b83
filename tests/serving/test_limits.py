"""Limits of requests over every protocol, and of error messages."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import threading
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from backports import zstd
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from model_name.core.schemas import Outputs
from model_name.errors import BusyError, ConfigError, DataError
from model_name.serving.arguments import build_parser, parse_limits
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.requests import infer_batch
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import V2Request
from model_name.serving.request_errors import ClientDisconnectedError, client_message, one_line
from tests.support.sockets import exchange, http_request, parse_responses

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

PREDICT, INFER = "/v1/models/regression:predict", "/v2/models/regression/infer"
BODY_BYTES, ROWS, TEXT_LENGTH = 20_000, 5, 100


@pytest.fixture(scope="module")
def strict_server(bundles: dict[str, Bundle], start_server: StartServer) -> Server:
    """Start a server with low limits."""
    limits = ["--max_body_bytes", str(BODY_BYTES), "--max_rows", str(ROWS), "--max_text_length", str(TEXT_LENGTH)]
    return start_server(bundles["regression"].directory, "regression", *limits).wait()


def post(server: Server, path: str, body: Any, **headers: str) -> tuple[int, str]:
    """Post a body; return the status and the error message."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = server.client.post(path, content=content, headers=headers)
    return response.status_code, response.json().get("error", "")


def tensors(rows: list[Row], **changes: Any) -> list[dict[str, Any]]:
    """Encode rows as inputs of V2."""
    kinds = {"area": "FP64", "age": "FP64", "is_let": "FP64"}
    return [
        {"name": name, "shape": [len(rows)], "datatype": kinds.get(name, "BYTES"), "data": [row[name] for row in rows]}
        | changes.get(name, {})
        for name in rows[0]
    ]


def grpc_message(row: Row, name: str = "regression", **changes: Any) -> pb.ModelInferRequest:
    """Encode a row as a gRPC message."""
    message = pb.ModelInferRequest(model_name=name)
    for tensor in tensors([row | changes]):
        field = "bytes_contents" if tensor["datatype"] == "BYTES" else "fp64_contents"
        item = message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        values = [value.encode() if isinstance(value, str) else value for value in tensor["data"]]
        getattr(item.contents, field).extend(values)
    return message


def call(server: Server, request: pb.ModelInferRequest, **more: Any) -> tuple[grpc.StatusCode, str]:
    """Call the server; return the status and the error message."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        try:
            GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30, **more)
        except grpc.RpcError as err:
            return err.code(), err.details()
    return grpc.StatusCode.OK, ""


def test_a_too_long_body_is_refused_in_every_transfer_encoding(strict_server: Server, rows: list[Row]) -> None:
    good = {"instances": rows}
    assert post(strict_server, PREDICT, good) == (200, "")
    long = good | {"parameters": {"x": "y" * BODY_BYTES}}
    size = len(json.dumps(long))
    assert post(strict_server, PREDICT, long) == (413, f"the body has {size} bytes, this server takes {BODY_BYTES}")
    # with chunks, the server counts the bytes
    (response,) = parse_responses(
        exchange(
            strict_server.http_port,
            http_request("POST", PREDICT, None, "transfer-encoding: chunked", "connection: close"),
            b"".join(b"%x\r\n%b\r\n" % (1000, b" " * 1000) for _ in range(30)) + b"0\r\n\r\n",
        )
    )
    assert response.status == 413
    assert json.loads(response.body) == {"error": f"the body has more than {BODY_BYTES} bytes"}
    # a compressed body is decompressed up to the limit
    for pack, name in ((gzip.compress, "gzip"), (zlib.compress, "deflate"), (zstd.compress, "zstd")):
        status, reason = post(strict_server, PREDICT, pack(b" " * 2**24), **{"content-encoding": name})
        assert (status, reason) == (413, f"the body has more than {BODY_BYTES} bytes when it is unpacked")


def test_a_too_long_message_is_refused(strict_server: Server, rows: list[Row]) -> None:
    assert call(strict_server, grpc_message(rows[0])) == (grpc.StatusCode.OK, "")
    long = grpc_message(rows[0])
    long.parameters["x"].string_param = "y" * BODY_BYTES
    code, reason = call(strict_server, long)
    assert (code, reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the body has {long.ByteSize()} bytes, this server takes {BODY_BYTES}",
    )


def test_too_many_rows_are_refused(strict_server: Server, rows: list[Row]) -> None:
    many = [rows[0]] * (ROWS + 1)
    expected = (413, f"the request has {ROWS + 1} rows, this server takes {ROWS} at once")
    assert post(strict_server, PREDICT, {"instances": many}) == expected
    assert post(strict_server, INFER, {"inputs": tensors(many)}) == expected
    matrix = {"name": "rows", "shape": [ROWS + 1, 6], "datatype": "FP64", "data": [1.0] * 6 * (ROWS + 1)}
    assert post(strict_server, INFER, {"inputs": [matrix]}) == expected
    big = grpc_message(rows[0])
    big.inputs[0].shape[0] = 10**15
    assert call(strict_server, big) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the request has {10**15} rows, this server takes {ROWS} at once",
    )


def test_too_long_texts_are_refused(strict_server: Server, rows: list[Row]) -> None:
    text = "x" * (TEXT_LENGTH + 1)
    reason = f"heating, row 0: the text has {len(text)} characters, this server takes {TEXT_LENGTH}"
    row = rows[0] | {"heating": text}
    assert post(strict_server, PREDICT, {"instances": [row]}) == (400, reason)
    assert post(strict_server, INFER, {"inputs": tensors([row])}) == (400, reason)
    assert call(strict_server, grpc_message(row)) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert post(strict_server, PREDICT, {"instances": [rows[0] | {"heating": text[:-1]}]}) == (200, "")


def test_too_long_ids_are_refused(strict_server: Server, rows: list[Row]) -> None:
    text = "x" * (TEXT_LENGTH + 1)
    reason = f"id: the text has {len(text)} characters, this server takes {TEXT_LENGTH}"
    assert post(strict_server, INFER, {"id": text, "inputs": tensors(rows)}) == (400, reason)
    named = grpc_message(rows[0])
    named.id = text
    assert call(strict_server, named) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


@pytest.mark.parametrize("letter", ["x", "%", "ü", "中", "\U0001f600", "\n", "\x00"])
def test_error_messages_are_shortened(servers: dict[str, Server], rows: list[Row], letter: str) -> None:
    name = letter * 100_000
    status, reason = post(servers["regression"], PREDICT, {"instances": [{name: 1}]})
    assert (status, len(reason)) == (400, 4002)
    server = servers["regression"]
    unknown = grpc_message(rows[0])
    unknown.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(1.0)
    code, reason = call(server, unknown)
    assert (code, reason[:1] or letter) == (grpc.StatusCode.INVALID_ARGUMENT, letter)
    assert len(reason) < 4100


@pytest.mark.parametrize("text", ["a\nb", "a\r\nset-cookie: c", "\x00", "\x7f", "größe", "\U0001f600", " a ", "%0A"])
def test_an_event_may_have_any_id(servers: dict[str, Server], rows: list[Row], text: str) -> None:
    event = {"specversion": "1.0", "id": text, "source": "here", "type": "t", "data": {"instances": rows}}
    response = servers["regression"].client.post(
        PREDICT, content=json.dumps(event), headers={"content-type": "application/cloudevents+json"}
    )
    assert (response.status_code, response.json()["id"]) == (200, text)
    assert "set-cookie" not in response.headers
    assert response.headers["x-request-id"].isprintable()


@pytest.mark.parametrize("mode", ["V1", "binary", "structured", "structured text"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_duplicate_column_in_a_row_is_refused(
    servers: dict[str, Server], rows: list[Row], mode: str, count: int
) -> None:
    # Given rows of which the last one has a duplicate column; a text looks like the end of a name
    texts = [json.dumps(row | {"heating": 'wood": '}) for row in [rows[0]] * count]
    good = f'{{"instances": [{", ".join(texts)}]}}'
    twice = f'{{"instances": [{", ".join([*texts[:-1], texts[-1].replace("{", """{"area": 3.0, """)])}]}}'
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"} if mode == "binary" else {}
    if mode.startswith("structured"):
        headers = {"content-type": "application/cloudevents+json"}
        event = json.dumps({"specversion": "1.0", "id": "1", "source": "s", "type": "t"})[:-1]
        good, twice = (
            f'{event}, "data": {json.dumps(body) if mode.endswith("text") else body}}}' for body in (good, twice)
        )
    # When
    refused = post(servers["regression"], PREDICT, twice.encode(), **headers)
    # Then
    assert refused == (400, "area: comes twice" if count == 1 else "area, row 2: comes twice")
    assert post(servers["regression"], PREDICT, good.encode(), **headers) == (200, "")


def test_duplicate_instances_are_refused(servers: dict[str, Server], rows: list[Row]) -> None:
    text = json.dumps({"instances": rows})
    body = f"{text[:-1]}, {text[1:]}".encode()
    assert post(servers["regression"], PREDICT, body) == (400, "instances: comes twice")


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        pytest.param(gzip.compress, "gzip", 200, id="gzip"),
        pytest.param(gzip.compress, "GZip", 200, id="in upper case"),
        pytest.param(zlib.compress, "deflate", 200, id="deflate"),
        pytest.param(lambda body: body, "identity", 200, id="identity"),
        pytest.param(lambda body: gzip.compress(body)[:-9], "gzip", 400, id="truncated"),
        pytest.param(lambda body: gzip.compress(body) + b"more", "gzip", 400, id="with trailing bytes"),
        pytest.param(lambda body: body, "gzip", 400, id="not gzip"),
        pytest.param(lambda body: b"", "gzip", 400, id="an empty body"),
        pytest.param(lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]), "gzip", 200, id="two members"),
        pytest.param(gzip.compress, "x-gzip", 200, id="x-gzip"),
        pytest.param(gzip.compress, "deflate", 200, id="gzip under the name of deflate"),
        pytest.param(lambda body: zlib.compress(body, wbits=-15), "deflate", 200, id="raw deflate"),
        pytest.param(lambda body: zlib.compress(body, wbits=-15), "gzip", 400, id="raw deflate under the name of gzip"),
        pytest.param(lambda body: zlib.compress(body, wbits=-15)[:-9], "deflate", 400, id="truncated raw deflate"),
        pytest.param(zstd.compress, "zstd", 200, id="zstd"),
        pytest.param(lambda body: zstd.compress(body[:9]) + zstd.compress(body[9:]), "zstd", 200, id="two frames"),
        pytest.param(lambda body: zstd.compress(body)[:-9], "zstd", 400, id="truncated zstd"),
        pytest.param(lambda body: zstd.compress(body) + b"more", "zstd", 400, id="zstd with trailing bytes"),
        pytest.param(lambda body: body, "zstd", 400, id="not zstd"),
        pytest.param(lambda body: body, "", 200, id="an empty header"),
        pytest.param(gzip.compress, "identity, gzip", 200, id="identity and gzip"),
        pytest.param(lambda body: gzip.compress(gzip.compress(body)), "gzip, gzip", 415, id="two encodings"),
        pytest.param(gzip.compress, "br", 415, id="unknown"),
    ],
)
def test_a_compressed_body_is_decompressed_or_refused(
    servers: dict[str, Server], rows: list[Row], body: Any, encoding: str, expected: int
) -> None:
    content = body(json.dumps({"instances": rows}).encode())
    assert post(servers["regression"], PREDICT, content, **{"content-encoding": encoding})[0] == expected


@pytest.mark.parametrize("encoding", ["br", "gzip, zstd"])
def test_a_refused_encoding_names_those_that_are_taken(servers: dict[str, Server], encoding: str) -> None:
    response = servers["regression"].client.post(PREDICT, content=b"{}", headers={"content-encoding": encoding})
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "gzip, x-gzip, deflate, zstd")
    assert response.json()["error"].endswith("gzip, x-gzip, deflate, zstd")


def test_a_compressed_message_that_expands_too_much_is_refused(servers: dict[str, Server], rows: list[Row]) -> None:
    huge = grpc_message(rows[0])
    huge.parameters["x"].string_param = " " * (65 * 2**20)
    code, _ = call(servers["regression"], huge, compression=grpc.Compression.Gzip)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


class BlockingPlane(DataPlane):
    """Data plane that blocks until a test lets it predict."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.has_started, self.may_continue = threading.Event(), threading.Event()

    def predict_matrix(self, matrix: Any, *, interval: float | None = None) -> Outputs:
        self.has_started.set()
        assert self.may_continue.wait(30)
        return super().predict_matrix(matrix, interval=interval)


def test_requests_beyond_the_queue_limit_are_refused(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    async def scenario() -> list[Any]:
        plane = BlockingPlane(planes["regression"].bundle)
        batcher = AdaptiveBatcher(plane, Limits(queued_requests=3))

        def post() -> asyncio.Task[Any]:
            return asyncio.ensure_future(batcher.infer(V1Request(json.dumps({"instances": rows}).encode(), "1")))

        first = post()
        await asyncio.to_thread(plane.has_started.wait, 30)
        tasks = [first, *[post() for _ in range(5)]]
        await asyncio.sleep(0.1)
        plane.may_continue.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert (batcher.pending, batcher.pending_bytes) == (set(), 0)
        return results

    results = asyncio.run(scenario())
    assert [isinstance(result, BusyError) for result in results] == [False] * 4 + [True] * 2


class DisconnectedTransport(asyncio.Transport):
    """Transport of a client that has disconnected."""

    def is_closing(self) -> bool:
        return True


def test_requests_of_disconnected_clients_are_dropped(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    async def scenario() -> None:
        batcher = AdaptiveBatcher(planes["regression"], Limits())
        requests = [V1Request(json.dumps({"instances": rows}).encode(), str(number)) for number in range(4)]
        for request in requests[::2]:
            request.connection = DisconnectedTransport()
        tasks = [batcher.infer(request) for request in requests]
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [isinstance(result, ClientDisconnectedError) for result in results] == [True, False] * 2
        assert (batcher.pending, batcher.pending_bytes) == (set(), 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, 5], ids=["alone", "in a batch"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b" ", id="no JSON"),
        pytest.param(b'{"instances": []}', id="no row"),
        pytest.param(b'{"instances": [{"area": 1}]}', id="a row without columns"),
        pytest.param(b'{"instances": [NaN]}', id="NaN"),
    ],
)
def test_refused_requests_are_freed(planes: dict[str, DataPlane], body: bytes, count: int) -> None:
    # Given a process that does not collect reference cycles
    gc.collect()
    gc.disable()
    try:
        references = asyncio.run(submit_invalid(planes["regression"], [body] * count))
        # Then the refused requests are freed all the same
        assert [reference() for reference in references] == [None] * count
    finally:
        gc.enable()


async def submit_invalid(plane: DataPlane, bodies: list[bytes]) -> list[Any]:
    """Submit invalid requests together; return weak references to them."""
    batcher = AdaptiveBatcher(plane, Limits())

    async def post(request: V1Request) -> None:
        with pytest.raises(DataError):
            await batcher.infer(request)

    requests = [V1Request(body, "1") for body in bodies]
    references = [weakref.ref(request) for request in requests]
    tasks = [asyncio.create_task(post(request)) for request in requests]
    requests.clear()
    await asyncio.gather(*tasks)
    tasks.clear()
    for _ in range(100):  # the executors have threads
        await asyncio.sleep(0.01)
        if not any(reference() for reference in references):
            break
    batcher.close()
    return references


def test_an_overloaded_server_responds_with_429(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    # Given a server with a queue of one request, which is busy with large ones
    server = start_server(bundles["regression"].directory, "regression", "--max_queued_requests", "1").wait()
    large = json.dumps({"instances": [list(row.values()) for row in rows] * 20_000}).encode()

    def post_large() -> tuple[int, str | None]:
        response = server.client.post(PREDICT, content=large)
        return response.status_code, response.headers.get("retry-after")

    with ThreadPoolExecutor(12) as pool:
        pending = [pool.submit(post_large) for _ in range(12)]
        codes = set()
        while not all(request.done() for request in pending):
            codes.add(call(server, grpc_message(rows[0]))[0])
        responses = {request.result() for request in pending}
    # Then those that find the queue full get 429, and one that comes later is answered
    assert (429, "1") in responses
    assert responses <= {(200, None), (429, "1")}
    assert post_large() == (200, None)
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert post(server, PREDICT, {"instances": rows}) == (200, "")


def test_a_failed_request_is_not_in_the_batch_result(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    # Given three requests of one batch, one of which requests an unknown output
    plane = planes["regression"]
    bodies = [
        {"inputs": tensors([row]), "outputs": [{"name": name}]}
        for row, name in zip(rows, ("prediction", "margin", "prediction"), strict=True)
    ]
    requests = [V2Request(json.dumps(body).encode(), str(n), name="regression") for n, body in enumerate(bodies)]
    # When
    result = infer_batch(plane, requests, Limits())
    # Then
    assert isinstance(result.responses[1], DataError)
    assert [group.requests[0].id for group in result.groups] == ["0", "2"]
    for group, row in zip(result.groups, (rows[0], rows[2]), strict=True):
        assert group.columns["area"].tolist() == [row["area"]]
        assert group.outputs.prediction.tolist() == plane.predict_rows([row]).prediction.tolist()
        assert group.rows == [slice(0, 1)]


@pytest.mark.parametrize("argument", ["--max_rows", "--max_body_bytes", "--header_seconds", "--answer_seconds"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_limit_of_zero_is_refused(argument: str, value: str) -> None:
    args = build_parser("server", None).parse_args([argument, value])
    with pytest.raises(ConfigError, match=f"^{argument}: .*(greater than 0|no time)"):
        parse_limits(args)


def test_logged_messages_hold_no_control_characters() -> None:
    assert one_line("a\x1b[2J\n b\x00\u202e") == "a�[2J b��"
    assert len(one_line("x" * 10_000)) == 500
    assert client_message(DataError("\ud800: is not a column")) == "?: is not a column"
