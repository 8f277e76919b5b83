"""A server as a process: probes during a long request, and its shutdown."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from model_name.serving import server as server_module
from model_name.serving.bundle import Bundle
from model_name.serving.server import run_periodically
from tests.support.clients import (
    post_v1,
)

if TYPE_CHECKING:
    import pytest

    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row


def test_probes_are_answered_during_a_long_request(servers: dict[str, Server], rows: list[Row]) -> None:
    server = servers["regression"]
    many = [list(row.values()) for row in rows] * 40_000
    responses = []
    thread = threading.Thread(target=lambda: responses.append(post_v1(server, {"instances": many})))
    thread.start()
    waits = []
    while thread.is_alive():
        started = time.monotonic()
        assert server.client.get("/v2/health/live").status_code == 200
        waits.append(time.monotonic() - started)
        time.sleep(0.02)
    assert responses[0].status_code == 200
    assert len(responses[0].json()["predictions"]) == len(many)
    assert len(waits) > 5


def test_a_server_serves_under_a_given_name_and_shuts_down_cleanly(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    server = start_server(
        bundles["binary"].directory, "other", "--model_name", "other", "--enable_grpc", "false"
    ).wait()
    assert post_v1(server, {"instances": rows}).status_code == 200
    assert post_v1(server, {"instances": [{"area": 1}]}).status_code == 400
    assert server.stop() == 0
    log = server.output()
    assert "Traceback" not in log
    assert "WARNING model_name.serving refused: v1 predict: 400: age: column is missing" in log
    assert "Warning:" not in log


def test_periodic_work_is_repeated_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> int:
        runs = 0
        repeated = asyncio.Event()

        async def work() -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                raise OSError("too many open files")
            repeated.set()

        task = asyncio.create_task(run_periodically(work))
        await repeated.wait()
        task.cancel()
        return runs

    monkeypatch.setattr(server_module, "PERIOD_SECONDS", 0.01)
    assert asyncio.run(asyncio.wait_for(scenario(), 10)) >= 2
    assert "too many open files" in caplog.text
