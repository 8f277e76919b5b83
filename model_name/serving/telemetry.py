"""What a server tells Prometheus. No label takes a value that a client chooses."""

from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from model_name.serving.bundle import Manifest

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 65536, 262144)


class Telemetry:
    """The metrics of one server.

    Attributes:
        in_flight: How many requests are not answered yet; who takes one counts it.
    """

    def __init__(self, slot: str, registry: CollectorRegistry = REGISTRY) -> None:
        """Register them."""
        self.slot = slot
        self.registry = registry
        self._requests = Counter(
            "model_name_requests", "Requests that were answered.", ["protocol", "route", "code"], registry=registry
        )
        self._seconds = Histogram(
            "model_name_request_seconds",
            "From the headers of a request to its answer.",
            ["protocol", "route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "model_name_batch_rows", "Rows that were predicted at once.", buckets=SIZES, registry=registry
        )
        self.batch_requests = Histogram(
            "model_name_batch_requests", "Requests that were answered at once.", buckets=SIZES[:8], registry=registry
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
        self.swaps = Counter(
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
        self._counted: dict[tuple[str, str, int], Counter] = {}
        self._timed: dict[tuple[str, str], Histogram] = {}

    def watch(self, *, queued: Callable[[], float]) -> None:
        """Ask this whenever the metrics are read."""
        self._queue.set_function(queued)

    def serve(self, manifest: Manifest) -> None:
        """Say what is served now."""
        self._info.clear()
        self._info.labels(manifest.name, manifest.semver, manifest.version, manifest.run_id, self.slot).set(1)

    def answered(self, protocol: str, route: str, code: int, seconds: float) -> None:
        """Count a request."""
        counter = self._counted.get((protocol, route, code))
        if counter is None:
            counter = self._counted[protocol, route, code] = self._requests.labels(protocol, route, str(code))
        histogram = self._timed.get((protocol, route))
        if histogram is None:
            histogram = self._timed[protocol, route] = self._seconds.labels(protocol, route)
        counter.inc()
        histogram.observe(seconds)
