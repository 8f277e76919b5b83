"""Lifecycle of a request of any protocol: count it in, authenticate, time, log its error, count it out, observe it.

It is written once, so that REST on its fast path, REST over ASGI and gRPC differ only in their wire formats.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from types import TracebackType
from typing import Self

from model_name.errors import ModelNameError
from model_name.serving.context import ServerContext
from model_name.serving.request_errors import ClientDisconnectedError
from model_name.serving.tracing import RequestSpan, SpanEnd, SpanStart

VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
REQUEST_ID_HEADER = "x-request-id"


def choose_request_id(given: str | bytes | None, generate: Callable[[], str]) -> str:
    """Choose the id of a request: that of the client if it is safe in a header and in a log, else a new one.

    Args:
        given: Id that the client sent, if any.
        generate: Generates a new id.
    """
    if given:
        text = given if isinstance(given, str) else given.decode("ascii", "replace")
        if VALID_REQUEST_ID.fullmatch(text):
            return text
    return generate()


@dataclass(frozen=True, slots=True)
class RouteLabels:
    """Labels of a route in metrics and logs, and whether it requires authentication.

    Attributes:
        name: Name of the route.
        protocol: Name of the protocol, unless the request turns out to be of another one.
        is_public: Whether clients need no token.
    """

    name: str
    protocol: str
    is_public: bool = False


class RequestLifecycle(ABC):
    """One request from its headers to its response; each transport has a subclass.

    A coroutine runs inside `with request:`. Code with callbacks calls `begin`, then `fail` or `end`. Not thread-safe;
    call on the event loop.

    Attributes:
        context: Objects that all requests share.
        id: Id of the request, in its response, in the log line of its error and, unless its body has one, in the
            prediction log.
        route: Labels of the route.
        protocol: Protocol of the request in metrics and logs.
        started: Time at which the headers were complete, by `perf_counter`.
        status: HTTP status with which the request ends, unless an error says otherwise.
        span: Span of the request; None if tracing is off or the route is public: probes are not traced.
    """

    __slots__ = ("context", "id", "protocol", "route", "span", "started", "status")

    def __init__(self, context: ServerContext, route: RouteLabels, given_id: str | bytes | None = None) -> None:
        """Start the clock of a request and choose its id.

        Args:
            context: Objects that all requests share.
            route: Labels of the route.
            given_id: Id that the client sent, if any.
        """
        self.context = context
        self.id = choose_request_id(given_id, context.next_request_id)
        self.route = route
        self.protocol = route.protocol
        self.status: int = HTTPStatus.OK
        self.span: RequestSpan | None = None
        self.started = perf_counter()

    @abstractmethod
    def metadata(self) -> Iterable[tuple[str | bytes, str | bytes]]:
        """Return the headers of the request, or its gRPC metadata; names in lower case."""

    @abstractmethod
    def describe_start(self) -> SpanStart:
        """Describe the span of the request when it starts. Called only if tracing is on."""

    @abstractmethod
    def describe_end(self, status: int, err: BaseException | None) -> SpanEnd:
        """Describe the span of the request when it ends. Called only if the request is traced.

        Args:
            status: HTTP status of the response.
            err: Error with which the request ends, if any.
        """

    def begin(self) -> None:
        """Count the request in, and start its span if tracing is on."""
        context = self.context
        context.metrics.in_flight += 1
        if context.tracing is not None and not self.route.is_public:
            self.span = context.tracing.start(self.describe_start(), self.metadata(), self.started)

    def authenticate(self) -> None:
        """Check the token of the client, if there is one and the route is not public.

        Raises:
            UnauthorizedError: The request has no token, or a wrong one.
        """
        auth = self.context.auth
        if auth.is_enabled and not self.route.is_public:
            auth.authenticate(self.metadata())

    def fail(self, err: ModelNameError) -> None:
        """Log the error of the request and count it out."""
        trace_id = "" if self.span is None else self.span.trace.trace_id
        self.context.error_log.log(f"{self.protocol} {self.route.name}", err, self.id, trace_id)
        self.end(err.http_status, err)

    def end(self, status: int, err: BaseException | None = None) -> None:
        """Count the request out, observe its latency and end its span."""
        metrics, span = self.context.metrics, self.span
        metrics.in_flight -= 1
        seconds = perf_counter() - self.started
        if span is None:
            metrics.observe_request(self.protocol, self.route.name, status, seconds)
            return
        trace_id = span.trace.trace_id if span.trace.is_sampled else ""
        metrics.observe_request(self.protocol, self.route.name, status, seconds, trace_id)
        span.end(self.describe_end(status, err), self.id, self.context.manifest)

    def __enter__(self) -> Self:
        """Count the request in."""
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the request with `status`, or with that of the error, which propagates."""
        if err is None:
            self.end(self.status)
        elif isinstance(err, ModelNameError):
            self.fail(err)
        elif isinstance(err, asyncio.CancelledError):  # gRPC cancels the handler of a client that disconnects
            self.end(ClientDisconnectedError.http_status, err)
        else:
            self.end(HTTPStatus.INTERNAL_SERVER_ERROR, err)
