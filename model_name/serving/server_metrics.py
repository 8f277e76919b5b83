"""Prometheus metrics of a server. No label takes a value that a client chooses."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from time import time

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from typing_extensions import override

from model_name.serving.bundle import Manifest
from model_name.serving.prediction_log.log import PredictionLog

LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 65536, 262144)


class ServerMetrics:
    """Metrics of one server.

    Attributes:
        in_flight: Number of requests without a response yet; `RequestLifecycle` maintains it.
    """

    def __init__(self, slot: str, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics.

        Args:
            slot: Blue-green slot of the server, as a label of the model.
            registry: Registry that `/metrics` exports.
        """
        self.slot = slot
        self.registry = registry
        self._requests = RequestCollector()
        registry.register(self._requests)
        self.batch_rows = Histogram(
            "model_name_batch_rows", "Rows per forward pass.", buckets=BATCH_SIZE_BUCKETS, registry=registry
        )
        self.batch_requests = Histogram(
            "model_name_batch_requests", "Requests per batch.", buckets=BATCH_SIZE_BUCKETS[:8], registry=registry
        )
        self._queue = Gauge("model_name_queue_depth", "Requests that wait for a batch.", registry=registry)
        self._held_bytes = Gauge(
            "model_name_held_bytes",
            "Bytes of bodies in transit, queued and computed, and of responses that wait for their clients.",
            registry=registry,
        )
        self._failed_observations = Gauge(
            "model_name_failed_observations",
            "Batches that are missing in metrics and prediction log because of an error.",
            registry=registry,
        )
        self._in_flight = Gauge("model_name_requests_in_flight", "Requests without a response yet.", registry=registry)
        self.log_dropped = Counter(
            "model_name_log_dropped_rows",
            "Rows that the prediction log dropped for lack of time, memory or storage.",
            registry=registry,
        )
        self.log_written = Counter(
            "model_name_log_written_rows", "Rows written to the prediction log.", registry=registry
        )
        self.log_cpu_seconds = Counter(
            "model_name_log_cpu_seconds", "Processor time of the thread of the prediction log.", registry=registry
        )
        self._log_waiting = Gauge(
            "model_name_log_waiting_rows", "Rows that wait to be written to the prediction log.", registry=registry
        )
        self._log_probability = Gauge(
            "model_name_log_sampling_probability",
            "Probability with which the prediction log samples a request now; 0 without a log.",
            registry=registry,
        )
        self.bundle_loads = Counter(
            "model_name_bundle_loads", "Attempts to load a new bundle, by result.", ["result"], registry=registry
        )
        self._info = Gauge(
            "model_name_model_info",
            "Served model; the value is always 1.",
            ["name", "semver", "version", "run_id", "slot"],
            registry=registry,
        )
        self._connections = Gauge("model_name_connections", "Open REST connections.", registry=registry)
        self.connections_refused = Counter(
            "model_name_connections_refused",
            "REST connections beyond the maximum number; only probes are answered on them.",
            registry=registry,
        )
        self.in_flight = 0
        self._in_flight.set_function(lambda: self.in_flight)

    def bind_batcher(
        self,
        *,
        queue_depth: Callable[[], float],
        held_bytes: Callable[[], float],
        failed_observations: Callable[[], float],
    ) -> None:
        """Export the results of functions whenever the metrics are scraped.

        Args:
            queue_depth: Number of requests that wait for a batch.
            held_bytes: Number of bytes that the budget of bytes holds.
            failed_observations: Number of batches whose observer raised an error.
        """
        self._queue.set_function(queue_depth)
        self._held_bytes.set_function(held_bytes)
        self._failed_observations.set_function(failed_observations)

    def bind_connections(self, connections: Callable[[], float]) -> None:
        """Export the number of open REST connections, which a function returns."""
        self._connections.set_function(connections)

    def bind_log(self, log: PredictionLog) -> None:
        """Export what a prediction log drops and the state that it has when the metrics are scraped."""
        log.on_drop = self.log_dropped.inc
        self._log_waiting.set_function(lambda: log.waiting)
        self._log_probability.set_function(lambda: log.probability)

    def set_model_info(self, manifest: Manifest) -> None:
        """Export which model is served, instead of the one before."""
        self._info.clear()
        self._info.labels(manifest.name, manifest.semver, manifest.version, manifest.run_id, self.slot).set(1)

    def observe_request(self, protocol: str, route: str, code: int, seconds: float, trace_id: str = "") -> None:
        """Count a finished request. Not thread-safe; call on the event loop.

        Args:
            protocol: Protocol of the request.
            route: Name of its route.
            code: HTTP status of its response.
            seconds: Latency of the request.
            trace_id: Id of its trace, for an exemplar of its latency; empty if it is not exported.
        """
        self._requests.add(protocol, route, code, seconds, trace_id)


class RequestCollector(Collector):
    """Counts and latencies of finished requests.

    They are plain numbers until a scrape: counters of prometheus-client would take a lock and a label look-up each.
    """

    def __init__(self) -> None:
        """Start without requests."""
        self._counts: dict[tuple[str, str, int], int] = {}
        self._latencies: dict[tuple[str, str], LatencyHistogram] = {}

    def add(self, protocol: str, route: str, code: int, seconds: float, trace_id: str = "") -> None:
        """Count a request; see `ServerMetrics.observe_request`."""
        key = (protocol, route, code)
        self._counts[key] = self._counts.get(key, 0) + 1
        histogram = self._latencies.get((protocol, route))
        if histogram is None:
            histogram = self._latencies[protocol, route] = LatencyHistogram()
        bucket = bisect_left(LATENCY_BUCKETS_SECONDS, seconds)
        histogram.total += seconds
        histogram.buckets[bucket] += 1
        if trace_id:
            histogram.exemplars[bucket] = (Exemplar({"trace_id": trace_id}, seconds, time()),)

    @override
    def collect(self) -> Iterator[Metric]:
        labels = ("protocol", "route")
        counts = CounterMetricFamily("model_name_requests", "Finished requests.", labels=(*labels, "code"))
        for (protocol, route, code), count in tuple(self._counts.items()):
            counts.add_metric((protocol, route, str(code)), count)
        latencies = HistogramMetricFamily(
            "model_name_request_seconds", "Time from the headers of a request to its response.", labels=labels
        )
        bounds = (*map(str, map(float, LATENCY_BUCKETS_SECONDS)), "+Inf")
        for key, histogram in tuple(self._latencies.items()):
            buckets = [
                (bound, count, *histogram.exemplars.get(number, ()))
                for number, (bound, count) in enumerate(zip(bounds, accumulate(histogram.buckets), strict=True))
            ]
            latencies.add_metric(key, buckets, histogram.total)
        yield counts
        yield latencies


@dataclass(slots=True)
class LatencyHistogram:
    """Histogram of the latencies of one route.

    Attributes:
        total: Sum of the latencies in seconds.
        buckets: Number of requests per bucket, not cumulative; the last one is above all bounds.
        exemplars: Last traced request of each bucket that has one.
    """

    total: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_SECONDS) + 1))
    exemplars: dict[int, tuple[Exemplar]] = field(default_factory=dict)
