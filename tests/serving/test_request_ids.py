"""Id of a request: in every response, and in the lines of the log."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from model_name.io.prediction_log_reader import read_predictions
from model_name.serving.assembly import TOKEN_ENV
from model_name.serving.request_lifecycle import choose_request_id
from tests.support.clients import kserve_request, to_arrays, to_json_tensors
from tests.support.sockets import exchange, http_request, parse_responses

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

NAME, TOKEN, MAX_BODY_BYTES = "regression", "s3cret", 20_000
PREDICT, INFER = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
GENERATED = re.compile(r"[0-9a-f]{12}-[0-9a-f]{8}")
EVENT = ("ce-specversion: 1.0", "ce-id: an id", "ce-source: tests", "ce-type: flat")
CHUNKED = b"2\r\n{}\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle], start_server: StartServer, serving_env: dict[str, str]) -> Server:
    """Start a server with a token, an access log and a small limit of bodies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serving_env, TOKEN_ENV, TOKEN)
        options = ["--max_body_bytes", str(MAX_BODY_BYTES), "--grpc_max_receive_message_length", "100000"]
        return start_server(bundles[NAME].directory, NAME, *options).wait()


def is_logged(server: Server, *parts: str) -> bool:
    """Wait a second for a line of the log that has some parts."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if any(all(part in line for part in parts) for line in server.output().splitlines()):
            return True
        time.sleep(0.02)
    return False


RESPONSES = [
    pytest.param("POST", PREDICT, b"ROWS", (), 200, id="V1"),
    pytest.param("POST", PREDICT, b"ROWS", EVENT, 200, id="a CloudEvent"),
    pytest.param("POST", INFER, b"TENSORS", (), 200, id="V2"),
    pytest.param("POST", PREDICT, b"{", (), 400, id="no JSON"),
    pytest.param("POST", PREDICT, b"ROWS", ("authorization: Bearer wrong",), 401, id="a wrong token"),
    pytest.param("GET", "/nowhere", None, (), 404, id="no such path"),
    pytest.param("POST", "/v1/models/other:predict", b"{}", (), 404, id="another model"),
    pytest.param("PUT", PREDICT, b"{}", (), 405, id="another method"),
    pytest.param("POST", PREDICT, b" " * (MAX_BODY_BYTES + 1), (), 413, id="a long body"),
    pytest.param("POST", PREDICT, b"{}", ("content-encoding: rot13",), 415, id="an unknown encoding"),
    pytest.param("POST", f"/v1/models/{NAME}:explain", b"{}", (), 501, id="unsupported"),
    pytest.param("GET", "/v2/health/live", None, (), 200, id="a probe"),
    pytest.param("HEAD", "/v2/health/live", None, (), 200, id="HEAD"),
    pytest.param("GET", "/metrics", None, (), 200, id="metrics"),
    pytest.param("GET", "/", None, ("accept: text/html",), 200, id="the page"),
    pytest.param("GET", "/openapi.json", None, (), 200, id="the OpenAPI document"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status"), RESPONSES)
@pytest.mark.parametrize("is_whole", [True, False], ids=["at once", "in two parts"])
def test_every_response_has_the_id_of_its_request(
    server: Server,
    rows: list[Row],
    method: str,
    path: str,
    body: bytes | None,
    headers: tuple[str, ...],
    status: int,
    is_whole: bool,
) -> None:
    # given
    tensors = to_json_tensors(rows[:1])
    known = {b"ROWS": json.dumps({"instances": rows}), b"TENSORS": json.dumps({"inputs": tensors})}
    body = known[body].encode() if body in known else body
    authorization = () if any("authorization" in header for header in headers) else (f"authorization: Bearer {TOKEN}",)
    ids = [f"mine:{status}.{method}_{is_whole}", "not valid"]
    # when
    responses = []
    for request_id in ids:
        sent = (*headers, *authorization, f"x-request-id: {request_id}", "connection: close")
        request = http_request(method, path, body, *sent)
        cut = len(request) if is_whole else len(request) - 1
        raw = exchange(server.http_port, request[:cut], request[cut:], pause=0.02)
        responses += [response for response in parse_responses(raw) if method != "HEAD"] or [head_of(raw)]
    # then
    assert [response[0] for response in responses] == [status, status]
    assert responses[0][1]["x-request-id"] == ids[0]
    assert GENERATED.fullmatch(responses[1][1]["x-request-id"])


def head_of(raw: bytes) -> tuple[int, dict[str, str]]:
    """Parse a response to HEAD: its length is not that of a body."""
    line, *fields = raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(line.split()[1]), dict(field.split(": ", 1) for field in fields)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"\x00\r\n\r\n", 400, id="not HTTP"),
        pytest.param(http_request("GET", "/", None, "x-long: " + "x" * 200_000)[:-2], 431, id="long headers"),
    ],
)
def test_what_is_not_a_request_gets_a_new_id(server: Server, raw: bytes, status: int) -> None:
    (response,) = parse_responses(exchange(server.http_port, raw, seconds=5))
    assert response.status == status
    assert GENERATED.fullmatch(response.headers["x-request-id"])


def call(server: Server, method: str, message: Any, **metadata: str) -> tuple[grpc.StatusCode, dict[str, str]]:
    """Call a method of the inference service; return its status and its trailing metadata."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = getattr(GRPCInferenceServiceStub(channel), method)
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        try:
            _, done = stub.with_call(message, timeout=30, metadata=pairs)
        except grpc.RpcError as err:
            done = err
        return done.code(), dict(done.trailing_metadata())


