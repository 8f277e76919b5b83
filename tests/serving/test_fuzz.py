"""Ten thousand requests of which most are spoilt: none breaks the server, and each good one is answered as ever."""

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

from tests.support.fuzz_requests import Shot, bomb, shots
from tests.support.prediction_logs import lines
from tests.support.sockets import Answer, answers, connected, read_all, send

if TYPE_CHECKING:
    from conftest import Row, Server, StartServer

    from model_name.serving.bundle import Bundle

WARM_UP = 4000  # requests, after which the largest of each kind has been seen
GROWTH = 1.05
SETTLED = 3.0  # seconds
PATIENCE = 0.02  # seconds for what may have no answer; the metrics tell of those that come later
REFUSED = {400, 404, 405, 408, 413, 415, 431}
UNSERVED = 501  # the explainer is another server, and the repository is closed
CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
SERVICE = "inference.GRPCInferenceService"
LONGEST_REASON = 4002
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
QUIETLY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


class Attacker:
    """Sends shots to a server, and holds its answers against what it may answer."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: Counter[str] = Counter()
        self.channel = grpc.insecure_channel(server.grpc_url)

    def send(self, shot: Shot) -> None:
        if shot.manner == "grpc":
            self._call(shot)
        elif shot.manner == "tame":
            (answer,) = self._exchange(shot, seconds=30.0)
            self._check(shot, answer)
        else:
            for answer in self._exchange(shot, seconds=PATIENCE):
                self._check(shot, answer)

    def _exchange(self, shot: Shot, seconds: float) -> list[Answer]:
        with connected(self.server.http_port, seconds) as connection:
            send(connection, [shot.content])
            if shot.manner == "wild":
                raw = read_all(connection)
                is_headless = re.match(rb"HEAD |[^P]*\n\r?\nHEAD ", shot.content)  # its answer has a length and no body
                return [] if is_headless else answers(raw)
            raw = b""
            while not (found := whole(raw)):
                part = connection.recv(1 << 16)
                assert part, (shot, raw)
                raw += part
            return found

    def _check(self, shot: Shot, answer: Answer) -> None:
        self.seen[f"{shot.kind} {answer.status}"] += 1
        if shot.is_good:
            assert answer.status == 200, (shot, answer)
        if answer.status == 200:
            return
        assert answer.status in REFUSED or answer.status == UNSERVED, (shot, answer)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        if answer.body:
            reason = json.loads(answer.body)["error"]
            assert isinstance(reason, str)
            assert 0 < len(reason) <= LONGEST_REASON

    def _call(self, shot: Shot) -> None:
        method = self.channel.unary_unary(f"/{SERVICE}/{shot.target}")
        try:
            method(shot.content, timeout=30)
        except grpc.RpcError as err:
            code, details = err.code(), err.details()
            assert details, shot
        else:
            code = grpc.StatusCode.OK
        self.seen[f"grpc {code.name}"] += 1
        assert code in CODES, (shot, code, details)
        assert code == grpc.StatusCode.OK or not shot.is_good, (shot, code, details)


def whole(raw: bytes) -> list[Answer]:
    """The answers as far as they are whole."""
    try:
        return [one for one in answers(raw) if len(one.body) == int(one.headers.get("content-length", 0))]
    except ValueError:  # half a line
        return []


def resident(server: Server) -> int:
    """The memory of a server that has had the time to tidy up, in kB."""
    time.sleep(SETTLED)
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]


def failures(server: Server) -> list[str]:
    """What the metrics tell of answers that were the server's fault."""
    text = server.client.get("/metrics").text
    found = re.findall(r'model_name_requests_total\{code="(5\d\d)",protocol="(\w+)",route="(\w+)"\}', text)
    return [" ".join(one) for one in found if one[0] != str(UNSERVED)]


@pytest.mark.parametrize("task", ["regression"])
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nothing_that_is_sent_breaks_a_server(
    bundles: dict[str, Bundle], start_server: StartServer, tmp_path: Path, rows: list[Row], task: str, count: int
) -> None:
    # Given a server that notes what it predicts
    bundle = bundles[task]
    args = ["--prediction_log", str(tmp_path), "--header_seconds", "1", "--body_seconds", "1", "--drain_seconds", "0"]
    server = start_server(bundle.directory, task, *args).wait()
    expected = server.client.post(f"/v1/models/{task}:predict", json={"instances": rows}).json()
    attacker = Attacker(server)

    def attack(shot_count: int) -> None:
        @seed(shot_count)
        @settings(max_examples=shot_count, phases=[Phase.generate], **QUIETLY)
        @given(shots(bundle.manifest.table, task))
        def send_one(shot: Shot) -> None:
            attacker.send(shot)

        send_one()

    # When it is shot at, after it has seen the largest that comes
    for headers in ([], ["content-type: application/cloudevents+json"]) * 3:  # read in pieces, and at once
        attacker.send(bomb(task, *headers))
    attack(min(count, WARM_UP))
    before = resident(server)
    if count > WARM_UP:
        attack(count - WARM_UP)
    after = resident(server)
    # Then it lives, answers as before, and holds no more memory than before
    assert server.process.poll() is None
    assert server.client.post(f"/v1/models/{task}:predict", json={"instances": rows}).json() == expected
    assert failures(server) == []
    assert after <= before * GROWTH
    assert len(attacker.seen) > 12, attacker.seen
    print(before, after, attacker.seen)  # noqa: T201
    # and it ends well, with a log that can be read
    assert server.stop() == 0
    log = server.output()
    assert "Traceback" not in log
    assert re.findall(".*(?:failed|unwritten| ERROR ).*", log) == []
    records = lines(tmp_path)
    assert len(records) >= sum(n for kind, n in attacker.seen.items() if kind.split()[1] in ("200", "OK")) / 4
    assert {record["protocol"] for record in records} == {"v1", "v2", "grpc", "cloudevents"}


# The document


@pytest.mark.parametrize("task", ["regression", "multiclass"])
@pytest.mark.parametrize("count", [15, pytest.param(30, marks=pytest.mark.slow)])
def test_the_server_does_what_its_document_says(servers: dict[str, Server], task: str, count: int) -> None:
    # Given the document that a server serves
    server = servers[task]
    schema = schemathesis.openapi.from_dict(server.client.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 12
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            with suppress(Unsatisfiable):  # there is no wrong way to ask for what takes nothing
                conform(server, operation, mode, count if operation.body else 1)


def conform(
    server: Server,
    operation: schemathesis.APIOperation,
    mode: schemathesis.GenerationMode,
    count: int,
) -> None:
    """Ask as the document says, or not quite, and hold the answers against it."""

    @seed(count)
    @settings(max_examples=count, phases=[Phase.generate], **QUIETLY)
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.validate_response(case.call(base_url=server.url), checks=CHECKS)

    ask()
