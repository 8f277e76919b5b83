"""Metrics of a server after known requests; no client can add a series."""

from __future__ import annotations

import json
import socket
import struct
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
from tests.support.clients import call_grpc, kserve_request, post_v1, post_v2, to_arrays, to_json_tensors
from tests.support.manifests import manifest_of, table_of
from tests.support.sockets import http_request

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

Key = tuple[str, frozenset[tuple[str, str]]]
NAME = "binary"
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/here", "ce-type": "flat"}
LONG = 40_000  # times three rows: takes longer than a client needs to connect and disconnect


@pytest.fixture(scope="module")
def metrics_server(bundles: dict[str, Bundle], start_server: StartServer) -> Server:
    """Start a server that no other test uses."""
    return start_server(bundles[NAME].directory, NAME, "--slot", "green").wait()


def scrape(server: Server) -> dict[Key, float]:
    """Scrape all time series, by name and labels."""
    text = server.client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def key(metric: str, **labels: str) -> Key:
    return f"model_name_{metric}", frozenset(labels.items())


def deltas(server: Server, call: Callable[[], object]) -> dict[Key, float]:
    """Measure by how much each series grows during a call."""
    before = scrape(server)
    call()
    after = scrape(server)
    return {key: value - before.get(key, 0.0) for key, value in after.items() if value != before.get(key, 0.0)}


def try_grpc(server: Server, method: str, request: Any) -> None:
    with suppress(grpc.RpcError):
        call_grpc(server, method, request)


@pytest.mark.parametrize(
    ("send", "labels"),
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
        pytest.param(lambda s, rows: post_v2(s, {"inputs": to_json_tensors(rows)}), ("v2", "infer", "200"), id="V2"),
        pytest.param(lambda s, rows: post_v2(s, {}), ("v2", "infer", "400"), id="V2, refused"),
        pytest.param(
            lambda s, rows: call_grpc(s, "ModelInfer", kserve_request(s, to_arrays(rows), binary=True).to_grpc()),
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
    metrics_server: Server, rows: list[Row], send: Callable[[Server, list[Row]], object], labels: tuple[str, str, str]
) -> None:
    protocol, route, code = labels
    changes = deltas(metrics_server, lambda: [send(metrics_server, rows) for _ in range(3)])
    counted = {series: value for series, value in changes.items() if series[0] == "model_name_requests_total"}
    metrics = key("requests_total", protocol="http", route="metrics", code="200")
    assert counted == {metrics: 1.0, key("requests_total", protocol=protocol, route=route, code=code): 3.0}
    assert changes[key("request_seconds_count", protocol=protocol, route=route)] == 3.0
    assert 0 < changes[key("request_seconds_sum", protocol=protocol, route=route)] < 30


def test_batches_are_counted_by_requests_and_rows(metrics_server: Server, rows: list[Row]) -> None:
    changes = deltas(metrics_server, lambda: [post_v1(metrics_server, {"instances": rows}) for _ in range(4)])
    assert (changes[key("batch_requests_count")], changes[key("batch_requests_sum")]) == (4.0, 4.0)
    assert (changes[key("batch_rows_count")], changes[key("batch_rows_sum")]) == (4.0, 12.0)
    assert changes[key("batch_rows_bucket", le="4.0")] == 4.0
    assert key("batch_rows_bucket", le="2.0") not in changes


def test_concurrent_requests_are_counted_once(metrics_server: Server, rows: list[Row]) -> None:
    def load() -> None:
        with ThreadPoolExecutor(16) as pool:
            responses = pool.map(lambda _: post_v1(metrics_server, {"instances": rows}), range(160))
            assert {response.status_code for response in responses} == {200}

    changes = deltas(metrics_server, load)
    assert (changes[key("batch_requests_sum")], changes[key("batch_rows_sum")]) == (160.0, 480.0)
    assert changes[key("batch_requests_count")] == changes[key("batch_rows_count")] <= 160.0


def test_queue_depth_and_requests_in_flight_are_exported(metrics_server: Server, rows: list[Row]) -> None:
    body = {"instances": [list(row.values()) for row in rows] * LONG}
    assert scrape(metrics_server)[key("requests_in_flight")] == 1.0  # the scrape
    with ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(post_v1, metrics_server, body) for _ in range(2)]
        observed = []
        while not all(request.done() for request in pending):
            metrics = scrape(metrics_server)
            observed.append((metrics[key("queue_depth")], metrics[key("requests_in_flight")]))
            time.sleep(0.01)
        assert {request.result().status_code for request in pending} == {200}
    assert (1.0, 3.0) in observed  # one is computed, one is queued, one is the scrape
    metrics = scrape(metrics_server)
    assert (metrics[key("queue_depth")], metrics[key("requests_in_flight")]) == (0.0, 1.0)


