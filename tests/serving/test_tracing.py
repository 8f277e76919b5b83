"""Traces of requests over every protocol, as a real OTLP receiver gets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from model_name.errors import ConfigError
from model_name.serving.batching.request_trace import parse_trace_id
from model_name.serving.tracing import exporter_names, is_tracing_requested
from tests.support.clients import kserve_request, to_arrays, to_json_tensors
from tests.support.collectors import Collector, ReceivedSpan, run_collector
from tests.support.sockets import exchange, http_request, parse_responses

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

NAME = "regression"
PREDICT, INFER = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
SERVER_KIND, ERROR = 2, 2  # numbers of OTLP
PHASES = ["queue", "decode", "compute", "encode"]
PARENT_ID = "b7ad6b7169203331"
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "tests", "ce-type": "flat"}
OTEL_ENV = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_SERVICE_NAME": "flats",
    "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests",
}

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `tracing` is not installed")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Run a receiver."""
    with run_collector() as running:
        yield running


def start_traced(
    bundles: dict[str, Bundle], start_server: StartServer, env: dict[str, str], *args: str, **variables: str
) -> Server:
    """Start a server with some variables of OpenTelemetry in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setitem(env, name, value)
        return start_server(bundles[NAME].directory, NAME, *args)


@pytest.fixture(scope="module")
def server(
    bundles: dict[str, Bundle], start_server: StartServer, serving_env: dict[str, str], collector: Collector
) -> Server:
    """Start a server that exports to the receiver."""
    variables = OTEL_ENV | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    return start_traced(bundles, start_server, serving_env, "--slot", "blue", **variables).wait()


def new_parent(number: int, *, is_sampled: bool = True) -> tuple[str, str]:
    """Make a trace id and the `traceparent` of a client."""
    trace_id = f"0af7651916cd43dd{number:016x}"
    return trace_id, f"00-{trace_id}-{PARENT_ID}-0{int(is_sampled)}"


def assert_nested(spans: dict[str, ReceivedSpan], root: ReceivedSpan) -> None:
    """Check that the phases are children of a span, one after the other within its time."""
    phases = [spans[name] for name in PHASES]
    assert [phase.parent_id for phase in phases] == [root.span_id] * len(PHASES)
    times = [root.start, *[moment for phase in phases for moment in (phase.start, phase.end)], root.end]
    assert times == sorted(times)
    assert abs(root.end / 1e9 - time.time()) < 60


@pytest.mark.parametrize(
    ("kind", "number"), [pytest.param(kind, number, id=kind) for number, kind in enumerate(["V1", "V2", "event"], 1)]
)
@pytest.mark.parametrize("is_whole", [True, False], ids=["fast path", "ASGI"])
def test_a_request_over_http_continues_the_trace_of_its_client(
    server: Server, collector: Collector, rows: list[Row], kind: str, number: int, is_whole: bool
) -> None:
    # given
    trace_id, traceparent = new_parent(2 * number + is_whole)
    body: Any = {"inputs": to_json_tensors(rows[:1])} if kind == "V2" else {"instances": rows}
    path, route = (
        (INFER, "/v2/models/{model_name}/infer") if kind == "V2" else (PREDICT, "/v1/models/{model_name}:predict")
    )
    event = [f"{name}: {value}" for name, value in EVENT.items()] if kind == "event" else []
    headers = [*event, f"traceparent: {traceparent}", "tracestate: a=1,b=2", "x-request-id: mine", "connection: close"]
    # when
    raw = http_request("POST", path, json.dumps(body).encode(), *headers)
    cut = len(raw) if is_whole else len(raw) - 1
    (response,) = parse_responses(exchange(server.http_port, raw[:cut], raw[cut:], pause=0.02))
    # then
    spans = collector.trace(trace_id, 5)
    root = spans[f"POST {route}"]
    assert response.status == 200
    assert response.headers["traceresponse"] == f"00-{trace_id}-{root.span_id}-01"
    assert (root.parent_id, root.kind, root.status) == (PARENT_ID, SERVER_KIND, 0)
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": 200,
        "url.path": path,
        "url.scheme": "http",
        "model_name.request_id": "mine",
        "model_name.model": NAME,
        "model_name.version": "7",
        "model_name.semver": response.headers["x-model-semver"],
        "model_name.slot": "blue",
        "model_name.rows": 1 if kind == "V2" else len(rows),
        "model_name.batch_requests": 1,
    }
    assert root.resource["service.name"] == "flats"
    assert root.resource["deployment.environment.name"] == "tests"
    assert_nested(spans, root)
    if kind == "event":
        assert response.headers["ce-traceparent"] == response.headers["traceresponse"]
        assert response.headers["ce-tracestate"] == "a=1,b=2"


def test_an_event_continues_the_trace_of_its_attributes(server: Server, collector: Collector, rows: list[Row]) -> None:
    trace_id, traceparent = new_parent(20)
    headers = EVENT | {"ce-traceparent": traceparent}
    response = server.client.post(PREDICT, json={"instances": rows}, headers=headers)
    spans = collector.trace(trace_id, 5)
    assert spans["POST /v1/models/{model_name}:predict"].parent_id == PARENT_ID
    assert response.headers["ce-traceparent"] == response.headers["traceresponse"]


def test_a_call_of_grpc_continues_the_trace_of_its_client(
    server: Server, collector: Collector, rows: list[Row]
) -> None:
    # given
    trace_id, traceparent = new_parent(21)
    message = kserve_request(server, to_arrays(rows), binary=True).to_grpc()
    # when
    with grpc.insecure_channel(server.grpc_url) as channel:
        _, call = GRPCInferenceServiceStub(channel).ModelInfer.with_call(
            message, timeout=30, metadata=[("traceparent", traceparent), ("x-request-id", "mine")]
        )
    # then
    spans = collector.trace(trace_id, 5)
    root = spans["inference.GRPCInferenceService/ModelInfer"]
    assert dict(call.trailing_metadata())["traceresponse"] == f"00-{trace_id}-{root.span_id}-01"
    assert (root.parent_id, root.kind, root.status) == (PARENT_ID, SERVER_KIND, 0)
    expected = {"rpc.system": "grpc", "rpc.response.status_code": "OK", "rpc.grpc.status_code": 0}
    expected |= {"model_name.rows": len(rows), "model_name.request_id": "mine"}
    assert root.attributes.items() >= expected.items()
    assert_nested(spans, root)


@pytest.mark.parametrize(
    ("content", "path", "status", "error_type", "phases"),
    [
        pytest.param(b"{", PREDICT, 400, "DataError", ["queue", "decode"], id="a body that is not decoded"),
        pytest.param(b'{"instances": [{}]}', PREDICT, 400, "DataError", ["queue", "decode", "compute"], id="a bad row"),
        pytest.param(b"{}", f"/v1/models/{NAME}:explain", 501, "UnsupportedOperationError", [], id="unsupported"),
    ],
)
def test_a_refused_request_has_a_span_with_its_error(
    server: Server, collector: Collector, content: bytes, path: str, status: int, error_type: str, phases: list[str]
) -> None:
    trace_id, traceparent = new_parent(30 + len(phases))
    response = server.client.post(path, content=content, headers={"traceparent": traceparent})
    spans = collector.trace(trace_id, 1 + len(phases))
    (root,) = [span for span in spans.values() if span.parent_id == PARENT_ID]
    assert response.status_code == root.attributes["http.response.status_code"] == status
    assert root.attributes["error.type"] == error_type
    assert root.status == (ERROR if status >= 500 else 0)
    assert sorted(spans.keys() - {root.name}) == sorted(phases)
    line = f"(request {response.headers['x-request-id']}, trace {trace_id})"
    assert any(line in logged for logged in server.output().splitlines())


def test_requests_of_one_batch_have_spans_of_their_own(server: Server, collector: Collector, rows: list[Row]) -> None:
    # given
    parents = [new_parent(number) for number in range(40, 44)]
    body = json.dumps({"instances": rows}).encode()
    bad = b'{"instances": [{}]}'
    requests = [
        http_request("POST", PREDICT, bad if number == 1 else body, f"traceparent: {traceparent}")
        for number, (_, traceparent) in enumerate(parents)
    ]
    # when
    responses = parse_responses(exchange(server.http_port, b"".join(requests), seconds=2))
    # then
    assert [response.status for response in responses] == [200, 400, 200, 200]
    for number, (trace_id, _) in enumerate(parents):
        spans = collector.trace(trace_id, 4 if number == 1 else 5)
        assert spans.keys() >= {"queue", "decode", "compute"}
        assert ("encode" in spans) is (number != 1)


def test_unsampled_requests_and_probes_export_nothing(server: Server, collector: Collector, rows: list[Row]) -> None:
    # given
    unsampled_id, unsampled = new_parent(50, is_sampled=False)
    probe_id, probe = new_parent(51)
    # when
    response = server.client.post(PREDICT, json={"instances": rows}, headers={"traceparent": unsampled})
    assert server.client.get("/v2/health/live", headers={"traceparent": probe}).status_code == 200
    # then
    assert response.headers["traceresponse"].split("-")[1] == unsampled_id
    assert response.headers["traceresponse"].endswith("-00")
    last_id, last = new_parent(52)
    server.client.post(PREDICT, json={"instances": rows}, headers={"traceparent": last})
    collector.trace(last_id, 5)
    assert not [span for span in collector.spans if span.trace_id in (unsampled_id, probe_id)]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param(["traceparent: 00-zz-1-01"], id="not a traceparent"),
        pytest.param([f"traceparent: {new_parent(60)[1]}", f"traceparent: {new_parent(61)[1]}"], id="two of them"),
    ],
)
def test_a_request_without_a_valid_parent_starts_a_trace(
    server: Server, collector: Collector, rows: list[Row], headers: list[str]
) -> None:
    body = json.dumps({"instances": rows}).encode()
    raw = exchange(server.http_port, http_request("POST", PREDICT, body, "connection: close", *headers))
    trace_id = parse_trace_id(parse_responses(raw)[0].headers["traceresponse"])
    root = collector.trace(trace_id, 5)["POST /v1/models/{model_name}:predict"]
    assert root.parent_id == ""
    assert not {trace_id} & {new_parent(60)[0], new_parent(61)[0]}


def test_latencies_have_exemplars_in_openmetrics(server: Server, collector: Collector, rows: list[Row]) -> None:
    # given
    trace_id, traceparent = new_parent(70)
    server.client.post(PREDICT, json={"instances": rows}, headers={"traceparent": traceparent})
    # when
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    response = server.client.get("/metrics", headers={"accept": accept})
    # then
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    exemplars = [sample.exemplar for sample in families["model_name_request_seconds"].samples if sample.exemplar]
    assert {"trace_id": trace_id} in [exemplar.labels for exemplar in exemplars]
    assert {sample.name for sample in families["model_name_requests"].samples} == {"model_name_requests_total"}
    text = server.client.get("/metrics", headers={"accept": "text/plain"})
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert trace_id not in text.text


def test_broken_collectors_affect_neither_responses_nor_the_shutdown(
    bundles: dict[str, Bundle], start_server: StartServer, serving_env: dict[str, str], rows: list[Row]
) -> None:
    def hang() -> int:
        time.sleep(60)
        return 200

    with run_collector(lambda: 503) as failing, run_collector(hang) as hanging:
        # given
        options = ["--drain_seconds", "0", "--enable_grpc", "false"]
        started = [
            start_traced(
                bundles, start_server, serving_env, *options, **OTEL_ENV, OTEL_EXPORTER_OTLP_ENDPOINT=broken.url
            )
            for broken in (failing, hanging)
        ]
        servers = [server.wait() for server in started]
        # when
        responses = [server.client.post(PREDICT, json={"instances": rows}) for server in servers for _ in range(20)]
        stopped = time.monotonic()
        for server in servers:
            server.process.send_signal(signal.SIGTERM)
        codes = [server.stop() for server in servers]
    # then
    assert {response.status_code for response in responses} == {200}
    assert max(response.elapsed.total_seconds() for response in responses) < 5
    assert codes == [0, 0]
    assert time.monotonic() - stopped < 20
    assert [server for server in servers if "Traceback" in server.output()] == []


def test_the_last_spans_are_exported_at_shutdown(
    bundles: dict[str, Bundle],
    start_server: StartServer,
    serving_env: dict[str, str],
    rows: list[Row],
    collector: Collector,
) -> None:
    variables = OTEL_ENV | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    options = ["--drain_seconds", "0", "--enable_grpc", "false"]
    server = start_traced(bundles, start_server, serving_env, *options, **variables).wait()
    trace_id, traceparent = new_parent(80)
    assert server.client.post(PREDICT, json={"instances": rows}, headers={"traceparent": traceparent}).is_success
    assert server.stop() == 0
    assert len(collector.trace(trace_id, 5)) == 5


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param(
            {"OTEL_TRACES_EXPORTER": "nobody"},
            "error: tracing: there is no exporter nobody; the package opentelemetry-exporter-nobody is missing\n"
            "  next: pip install 'model-name[tracing]', or turn tracing off: OTEL_SDK_DISABLED=true",
            id="a missing exporter",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke", "OTEL_TRACES_EXPORTER": "otlp"},
            "error: OTEL_EXPORTER_OTLP_PROTOCOL: smoke is not one of http/protobuf, grpc",
            id="an unknown protocol",
        ),
        pytest.param(
            {"OTEL_PROPAGATORS": "smoke", "OTEL_TRACES_EXPORTER": "otlp"},
            "error: tracing: a variable of the environment (OTEL_…) is invalid: ",
            id="an unknown propagator",
        ),
    ],
)
def test_a_wrong_configuration_ends_the_start(
    bundles: dict[str, Bundle],
    start_server: StartServer,
    serving_env: dict[str, str],
    variables: dict[str, str],
    message: str,
) -> None:
    server = start_traced(bundles, start_server, serving_env, **variables)
    assert server.process.wait(60) > 0
    assert message in server.output()
    assert "Traceback" not in server.output()


@pytest.mark.parametrize(
    ("option", "environ", "expected"),
    [
        pytest.param(None, {}, False, id="nothing"),
        pytest.param(True, {}, True, id="the option"),
        pytest.param(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, True, id="an endpoint"),
        pytest.param(None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, True, id="an endpoint of traces"),
        pytest.param(None, {"OTEL_TRACES_EXPORTER": "console"}, True, id="an exporter"),
        pytest.param(None, {"OTEL_SERVICE_NAME": "a"}, False, id="a name alone"),
        pytest.param(False, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, False, id="turned off by the option"),
        pytest.param(True, {"OTEL_TRACES_EXPORTER": "none"}, False, id="no exporter"),
        pytest.param(True, {"OTEL_SDK_DISABLED": "TRUE"}, False, id="a disabled SDK"),
    ],
)
def test_tracing_is_requested_by_the_option_or_the_environment(
    option: bool | None, environ: dict[str, str], expected: bool
) -> None:
    assert is_tracing_requested(option, environ) is expected


def test_exporters_are_those_of_the_environment() -> None:
    assert exporter_names({}) == ["otlp_proto_http"]
    assert exporter_names({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) == ["otlp_proto_grpc"]
    assert exporter_names({"OTEL_TRACES_EXPORTER": "console, otlp"}) == ["console", "otlp_proto_http"]
    with pytest.raises(ConfigError, match="smoke is not one of http/protobuf, grpc"):
        exporter_names({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "smoke"})


def test_nothing_is_imported_without_tracing() -> None:
    code = "import sys, model_name.serving.__main__; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TRACEPARENTS = st.one_of(
    st.text(st.characters(exclude_categories=["C", "Z"]), max_size=80),
    st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,5})?", fullmatch=True),
    st.sampled_from([f"00-{'0' * 32}-{PARENT_ID}-01", f"ff-{'1' * 32}-{PARENT_ID}-01", f"00-{'1' * 32}-{'0' * 16}-01"]),
)


@given(TRACEPARENTS)
def test_the_trace_id_is_that_of_the_propagator(traceparent: str) -> None:
    from opentelemetry.trace import get_current_span

    context = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": traceparent})).get_span_context()
    assert parse_trace_id(traceparent) == (f"{context.trace_id:032x}" if context.is_valid else "")
