"""Tracing of requests by OpenTelemetry, which is imported only where tracing is on.

The standard environment variables configure it: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_EXPORTER`,
`OTEL_TRACES_SAMPLER`, `OTEL_PROPAGATORS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` and those of the batch span
processor. A thread of OpenTelemetry exports the spans; those that exceed its queue are dropped, and no request waits.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from threading import Thread
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, NamedTuple

from model_name.errors import ConfigError, DependencyError
from model_name.serving.batching.request_trace import TRACEPARENT, TRACESTATE, RequestTrace
from model_name.serving.batching.requests import InferenceRequest
from model_name.serving.bundle import Manifest

if TYPE_CHECKING:
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span

logger = logging.getLogger("model_name.serving")

INSTRUMENTATION_NAME = "model_name.serving"
REQUESTING_VARIABLES = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Environment variables whose presence turns tracing on, unless `--tracing` says otherwise."""
OTLP_EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""Entry point of the OTLP exporter by protocol."""
EXPORTER_ENTRY_POINTS = "opentelemetry_traces_exporter"
EVENT_ATTRIBUTES: Mapping[str | bytes, str] = {
    prefixed: name
    for name in (TRACEPARENT, TRACESTATE)
    for prefixed in (f"ce-{name}".encode(), f"ce-{name}", f"ce_{name}")  # of HTTP, and of Kafka
}
"""Headers of a CloudEvent in binary mode that are its attributes for distributed tracing."""
FLUSH_TIMEOUT_SECONDS = 5.0
INSTALL_HINT = "pip install 'model-name[tracing]', or turn tracing off: OTEL_SDK_DISABLED=true"

Metadata = Iterable[tuple[str | bytes, str | bytes]]
Attributes = Mapping[str, str | int]


class SpanStart(NamedTuple):
    """Description of a request when its span starts.

    Attributes:
        name: Name of the span, of low cardinality.
        attributes: Attributes by the semantic conventions of the protocol.
        is_event: Whether the request may be a CloudEvent whose attributes continue a trace.
        is_message: Whether the request is a message that is consumed, rather than one whose client waits.
    """

    name: str
    attributes: Attributes
    is_event: bool = False
    is_message: bool = False


class SpanEnd(NamedTuple):
    """Description of a request when its span ends.

    Attributes:
        attributes: Attributes by the semantic conventions of the protocol.
        is_error: Whether the server failed, rather than the client.
        error_type: Class of the error; empty if there is none.
    """

    attributes: Attributes
    is_error: bool
    error_type: str


def is_tracing_requested(option: bool | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Report whether requests are to be traced.

    Args:
        option: Value of `--tracing`; None if it is not given, and the environment decides.
        environ: Environment variables.
    """
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporters == "none":
        return False
    return any(map(environ.get, REQUESTING_VARIABLES)) if option is None else option


