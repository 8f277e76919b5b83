"""Latency of the liveness probe while other clients send large requests."""

import http.client
import statistics
import subprocess
import time
from contextlib import closing

from benchmarks.servers import load_generators
from benchmarks.servers.load_generators import LoadResult
from benchmarks.servers.served_model import DIRECTORY, ServedModel
from benchmarks.servers.server_process import ServerProcess, free_ports, run_server
from benchmarks.servers.server_specs import ENVIRONMENT, ServerSpec

LIVE_PATH = "/v2/health/live"
LARGE_ROWS = 100_000
LARGE_CLIENTS = 2
POLL_SECONDS = 0.005
WARM_UP_SECONDS = 2.0


def run_probe_test(model: ServedModel, server: ServerSpec, protocol: str, seconds: float) -> tuple[LoadResult, int]:
    """Poll the liveness probe beside `LARGE_CLIENTS` clients that send `LARGE_ROWS` rows per request.

    Args:
        model: Model that is served.
        server: Server to measure.
        protocol: Protocol of the large requests, v1 or v2.
        seconds: Duration of the measurement.

    Returns:
        Rate and latencies of the probe, and the number of large requests per minute that were answered meanwhile.

    Raises:
        SystemExit: A probe or a large request failed.
    """
    endpoint = server.endpoints[protocol]
    rows = (model.rows * (LARGE_ROWS // len(model.rows) + 1))[:LARGE_ROWS]
    script = DIRECTORY / "large.lua"
    script.write_text(load_generators.LUA_SCRIPT % {"bodies": load_generators.lua_literal(endpoint.encode(rows))})
    ports = free_ports(2)
    log = DIRECTORY / "logs" / "probe.log"
    with run_server(server.command(*ports), (ports[0], ports[1]), log, ENVIRONMENT) as process:
        process.wait_until_ready(server.ready_path)
        url = f"http://127.0.0.1:{process.http_port}{endpoint.path}"
        duration = f"-d{seconds + WARM_UP_SECONDS:.0f}s"
        command = ["wrk", "-t1", f"-c{LARGE_CLIENTS}", duration, "--timeout", "60s", "-s", str(script), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            time.sleep(WARM_UP_SECONDS)
            latencies = poll(process, seconds)
            report, _ = load.communicate()
        large = load_generators.parse_wrk(report)
    percentiles = statistics.quantiles(latencies, n=100, method="inclusive")
    return LoadResult(len(latencies) / seconds, percentiles[49], percentiles[98]), round(large.rate * 60)


def poll(process: ServerProcess, seconds: float) -> list[float]:
    """Poll the liveness probe on a new connection each time, as the kubelet does; return latencies in milliseconds.

    Raises:
        SystemExit: The status of a probe is not 200.
    """
    latencies = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        with closing(http.client.HTTPConnection("127.0.0.1", process.http_port, timeout=30)) as connection:
            connection.request("GET", LIVE_PATH)
            status = connection.getresponse().status
        if status != http.client.OK:
            raise SystemExit(f"{LIVE_PATH} answered {status}\n{process.log_tail()}")
        latencies.append((time.perf_counter() - started) * 1e3)
        time.sleep(POLL_SECONDS)
    return latencies
