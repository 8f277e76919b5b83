"""What a server tells Prometheus. No label takes a value that a client chooses."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from model_name.serving.bundle import Manifest

LATENCY_BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 65536, 262144)


class ServerMetrics:
    """The metrics of one server.

    Attributes:
        in_flight: How many requests are not answered yet; who takes one counts it.
    """

    def __init__(self, slot: str, registry: CollectorRegistry = REGISTRY) -> None:
        """Register them."""
        self.slot = slot
        self.registry = registry
        self._requests = RequestCollector()
        registry.register(self._requests)
        self.batch_rows = Histogram(
            "model_name_batch_rows", "Rows that were predicted at once.", buckets=BATCH_SIZE_BUCKETS, registry=registry
        )
        self.batch_requests = Histogram(
            "model_name_batch_requests", "Requests that were answered at once.", buckets=BATCH_SIZE_BUCKETS[:8], registry=registry
        )
        self._queue = Gauge("model_name_queue_depth", "Requests that wait to be computed.", registry=registry)
        self._in_flight = Gauge(
            "model_name_requests_in_flight", "Requests that are not answered yet.", registry=registry
        )
        self.log_dropped = Counter(
            "model_name_log_dropped_rows",
            "Rows that the prediction log had no room or no place for.",
            registry=registry,
        )
        self.log_written = Counter("model_name_log_written_rows", "Rows in the prediction log.", registry=registry)
        self.bundle_loads = Counter(
            "model_name_bundle_loads", "Bundles that were to take over, by result.", ["result"], registry=registry
        )
        self._info = Gauge(
            "model_name_model_info",
            "What is served: 1.",
            ["name", "semver", "version", "run_id", "slot"],
            registry=registry,
        )
        self.in_flight = 0
        self._in_flight.set_function(lambda: self.in_flight)

    def watch(self, *, queued: Callable[[], float]) -> None:
        """Ask this whenever the metrics are read."""
        self._queue.set_function(queued)

    def serve(self, manifest: Manifest) -> None:
        """Say what is served now."""
        self._info.clear()
        self._info.labels(manifest.name, manifest.semver, manifest.version, manifest.run_id, self.slot).set(1)

    def observe_request(self, protocol: str, route: str, code: int, seconds: float) -> None:
        """Count a request; to be called from the event loop."""
        self._requests.add(protocol, route, code, seconds)


class RequestCollector(Collector):
    """The requests that were answered: plain numbers until somebody reads them, because they are counted so often."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: dict[tuple[str, str, int], int] = {}
        self._times: dict[tuple[str, str], LatencyHistogram] = {}

    def add(self, protocol: str, route: str, code: int, seconds: float) -> None:
        """Count one."""
        key = (protocol, route, code)
        self._counts[key] = self._counts.get(key, 0) + 1
        times = self._times.get((protocol, route))
        if times is None:
            times = self._times[protocol, route] = LatencyHistogram()
        times.total += seconds
        times.buckets[bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """As of prometheus-client."""
        labels = ("protocol", "route")
        counted = CounterMetricFamily("model_name_requests", "Requests that were answered.", labels=(*labels, "code"))
        for (protocol, route, code), count in tuple(self._counts.items()):
            counted.add_metric((protocol, route, str(code)), count)
        timed = HistogramMetricFamily(
            "model_name_request_seconds", "From the headers of a request to its answer.", labels=labels
        )
        for key, times in tuple(self._times.items()):
            below = zip((*map(str, map(float, LATENCY_BUCKETS_SECONDS)), "+Inf"), accumulate(times.buckets), strict=True)
            timed.add_metric(key, [*below], times.total)
        yield counted
        yield timed


@dataclass(slots=True)
class LatencyHistogram:
    """How long requests took.

    Attributes:
        total: Of all, in seconds.
        buckets: How many took no longer than each of `LATENCY_BUCKETS_SECONDS`, but longer than the one before; and the rest.
    """

    total: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_SECONDS) + 1))