class Tracing:
    """Starts the span of each request, and exports spans when they have ended."""

    def __init__(self, provider: "TracerProvider", propagator: "TextMapPropagator", slot: str = "") -> None:
        """Trace by a configured provider.

        Args:
            provider: Provider with the sampler, the resource and the exporters.
            propagator: Reads the trace that a request continues from its headers.
            slot: Blue-green slot of the server.
        """
        from opentelemetry import trace
        from opentelemetry.context import Context

        self.api = trace
        self.slot = slot
        self.tracer = provider.get_tracer(INSTRUMENTATION_NAME)
        self._provider = provider
        self._propagator = propagator
        fields: set[str | bytes] = {*propagator.fields, *(name.encode() for name in propagator.fields)}
        self._fields = frozenset(fields)
        self._no_parent = Context()
        self._kinds = (trace.SpanKind.SERVER, trace.SpanKind.CONSUMER)

    def start(self, start: SpanStart, metadata: Metadata, started: float) -> "RequestSpan":
        """Start the span of a request, which continues the trace of the client if its headers name one.

        Args:
            start: Description of the request.
            metadata: Headers of the request, names in lower case.
            started: Time at which the headers were complete, by `perf_counter`.
        """
        headers = propagation_headers(metadata, self._fields, is_event=start.is_event)
        parent = self._propagator.extract(headers) if headers else self._no_parent
        epoch_ns = time_ns() - int(perf_counter() * 1e9)
        at = epoch_ns + int(started * 1e9)
        span = self.tracer.start_span(
            start.name, parent, self._kinds[start.is_message], start.attributes, start_time=at
        )
        return RequestSpan(self, span, epoch_ns)

    def close(self, seconds: float) -> None:
        """Export the spans that have ended, and stop.

        Args:
            seconds: Time after which the spans that are left are dropped.
        """
        thread = Thread(target=self._provider.shutdown, name="trace-flush", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            logger.warning("the collector did not take the last spans within %g s; they are dropped", seconds)


class RequestSpan:
    """Span of one request, and the trace that its batch fills in.

    Attributes:
        trace: Ids, and the phases of the batch.
    """

    __slots__ = ("_epoch_ns", "_span", "_tracing", "trace")

    def __init__(self, tracing: Tracing, span: "Span", epoch_ns: int) -> None:
        """Keep a started span.

        Args:
            tracing: Tracing that started it.
            span: Span of OpenTelemetry.
            epoch_ns: Unix time at which `perf_counter` was 0: one per request, so that its spans fit together even if
                the clock is set meanwhile.
        """
        self._tracing = tracing
        self._span = span
        self._epoch_ns = epoch_ns
        context = span.get_span_context()
        trace_id = f"{context.trace_id:032x}"
        headers = {TRACEPARENT: f"00-{trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"}
        if context.trace_state:
            headers[TRACESTATE] = context.trace_state.to_header()
        self.trace = RequestTrace(trace_id, headers, is_sampled=span.is_recording())

    @property
    def traceresponse(self) -> str:
        """Value of the header `traceresponse`, which names the span to the client."""
        return self.trace.headers[TRACEPARENT]

    def attach(self, request: InferenceRequest) -> None:
        """Let the batch of a request that is about to be queued fill in the trace."""
        request.trace = self.trace
        request.trace_id = self.trace.trace_id
        self.trace.enqueued = perf_counter()

    def end(self, end: SpanEnd, request_id: str, manifest: Manifest) -> None:
        """End the span, with a child for each phase of the batch.

        Args:
            end: Outcome of the request.
            request_id: Id of the request.
            manifest: Manifest of the served model; that of the batch takes precedence.
        """
        span, tracing, trace = self._span, self._tracing, self.trace
        if not trace.is_sampled:
            return
        manifest = trace.manifest or manifest
        context = tracing.api.set_span_in_context(span)
        for name, (started, ended) in trace.phases.items():
            child = tracing.tracer.start_span(name, context, start_time=self._to_unix_ns(started))
            child.end(self._to_unix_ns(ended))
        span.set_attributes(
            {
                **end.attributes,
                "model_name.request_id": request_id,
                "model_name.model": manifest.name,
                "model_name.version": manifest.version,
                "model_name.semver": manifest.semver,
            }
        )
        if tracing.slot:
            span.set_attribute("model_name.slot", tracing.slot)
        if trace.phases:
            span.set_attributes({"model_name.rows": trace.rows, "model_name.batch_requests": trace.batch_requests})
        if end.error_type:
            span.set_attribute("error.type", end.error_type)
        if end.is_error:
            span.set_status(tracing.api.StatusCode.ERROR)
        span.end(self._to_unix_ns(perf_counter()))

    def _to_unix_ns(self, seconds: float) -> int:
        return self._epoch_ns + int(seconds * 1e9)


def start_tracing(service_name: str, slot: str) -> Tracing:
    """Configure OpenTelemetry by the environment.

    Args:
        service_name: Name of the service, unless the environment has one.
        slot: Blue-green slot of the server.

    Raises:
        DependencyError: A package for tracing or for the exporter is missing.
        ConfigError: A variable has an invalid value.
    """
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as err:
        raise DependencyError(f"tracing: the package {err.name} is missing", hint=INSTALL_HINT) from err
    exporters = exporter_names()
    try:
        from opentelemetry.propagate import get_global_textmap

        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service_name}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for name in exporters:
            provider.add_span_processor(_load_processor(name))
        return Tracing(provider, get_global_textmap(), slot)
    except ValueError as err:
        hint = "see docs/serving.md for the variables of tracing"
        raise ConfigError(f"tracing: a variable of the environment (OTEL_…) is invalid: {err}", hint=hint) from err


def exporter_names(environ: Mapping[str, str] = os.environ) -> list[str]:
    """List the entry points of the exporters that the environment names; that of OTLP by default.

    Raises:
        ConfigError: The protocol of OTLP is unknown.
    """
    names = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol and protocol not in OTLP_EXPORTERS:
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol} is not one of {', '.join(OTLP_EXPORTERS)}")
    otlp = OTLP_EXPORTERS[protocol or "http/protobuf"]
    return [otlp if name.strip() == "otlp" else name.strip() for name in names.split(",")]


def _load_processor(exporter_name: str) -> "SpanProcessor":
    """Create an exporter and the thread that calls it.

    Raises:
        DependencyError: No installed package has an exporter of this name.
    """
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        (entry_point, *_) = entry_points(group=EXPORTER_ENTRY_POINTS, name=exporter_name)
        exporter = entry_point.load()
    except (ImportError, ValueError) as err:
        package = f"opentelemetry-exporter-{exporter_name.replace('_', '-')}"
        message = f"tracing: there is no exporter {exporter_name}; the package {package} is missing"
        raise DependencyError(message, hint=INSTALL_HINT) from err
    return BatchSpanProcessor(exporter())


def propagation_headers(metadata: Metadata, names: frozenset[str | bytes], *, is_event: bool) -> dict[str, list[str]]:
    """Select the headers of a request that carry the context of its trace.

    A CloudEvent in binary mode may have them as attributes; those of HTTP take precedence. A client that sends several
    `traceparent` continues no trace, as W3C Trace Context defines it.

    Args:
        metadata: Headers of the request, names in lower case.
        names: Names of the headers of the propagators, as text and as bytes.
        is_event: Whether the request may be a CloudEvent.
    """
    found: dict[str, list[str]] = {}
    by_event: dict[str, list[str]] = {}
    for name, value in metadata:
        if name in names:
            found.setdefault(_to_text(name), []).append(_to_text(value))
        elif is_event and name in EVENT_ATTRIBUTES:
            by_event.setdefault(EVENT_ATTRIBUTES[name], []).append(_to_text(value))
    if TRACEPARENT not in found:
        found |= by_event
    if len(found.get(TRACEPARENT, ())) > 1:
        del found[TRACEPARENT]
    return found


def _to_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
