"""Prediction log of a server process: its metrics, what SIGKILL loses, and a location that cannot be written."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from model_name.errors import ConfigError
from model_name.io.prediction_log_reader import read_predictions
from model_name.serving.prediction_log.log import LogSettings
from tests.support.counts import count
from tests.support.prediction_logs import files, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

NAME = "regression"
CLIENTS = 4
LOAD_SECONDS = count(reduced=3, full=20)
FLUSH_SECONDS = LogSettings(url="x").flush_seconds
STALL_SECONDS = 2.0  # for which a busy machine may stop the server; the log is then late by no fault of its own


class Load:
    """Clients that post a row each, one after the other, and record the ids and the times of the responses.

    Attributes:
        answered: Time of the response by the id of the request.
    """

    def __init__(self, server: Server, row: Row) -> None:
        """Start the clients."""
        self.answered: dict[str, float] = {}
        self._server = server
        self._body = json.dumps({"instances": [row]})
        self._is_stopped = False
        self._threads = [threading.Thread(target=self._post, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the clients after their current request."""
        self._is_stopped = True
        for thread in self._threads:
            thread.join()

    def _post(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.http_port, timeout=20)
        number = 0
        with suppress(OSError, http.client.HTTPException):  # the server was killed
            while not self._is_stopped:
                number += 1
                name = f"{client}-{number}"
                connection.request("POST", f"/v1/models/{NAME}:predict", self._body, {"x-request-id": name})
                response = connection.getresponse()
                assert response.status == http.client.OK
                response.read()
                self.answered[name] = time.monotonic()
        connection.close()


def log_metrics(server: Server) -> dict[str, float]:
    """Scrape the metrics of the log."""
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    prefix = "model_name_log_"
    return {each.name.removeprefix(prefix): each.value for each in samples if each.name.startswith(prefix)}


def test_sigkill_loses_at_most_the_rows_of_the_flush_interval(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], tmp_path: Path
) -> None:
    # Given a server under load
    server = start_server(bundles[NAME].directory, NAME, "--prediction_log", str(tmp_path)).wait()
    load = Load(server, rows[0])
    time.sleep(LOAD_SECONDS)
    metrics = log_metrics(server)
    # When it is killed
    killed_at = time.monotonic()
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    load.stop()
    # Then all requests are in the log but those that were answered in the last moments
    logged = set(read_predictions(str(tmp_path))["request_id"])
    lost = {name: killed_at - answered for name, answered in load.answered.items() if name not in logged}
    oldest = max(lost.values(), default=0.0)
    print(f"{len(lost)} of {len(load.answered)} rows were lost; the oldest was {oldest:.2f} s old")  # noqa: T201
    assert len(load.answered) > LOAD_SECONDS * 20
    assert oldest < FLUSH_SECONDS + STALL_SECONDS
    # and nothing was sampled or dropped
    assert (metrics["sampling_probability"], metrics["dropped_rows_total"]) == (1.0, 0.0)


def test_a_storage_that_does_not_answer_does_not_keep_a_server_alive(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], tmp_path: Path
) -> None:
    # Given a server whose file cannot be opened any more: a pipe without a reader
    args = ["--prediction_log", str(tmp_path), "--drain_seconds", "0", "--log_flush_seconds", "0.5"]
    server = start_server(bundles[NAME].directory, NAME, *args).wait()
    body = {"instances": rows[:1]}
    assert server.client.post(f"/v1/models/{NAME}:predict", json=body).status_code == http.client.OK
    wait_for(lambda: log_metrics(server)["written_rows_total"] == 1)
    (path,) = files(tmp_path)
    path.unlink()
    os.mkfifo(path)
    # When it has answered further requests and receives SIGTERM
    for _ in range(7):
        assert server.client.post(f"/v1/models/{NAME}:predict", json=body).status_code == http.client.OK
    started = time.monotonic()
    code = server.stop()
    # Then it ends soon, and says how many rows are lost
    assert code == 0
    assert time.monotonic() - started < 10
    assert "closed with 7 rows unwritten" in server.output()


def test_the_metrics_count_what_is_written_and_what_waits(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], tmp_path: Path
) -> None:
    # Given a server that logs half of the requests
    args = ["--prediction_log", str(tmp_path), "--log_sampling", "0.5", "--drain_seconds", "0"]
    server = start_server(bundles[NAME].directory, NAME, *args).wait()
    idle = log_metrics(server)
    assert (idle["written_rows_total"], idle["waiting_rows"], idle["sampling_probability"]) == (0, 0, 0.5)
    # When it has answered requests
    for _ in range(40):
        assert server.client.post(f"/v1/models/{NAME}:predict", json={"instances": rows}).status_code == 200
    # Then the sampled rows are counted once they are in files, and the processor time that this took
    wait_for(lambda: log_metrics(server)["written_rows_total"] > 0 and log_metrics(server)["waiting_rows"] == 0)
    wait_for(lambda: log_metrics(server)["written_rows_total"] == len(read_predictions(str(tmp_path))))
    assert log_metrics(server)["cpu_seconds_total"] > 0
    assert server.stop() == 0
    table = read_predictions(str(tmp_path))
    assert {*table["weight"]} == {2.0}
    assert {*table.groupby("request_id").size()} == {len(rows)}
    assert 0 < table["request_id"].nunique() < 40


def test_a_location_that_cannot_be_written_is_reported_at_the_start(
    bundles: dict[str, Bundle], start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    server = start_server(bundles[NAME].directory, NAME, "--prediction_log", str(tmp_path / "log"))
    assert server.process.wait(60) == ConfigError.exit_code
    assert f"error: prediction log {tmp_path / 'log'}: cannot be written: " in server.output()


@pytest.mark.parametrize("value", ["-1", "nan"])
def test_an_invalid_time_to_flush_is_reported(
    bundles: dict[str, Bundle], start_server: StartServer, tmp_path: Path, value: str
) -> None:
    args = ["--prediction_log", str(tmp_path), "--log_flush_seconds", value]
    server = start_server(bundles[NAME].directory, NAME, *args)
    assert server.process.wait(60) == ConfigError.exit_code
    assert "error: --log_flush_seconds: must be 0 or more" in server.output()