@pytest.mark.parametrize(
    ("method", "message", "token", "code"),
    [
        pytest.param("ModelInfer", None, TOKEN, grpc.StatusCode.OK, id="a prediction"),
        pytest.param("ModelInfer", pb.ModelInferRequest(model_name=NAME), TOKEN, "INVALID_ARGUMENT", id="no tensor"),
        pytest.param("ModelInfer", pb.ModelInferRequest(model_name="x"), TOKEN, "NOT_FOUND", id="another model"),
        pytest.param("ModelInfer", pb.ModelInferRequest(model_name=NAME), "x", "UNAUTHENTICATED", id="a wrong token"),
        pytest.param(
            "RepositoryModelLoad", pb.RepositoryModelLoadRequest(), TOKEN, "UNIMPLEMENTED", id="no repository"
        ),
        pytest.param("ServerLive", pb.ServerLiveRequest(), "x", grpc.StatusCode.OK, id="a probe"),
    ],
)
def test_every_response_of_grpc_has_the_id_of_its_request(
    server: Server, rows: list[Row], method: str, message: Any, token: str, code: Any
) -> None:
    if message is None:
        message = kserve_request(server, to_arrays(rows), binary=True).to_grpc()
    expected = getattr(grpc.StatusCode, code) if isinstance(code, str) else code
    for given_id in (f"mine:{code}", "not valid"):
        status, metadata = call(server, method, message, authorization=f"Bearer {token}", x_request_id=given_id)
        assert status == expected
        assert (
            metadata["x-request-id"] == given_id
            if " " not in given_id
            else GENERATED.fullmatch(metadata["x-request-id"])
        )


@pytest.mark.parametrize(("service", "code"), [("", grpc.StatusCode.OK), ("nobody", grpc.StatusCode.NOT_FOUND)])
def test_health_checks_of_grpc_have_ids(server: Server, service: str, code: grpc.StatusCode) -> None:
    with grpc.insecure_channel(server.grpc_url) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for metadata in ([("x-request-id", "mine")], []):
            try:
                _, done = check.with_call(health_pb2.HealthCheckRequest(service=service), metadata=metadata, timeout=30)
            except grpc.RpcError as err:
                done = err
            assert done.code() is code
            request_id = str(dict(done.trailing_metadata())["x-request-id"])
            assert request_id == "mine" if metadata else GENERATED.fullmatch(request_id)


@pytest.mark.parametrize("protocol", ["v1", "grpc"])
def test_the_log_line_of_a_refusal_has_the_id(server: Server, protocol: str) -> None:
    def refuse(number: int) -> str:
        given_id, token = f"refused-{number}", f"Bearer {TOKEN}"
        if protocol == "v1":
            headers = {"x-request-id": given_id, "authorization": token}
            assert server.client.post(PREDICT, content=b"{", headers=headers).status_code == 400
        else:
            call(server, "ModelInfer", pb.ModelInferRequest(model_name="x"), authorization=token, x_request_id=given_id)
        return given_id

    # the server logs at most ten refusals a second, and other tests cause some
    assert any(is_logged(server, f"refused: {protocol} ", f"(request {refuse(number)})") for number in range(5))


def test_the_access_log_has_the_ids(bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]) -> None:
    server = start_server(bundles[NAME].directory, NAME, "--access_log", "true").wait()
    response = server.client.post(PREDICT, json={"instances": rows}, headers={"x-request-id": "mine"})
    assert response.headers["x-request-id"] == "mine"
    assert is_logged(server, "uvicorn.access", '"POST /v1/models/', ' HTTP/1.1" 200 (request mine)')


def test_the_prediction_log_has_ids_and_traces(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], tmp_path: Path
) -> None:
    # given
    options = ["--prediction_log", str(tmp_path), "--drain_seconds", "0"]
    log_server = start_server(bundles[NAME].directory, NAME, *options).wait()
    trace_ids = {"a": "0af7651916cd43dd8448eb211c80319c", "b": "4bf92f3577b34da6a3ce929d0e0e4736"}
    traceparents = {key: f"00-{trace_id}-b7ad6b7169203331-01" for key, trace_id in trace_ids.items()}
    # when
    headers = {"x-request-id": "a", "traceparent": traceparents["a"]}
    assert log_server.client.post(PREDICT, json={"instances": rows}, headers=headers).is_success
    message = kserve_request(log_server, to_arrays(rows), binary=True).to_grpc()
    message.id = ""
    assert (
        call(log_server, "ModelInfer", message, x_request_id="b", traceparent=traceparents["b"])[0]
        is grpc.StatusCode.OK
    )
    assert log_server.client.post(PREDICT, json={"instances": rows}, headers={"x-request-id": "c"}).is_success
    assert log_server.stop() == 0
    # then
    table = read_predictions(str(tmp_path))
    found = {(row.request_id, row.protocol, row.trace_id) for row in table.itertuples()}
    assert found == {("a", "v1", trace_ids["a"]), ("b", "grpc", trace_ids["b"]), ("c", "v1", None)}
    assert len(table) == 3 * len(rows)


@given(st.one_of(st.none(), st.text(), st.binary()))
def test_a_chosen_id_is_safe_in_headers_and_logs(given_id: str | bytes | None) -> None:
    chosen = choose_request_id(given_id, lambda: "new")
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", chosen)
    assert chosen in ("new", given_id, given_id.decode("latin-1") if isinstance(given_id, bytes) else None)
