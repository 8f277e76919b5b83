"""Ten thousand requests, most of them mutated: none breaks the server, and each valid one gets a prediction."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.counts import count
from tests.support.fuzz_requests import FuzzRequest, any_request, zip_bomb
from tests.support.memory import resident_bytes
from tests.support.prediction_logs import lines
from tests.support.sockets import RawResponse, connect, parse_responses, receive_all, send_parts

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

WARM_UP = count(reduced=1_000, full=4_000)  # requests, after which memory has reached its peak
REQUESTS = count(reduced=1_500, full=10_000)
MAX_GROWTH = count(reduced=1.5, full=1.05)
SETTLE_SECONDS = 3.0  # after which a server has returned free memory
STREAM_TIMEOUT_SECONDS = 0.02  # to wait for a response that may not come; the metrics show later errors
REFUSED_STATUSES = {400, 404, 405, 408, 413, 415, 431}
NOT_IMPLEMENTED = 501  # the explainer is another server, and the model repository is disabled
GRPC_CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
SERVICE = "inference.GRPCInferenceService"
MAX_REASON_CHARACTERS = 4002
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
HYPOTHESIS_SETTINGS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


class FuzzClient:
    """Client that sends random requests and checks that each response is an allowed one."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.counts: Counter[str] = Counter()
        self.channel = grpc.insecure_channel(server.grpc_url)

    def send(self, request: FuzzRequest) -> None:
        if request.delivery == "grpc":
            self._call(request)
        elif request.delivery == "complete":
            (response,) = self._exchange(request, seconds=30.0)
            self._check(request, response)
        else:
            for response in self._exchange(request, seconds=STREAM_TIMEOUT_SECONDS):
                self._check(request, response)

    def _exchange(self, request: FuzzRequest, seconds: float) -> list[RawResponse]:
        with connect(self.server.http_port, seconds) as connection:
            send_parts(connection, [request.content])
            if request.delivery == "stream":
                raw = receive_all(connection)
                is_headless = re.match(
                    rb"HEAD |[^P]*\n\r?\nHEAD ", request.content
                )  # its response has a length and no body
                return [] if is_headless else parse_responses(raw)
            raw = b""
            while not (responses := complete_responses(raw)):
                part = connection.recv(1 << 16)
                assert part, (request, raw)
                raw += part
            return responses

    def _check(self, request: FuzzRequest, response: RawResponse) -> None:
        self.counts[f"{request.kind} {response.status}"] += 1
        if request.is_valid:
            assert response.status == 200, (request, response)
        if response.status == 200:
            return
        assert response.status in REFUSED_STATUSES or response.status == NOT_IMPLEMENTED, (request, response)
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-content-type-options"] == "nosniff"
        if response.body:
            reason = json.loads(response.body)["error"]
            assert isinstance(reason, str)
            assert 0 < len(reason) <= MAX_REASON_CHARACTERS

    def _call(self, request: FuzzRequest) -> None:
        method = self.channel.unary_unary(f"/{SERVICE}/{request.target}")
        try:
            method(request.content, timeout=30)
        except grpc.RpcError as err:
            code, details = err.code(), err.details()
            assert details, request
        else:
            code = grpc.StatusCode.OK
        self.counts[f"grpc {code.name}"] += 1
        assert code in GRPC_CODES, (request, code, details)
        assert code == grpc.StatusCode.OK or not request.is_valid, (request, code, details)


def complete_responses(raw: bytes) -> list[RawResponse]:
    """Parse the responses that are complete."""
    try:
        return [
            response
            for response in parse_responses(raw)
            if len(response.body) == int(response.headers.get("content-length", 0))
        ]
    except ValueError:  # an incomplete line
        return []


def resident_kilobytes(server: Server) -> int:
    """Measure the resident memory of a server in kB, after it had time to free memory."""
    time.sleep(SETTLE_SECONDS)
    return resident_bytes(server.process.pid) // 1024


def server_errors(server: Server) -> list[str]:
    """List the server errors in the metrics."""
    text = server.client.get("/metrics").text
    labels = re.findall(r'model_name_requests_total\{code="(5\d\d)",protocol="(\w+)",route="(\w+)"\}', text)
    return [" ".join(error) for error in labels if error[0] != str(NOT_IMPLEMENTED)]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression"])
def test_random_requests_do_not_break_a_server(
    bundles: dict[str, Bundle], start_server: StartServer, tmp_path: Path, rows: list[Row], task: str
) -> None:
    # Given a server with a prediction log
    bundle = bundles[task]
    args = ["--prediction_log", str(tmp_path), "--header_seconds", "1", "--body_seconds", "1", "--drain_seconds", "0"]
    server = start_server(bundle.directory, task, *args).wait()
    expected = server.client.post(f"/v1/models/{task}:predict", json={"instances": rows}).json()
    fuzz_client = FuzzClient(server)

    def run_requests(shot_count: int) -> None:
        @seed(shot_count)
        @settings(max_examples=shot_count, phases=[Phase.generate], **HYPOTHESIS_SETTINGS)
        @given(any_request(bundle.manifest.table, task))
        def send_one(request: FuzzRequest) -> None:
            fuzz_client.send(request)

        send_one()

    # When it gets random requests, after the largest ones
    for headers in ([], ["content-type: application/cloudevents+json"]) * 3:  # through the fast decoder, and without it
        fuzz_client.send(zip_bomb(task, *headers))
    run_requests(WARM_UP)
    before = resident_kilobytes(server)
    run_requests(REQUESTS - WARM_UP)
    after = resident_kilobytes(server)
    # Then it runs, predicts as before, and holds no more memory than before
    assert server.process.poll() is None
    assert server.client.post(f"/v1/models/{task}:predict", json={"instances": rows}).json() == expected
    assert server_errors(server) == []
    assert after <= before * MAX_GROWTH
    assert len(fuzz_client.counts) > 12, fuzz_client.counts
    print(before, after, fuzz_client.counts)  # noqa: T201
    # and it shuts down cleanly, with a valid prediction log
    assert server.stop() == 0
    log = server.output()
    assert "Traceback" not in log
    assert re.findall(".*(?:failed|unwritten| ERROR ).*", log) == []
    records = lines(tmp_path)
    assert len(records) >= sum(n for kind, n in fuzz_client.counts.items() if kind.split()[1] in ("200", "OK")) / 4
    assert {record["protocol"] for record in records} == {"v1", "v2", "grpc", "cloudevents"}


# The OpenAPI document


@pytest.mark.parametrize("task", ["regression", "multiclass"])
@pytest.mark.parametrize("count", [15, pytest.param(30, marks=pytest.mark.slow)])
def test_responses_conform_to_the_openapi_document(servers: dict[str, Server], task: str, count: int) -> None:
    # Given the OpenAPI document of a server
    server = servers[task]
    schema = schemathesis.openapi.from_dict(server.client.get("/openapi.json").json())
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 12
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            with suppress(Unsatisfiable):  # a request without parameters cannot be invalid
                check_operation(server, operation, mode, count if operation.body else 1)


def check_operation(
    server: Server,
    operation: schemathesis.APIOperation,
    mode: schemathesis.GenerationMode,
    count: int,
) -> None:
    """Send requests that conform to the document, or nearly, and check the responses against it."""

    @seed(count)
    @settings(max_examples=count, phases=[Phase.generate], **HYPOTHESIS_SETTINGS)
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.validate_response(case.call(base_url=server.url), checks=CHECKS)

    ask()
