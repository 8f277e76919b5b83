"""What a server tells Prometheus after known requests, and that no client can make it tell more."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from model_name.serving.server_metrics import ServerMetrics
from tests.support.clients import arrays, call_grpc, post_v1, post_v2, request_of, tensors
from tests.support.manifests import manifest_of, table_of
from tests.support.sockets import http

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

Key = tuple[str, frozenset[tuple[str, str]]]
NAME = "binary"
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/here", "ce-type": "flat"}
LONG = 40_000  # times three rows: computed for longer than a client needs to come and go


@pytest.fixture(scope="module")
def watched(bundles: dict[str, Bundle], start_server: StartServer) -> Server:
    """A server that nobody else asks."""
    return start_server(bundles[NAME].directory, NAME, "--slot", "green").wait()


def series(server: Server) -> dict[Key, float]:
    """All time series, by name and labels."""
    text = server.client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(one.name, frozenset(one.labels.items())): one.value for one in samples}


def key(metric: str, **labels: str) -> Key:
    return f"model_name_{metric}", frozenset(labels.items())


def grown(server: Server, ask: Callable[[], object]) -> dict[Key, float]:
    """By how much which series grow while something is asked."""
    before = series(server)
    ask()
    after = series(server)
    return {one: value - before.get(one, 0.0) for one, value in after.items() if value != before.get(one, 0.0)}


def try_grpc(server: Server, method: str, request: Any) -> None:
    with suppress(grpc.RpcError):
        call_grpc(server, method, request)


@pytest.mark.parametrize(
    ("ask", "labels"),
    [
        pytest.param(lambda s, rows: post_v1(s, {"instances": rows}), ("v1", "predict", "200"), id="V1"),
        pytest.param(lambda s, rows: post_v1(s, {"instances": []}), ("v1", "predict", "400"), id="V1, refused"),
        pytest.param(
            lambda s, rows: post_v1(s, {"instances": rows}, headers=EVENT),
            ("cloudevents", "predict", "200"),
            id="event",
        ),
        pytest.param(
            lambda s, rows: post_v1(s, {}, headers=EVENT), ("cloudevents", "predict", "400"), id="event, refused"
        ),
        pytest.param(lambda s, rows: post_v2(s, {"inputs": tensors(rows)}), ("v2", "infer", "200"), id="V2"),
        pytest.param(lambda s, rows: post_v2(s, {}), ("v2", "infer", "400"), id="V2, refused"),
        pytest.param(
            lambda s, rows: call_grpc(s, "ModelInfer", request_of(s, arrays(rows), binary=True).to_grpc()),
            ("grpc", "infer", "200"),
            id="gRPC",
        ),
        pytest.param(
            lambda s, rows: try_grpc(s, "ModelInfer", pb.ModelInferRequest(model_name=NAME)),
            ("grpc", "infer", "400"),
            id="gRPC, refused",
        ),
        pytest.param(
            lambda s, rows: try_grpc(s, "ModelInfer", pb.ModelInferRequest(model_name="x")),
            ("grpc", "infer", "404"),
            id="gRPC, another model",
        ),
        pytest.param(
            lambda s, rows: call_grpc(s, "ServerMetadata", pb.ServerMetadataRequest()),
            ("grpc", "metadata", "200"),
            id="metadata by gRPC",
        ),
        pytest.param(lambda s, rows: s.client.get(f"/v2/models/{NAME}"), ("v2", "metadata", "200"), id="metadata"),
        pytest.param(lambda s, rows: s.client.get("/v2/health/live"), ("v2", "health", "200"), id="health"),
        pytest.param(lambda s, rows: s.client.get(f"/v1/models/{NAME}"), ("v1", "ready", "200"), id="readiness"),
        pytest.param(
            lambda s, rows: s.client.post(f"/v1/models/{NAME}:explain"), ("v1", "explain", "501"), id="another server's"
        ),
        pytest.param(lambda s, rows: s.client.put(f"/v1/models/{NAME}:predict"), ("http", "other", "405"), id="method"),
        pytest.param(lambda s, rows: s.client.get("/nowhere"), ("http", "other", "404"), id="no such path"),
    ],
)
def test_a_request_is_counted_by_protocol_route_and_code(
    watched: Server, rows: list[Row], ask: Callable[[Server, list[Row]], object], labels: tuple[str, str, str]
) -> None:
    protocol, route, code = labels
    found = grown(watched, lambda: [ask(watched, rows) for _ in range(3)])
    counted = {one: value for one, value in found.items() if one[0] == "model_name_requests_total"}
    metrics = key("requests_total", protocol="http", route="metrics", code="200")
    assert counted == {metrics: 1.0, key("requests_total", protocol=protocol, route=route, code=code): 3.0}
    assert found[key("request_seconds_count", protocol=protocol, route=route)] == 3.0
    assert 0 < found[key("request_seconds_sum", protocol=protocol, route=route)] < 30


def test_batches_are_counted_by_requests_and_rows(watched: Server, rows: list[Row]) -> None:
    found = grown(watched, lambda: [post_v1(watched, {"instances": rows}) for _ in range(4)])
    assert (found[key("batch_requests_count")], found[key("batch_requests_sum")]) == (4.0, 4.0)
    assert (found[key("batch_rows_count")], found[key("batch_rows_sum")]) == (4.0, 12.0)
    assert found[key("batch_rows_bucket", le="4.0")] == 4.0
    assert key("batch_rows_bucket", le="2.0") not in found


def test_under_load_nobody_is_counted_twice(watched: Server, rows: list[Row]) -> None:
    def load() -> None:
        with ThreadPoolExecutor(16) as pool:
            answers = pool.map(lambda _: post_v1(watched, {"instances": rows}), range(160))
            assert {answer.status_code for answer in answers} == {200}

    found = grown(watched, load)
    assert (found[key("batch_requests_sum")], found[key("batch_rows_sum")]) == (160.0, 480.0)
    assert found[key("batch_requests_count")] == found[key("batch_rows_count")] <= 160.0


def test_what_waits_and_what_is_not_answered_is_told(watched: Server, rows: list[Row]) -> None:
    body = {"instances": [list(row.values()) for row in rows] * LONG}
    assert series(watched)[key("requests_in_flight")] == 1.0  # that for the metrics
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(post_v1, watched, body) for _ in range(2)]
        seen = []
        while not all(one.done() for one in asked):
            found = series(watched)
            seen.append((found[key("queue_depth")], found[key("requests_in_flight")]))
            time.sleep(0.01)
        assert {one.result().status_code for one in asked} == {200}
    assert (1.0, 3.0) in seen  # one is computed, one waits, one asks for the metrics
    found = series(watched)
    assert (found[key("queue_depth")], found[key("requests_in_flight")]) == (0.0, 1.0)


def test_requests_by_grpc_are_in_flight_too(watched: Server, rows: list[Row]) -> None:
    request = request_of(watched, arrays(rows * LONG), binary=True).to_grpc()
    thread = threading.Thread(target=call_grpc, args=(watched, "ModelInfer", request))
    thread.start()
    most = 0.0
    while thread.is_alive():
        most = max(most, series(watched)[key("requests_in_flight")])
    assert most == 2.0


def test_who_has_left_is_not_computed(watched: Server, rows: list[Row]) -> None:
    body = json.dumps({"instances": [list(row.values()) for row in rows] * LONG}).encode()
    path = f"/v1/models/{NAME}:predict"

    def come_and_go() -> None:
        first = threading.Thread(target=watched.client.post, args=(path,), kwargs={"content": body})
        first.start()
        wait_for(lambda: series(watched)[key("requests_in_flight")] == 2.0)
        with socket.create_connection(("127.0.0.1", watched.http_port)) as connection:
            connection.sendall(http("POST", path, body))
            wait_for(lambda: series(watched)[key("queue_depth")] == 1.0)
        first.join()
        wait_for(lambda: series(watched)[key("requests_in_flight")] == 1.0)

    found = grown(watched, come_and_go)
    assert found[key("batch_rows_sum")] == 3.0 * LONG
    assert found[key("requests_total", protocol="v1", route="predict", code="499")] == 1.0


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def test_the_model_is_told(watched: Server, bundles: dict[str, Bundle]) -> None:
    manifest = bundles[NAME].manifest
    labels = {"semver": "1.2.3", "version": "7", "run_id": manifest.run_id, "slot": "green"}
    assert series(watched)[key("model_info", name=NAME, **labels)] == 1.0


def test_only_the_model_that_is_served_is_told() -> None:
    telemetry = ServerMetrics("blue", CollectorRegistry())
    for version in ("7", "8"):
        telemetry.serve(manifest_of(table_of(), version=version))
    (sample,) = [one for family in telemetry.registry.collect() for one in family.samples if "_info" in one.name]
    assert (sample.labels["version"], sample.labels["slot"], sample.value) == ("8", "blue", 1.0)


def test_what_clients_choose_makes_no_new_series(watched: Server, rows: list[Row]) -> None:
    """200 random paths, models, versions, methods, events and ids are counted together."""
    client, channel = watched.client, grpc.insecure_channel(watched.grpc_url)

    def ask(number: int) -> None:
        name = f"x{number}"
        for method, path in [
            ("GET", f"/{name}"),
            ("GET", f"/v1/models/{name}"),
            ("GET", f"/v2/models/{name}/ready"),
            ("GET", f"/v2/models/{NAME}/versions/{name}"),
            ("POST", f"/v1/models/{name}:predict"),
            ("POST", f"/v2/models/{NAME}/versions/{name}/infer"),
            ("POST", f"/v2/repository/models/{name}/load"),
            (name.upper(), f"/v1/models/{NAME}"),
            ("GET", f"/v2/health/live?{name}={name}"),
        ]:
            client.request(method, path)
        event = EVENT | {"ce-id": name, "ce-type": name, "ce-source": name, "x-request-id": name}
        client.post(f"/v1/models/{NAME}:predict", json={"instances": rows}, headers=event)
        for service in ("inference.GRPCInferenceService", name):
            with suppress(grpc.RpcError):
                channel.unary_unary(f"/{service}/{name}")(b"", timeout=10)
        with suppress(grpc.RpcError):
            call_grpc(watched, "ModelReady", pb.ModelReadyRequest(name=name, version=name))

    with channel:
        ask(0)
        before = series(watched)
        for number in range(1, 200):
            ask(number)
    after = series(watched)
    assert {one for one in after if one not in before} == set()
    assert not any("x17" in value for _, labels in after for _, value in labels)