def test_grpc_calls_are_counted_in_flight(metrics_server: Server, rows: list[Row]) -> None:
    request = kserve_request(metrics_server, to_arrays(rows * LONG), binary=True).to_grpc()
    thread = threading.Thread(target=call_grpc, args=(metrics_server, "ModelInfer", request))
    thread.start()
    maximum = 0.0
    while thread.is_alive():
        maximum = max(maximum, scrape(metrics_server)[key("requests_in_flight")])
    assert maximum == 2.0


def test_requests_of_disconnected_clients_are_not_computed(metrics_server: Server, rows: list[Row]) -> None:
    body = json.dumps({"instances": [list(row.values()) for row in rows] * LONG}).encode()
    path = f"/v1/models/{NAME}:predict"

    def is_second_queued() -> bool:
        metrics = scrape(metrics_server)
        return metrics[key("held_bytes")] == 2 * len(body) and metrics[key("queue_depth")] == 1.0

    def connect_and_disconnect() -> None:
        first = threading.Thread(target=metrics_server.client.post, args=(path,), kwargs={"content": body})
        first.start()
        wait_for(lambda: scrape(metrics_server)[key("requests_in_flight")] == 2.0)
        with socket.create_connection(("127.0.0.1", metrics_server.http_port)) as connection:
            connection.sendall(http_request("POST", path, body))
            wait_for(is_second_queued)
            reset_on_close(connection)  # a client that only ends its side may wait for the response
        first.join()
        wait_for(lambda: scrape(metrics_server)[key("requests_in_flight")] == 1.0)

    changes = deltas(metrics_server, connect_and_disconnect)
    assert changes[key("batch_rows_sum")] == 3.0 * LONG
    assert changes[key("requests_total", protocol="v1", route="predict", code="499")] == 1.0


def reset_on_close(connection: socket.socket) -> None:
    """Let the end of a connection be a reset, as that of a client that is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def test_the_model_is_exported(metrics_server: Server, bundles: dict[str, Bundle]) -> None:
    manifest = bundles[NAME].manifest
    labels = {"semver": "1.2.3", "version": "7", "run_id": manifest.run_id, "slot": "green"}
    assert scrape(metrics_server)[key("model_info", name=NAME, **labels)] == 1.0


def test_only_the_served_model_is_exported() -> None:
    metrics = ServerMetrics("blue", CollectorRegistry())
    for version in ("7", "8"):
        metrics.set_model_info(manifest_of(table_of(), version=version))
    (sample,) = [sample for family in metrics.registry.collect() for sample in family.samples if "_info" in sample.name]
    assert (sample.labels["version"], sample.labels["slot"], sample.value) == ("8", "blue", 1.0)


def test_values_from_clients_create_no_new_series(metrics_server: Server, rows: list[Row]) -> None:
    """Count 200 random paths, models, versions, methods, events and ids together."""
    client, channel = metrics_server.client, grpc.insecure_channel(metrics_server.grpc_url)

    def send_all(number: int) -> None:
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
            call_grpc(metrics_server, "ModelReady", pb.ModelReadyRequest(name=name, version=name))

    with channel:
        send_all(0)
        scrape(metrics_server)  # adds the series of the scrapes themselves
        before = scrape(metrics_server)
        for number in range(1, 200):
            send_all(number)
    after = scrape(metrics_server)
    assert {series for series in after if series not in before} == set()
    assert not any("x17" in value for _, labels in after for _, value in labels)
