"""OTLP receivers: small HTTP servers that keep the spans which a server exports."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SPAN_SECONDS = 20.0  # for which a test waits for a span


class ReceivedSpan(NamedTuple):
    """Span as it was exported."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    status: int
    kind: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """OTLP receiver over HTTP.

    Attributes:
        spans: Received spans, in their order.
        respond: Returns the status of the response to an export; it may sleep.
    """

    def __init__(self, respond: Callable[[], int]) -> None:
        self.spans: list[ReceivedSpan] = []
        self.respond = respond
        collector = self

        class Handler(BaseHTTPRequestHandler):
            """Handler of exports."""

            def do_POST(self) -> None:
                message = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                status = collector.respond()
                if status == 200:
                    collector.spans += to_spans(message)
                body = ExportTraceServiceResponse().SerializeToString()
                with suppress(OSError):  # the server has shut down meanwhile
                    self.send_response(status)
                    self.send_header("content-type", "application/x-protobuf")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def trace(self, trace_id: str, count: int) -> dict[str, ReceivedSpan]:
        """Wait until a trace has some number of spans; return them by name."""
        deadline = time.monotonic() + SPAN_SECONDS
        while len(spans := [span for span in self.spans if span.trace_id == trace_id]) < count:
            assert time.monotonic() < deadline, f"spans of {trace_id}: {spans}"
            time.sleep(0.02)
        return {span.name: span for span in spans}


@contextmanager
def run_collector(respond: Callable[[], int] = lambda: 200) -> Iterator[Collector]:
    """Run a receiver on a free port."""
    collector = Collector(respond)
    thread = threading.Thread(target=collector.server.serve_forever, daemon=True)
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def to_spans(message: Any) -> list[ReceivedSpan]:
    """Read the spans of an export."""
    return [
        ReceivedSpan(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code,
            span.kind,
            to_dict(span.attributes),
            to_dict(resource_spans.resource.attributes),
        )
        for resource_spans in message.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def to_dict(attributes: Any) -> dict[str, Any]:
    """Read attributes."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}
