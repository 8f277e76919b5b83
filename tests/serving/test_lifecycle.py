"""Shutdown of a server and reload of its bundle: every accepted request gets a response."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.serving.rest.listener import LINGER_SECONDS
from model_name.training.export import set_version
from tests.support.prediction_logs import lines

if TYPE_CHECKING:
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

CLIENTS = 200
ATTEMPTS = 4
STALL_SAMPLE_SECONDS = 0.02


@pytest.fixture
def bundle_copy(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    """Copy a bundle, so that a test may change it."""
    return Path(shutil.copytree(bundles["regression"].directory, tmp_path / "bundle"))


class Outcomes:
    """Outcomes of the requests of many clients."""

    def __init__(self) -> None:
        self.responses = 0
        self.refused = 0
        self.lost: Counter[str] = Counter()


async def request_until_refused(server: Server, body: bytes, outcomes: Outcomes, *, keep_alive: bool) -> None:
    """Send one request after another, on one connection or on many, until a connection is refused."""
    head = (
        f"POST /v1/models/{server.name}:predict HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n" + ("" if keep_alive else "connection: close\r\n") + "\r\n"
    ).encode()
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        except ConnectionRefusedError:
            outcomes.refused += 1
            return
        except OSError as err:
            outcomes.lost[f"connect: {type(err).__name__}"] += 1
            return
        try:
            while True:
                writer.write(head + body)
                await writer.drain()
                status = await reader.readline()
                headers = await reader.readuntil(b"\r\n\r\n")
                length = int(headers.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                response = json.loads(await reader.readexactly(length))
                assert status.split()[1] == b"200", response
                outcomes.responses += 1
                if b"connection: close" in headers.lower():
                    break
        except (OSError, asyncio.IncompleteReadError) as err:
            outcomes.lost[f"{type(err).__name__}: {err}"] += 1
        finally:
            writer.close()


async def longest_stall() -> float:
    """Measure until cancelled how long this process was kept from running; return the longest time in seconds."""
    longest = 0.0
    try:
        while True:
            started = time.monotonic()
            await asyncio.sleep(STALL_SAMPLE_SECONDS)
            longest = max(longest, time.monotonic() - started - STALL_SAMPLE_SECONDS)
    except asyncio.CancelledError:
        return longest


def shut_down_under_load(server: Server, body: bytes) -> tuple[Outcomes, float]:
    """Stop a server while many clients send requests; return their outcomes and the longest stall of the clients."""
    outcomes = Outcomes()

    async def scenario() -> float:
        monitor = asyncio.create_task(longest_stall())
        clients = [
            asyncio.create_task(request_until_refused(server, body, outcomes, keep_alive=number % 2 == 0))
            for number in range(CLIENTS)
        ]
        await asyncio.sleep(1.5)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        monitor.cancel()
        return await monitor

    return outcomes, asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.parametrize("drain", [pytest.param("1", id="with a drain period"), pytest.param("0", id="without")])
def test_shutdown_loses_no_request_of_two_hundred_clients(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], drain: str, tmp_path: Path
) -> None:
    body = json.dumps({"instances": rows}).encode()
    for attempt in range(ATTEMPTS):
        # given
        log = tmp_path / str(attempt)
        options = ("--drain_seconds", drain, "--prediction_log", str(log))
        server = start_server(bundles["regression"].directory, "regression", *options).wait()
        # when
        outcomes, stall_seconds = shut_down_under_load(server, body)
        # A connection without a request for LINGER_SECONDS is closed. Clients that a busy machine stalls for about as
        # long send into closed connections: that says nothing about the server, and the attempt is repeated.
        if not outcomes.lost or stall_seconds < LINGER_SECONDS / 2:
            break
    # then
    assert server.process.wait(20) == 0
    assert not outcomes.lost, f"the clients were stalled for {stall_seconds:.2f} s at most"
    assert outcomes.refused == CLIENTS
    assert outcomes.responses > CLIENTS
    assert len(lines(log)) == outcomes.responses * len(rows)  # the prediction log was flushed


def test_grpc_finishes_pending_calls_and_reports_the_shutdown(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    # given
    server = start_server(bundles["regression"].directory, "regression", "--drain_seconds", "1").wait()
    request = pb.ModelInferRequest(model_name="regression")
    for name, value in rows[0].items():
        contents = {"bytes_contents": [value.encode()]} if isinstance(value, str) else {"fp64_contents": [float(value)]}
        kind = "BYTES" if isinstance(value, str) else "FP64"
        request.inputs.add(name=name, datatype=kind, shape=[1], contents=pb.InferTensorContents(**contents))
    codes: Counter[Any] = Counter()

    async def client() -> None:
        async with grpc.aio.insecure_channel(server.grpc_url, options=[("grpc.enable_retries", 0)]) as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer", pb.ModelInferRequest.SerializeToString
            )
            while True:
                try:
                    await infer(request, timeout=20)
                    codes["answered"] += 1
                except grpc.aio.AioRpcError as err:
                    codes[err.code(), err.details()] += 1
                    return

    async def health(channel: Any) -> int:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return int((await check(b""))[1])

    async def scenario() -> tuple[int, int]:
        clients = [asyncio.create_task(client()) for _ in range(20)]
        async with grpc.aio.insecure_channel(server.grpc_url) as channel:
            before = await health(channel)
            await asyncio.sleep(1)
            # when
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            after = await health(channel)
        await asyncio.gather(*clients)
        return before, after

    before, after = asyncio.run(asyncio.wait_for(scenario(), 60))
    # then
    assert (before, after) == (1, 2)  # SERVING, NOT_SERVING
    assert server.process.wait(20) == 0
    assert codes.pop("answered") > 20
    assert {code for code, _ in codes} == {grpc.StatusCode.UNAVAILABLE}


def test_a_draining_server_responds_but_is_not_ready(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    server = start_server(bundles["regression"].directory, "regression", "--drain_seconds", "3").wait()
    paths = ("/v2/health/live", "/v2/health/startup", "/v2/health/ready", "/v2/models/regression/ready")
    assert [server.client.get(path).status_code for path in paths] == [200] * 4
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert [httpx.get(server.url + path).status_code for path in paths] == [200, 200, 503, 503]
    response = httpx.post(f"{server.url}/v1/models/regression:predict", json={"instances": rows})
    assert (response.status_code, response.headers["connection"]) == (200, "close")
    server.process.send_signal(signal.SIGTERM)  # a second one ends the drain period
    assert server.process.wait(2) == 0


# Reload


def version_of(server: Server, rows: list[Row]) -> tuple[str, str]:
    response = server.client.post(f"/v1/models/{server.name}:predict", json={"instances": rows})
    assert response.status_code == 200, response.text
    return response.headers["x-model-version"], response.headers["x-model-semver"]


def wait_for(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def test_a_new_bundle_is_reloaded_under_load_and_a_broken_one_is_refused(
    bundle_copy: Path, start_server: StartServer, rows: list[Row], planes: dict[str, DataPlane]
) -> None:
    # given
    server = start_server(bundle_copy, "regression", "--watch_seconds", "0.2").wait()
    expected = planes["regression"].predict_rows(rows).prediction.tolist()
    assert version_of(server, rows) == ("7", "1.2.3")
    counts: Counter[tuple[int, str, str, bool]] = Counter()
    is_over = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=server.url) as client:
            while not is_over.is_set():
                response = client.post("/v1/models/regression:predict", json={"instances": rows})
                is_correct = response.json().get("predictions") == expected
                headers = response.headers
                counts[response.status_code, headers["x-model-version"], headers["x-model-semver"], is_correct] += 1

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    # when
    manifest = (bundle_copy / "bundle.json").read_text(encoding="utf-8")
    (bundle_copy / "bundle.json").write_text(manifest[: len(manifest) // 2], encoding="utf-8")
    wait_for(lambda: "the new bundle is refused, version 7 stays in service" in server.output())
    assert version_of(server, rows) == ("7", "1.2.3")
    write_bundle(bundle_copy, manifest, semver="1.3.0", version="8")
    wait_for(lambda: version_of(server, rows) == ("8", "1.3.0"))
    is_over.set()
    for thread in threads:
        thread.join()
    # then
    assert {key[:3] for key in counts} == {(200, "7", "1.2.3"), (200, "8", "1.3.0")}
    assert all(is_correct for *_, is_correct in counts)
    metrics = server.client.get("/metrics").text
    assert 'model_name_model_info{name="regression",run_id="' in metrics
    assert 'semver="1.3.0"' in metrics
    assert 'semver="1.2.3"' not in metrics
    assert 'model_name_bundle_loads_total{result="refused"} 1.0' in metrics


def write_bundle(directory: Path, manifest: str, *, semver: str, version: str) -> None:
    (directory / "bundle.json").write_text(manifest, encoding="utf-8")
    set_version(Bundle.load(directory), semver=semver, version=version)
