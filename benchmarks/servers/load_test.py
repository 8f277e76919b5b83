"""Load tests: a server is started, its predictions are checked, then it is loaded, measured and stopped."""

import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import repeat

from benchmarks.harness import console
from benchmarks.servers import load_generators, protocols
from benchmarks.servers.cpu_limit import cpu_limit
from benchmarks.servers.load_generators import LoadResult
from benchmarks.servers.served_model import DIRECTORY, ServedModel
from benchmarks.servers.server_process import ServerProcess, free_ports, run_server
from benchmarks.servers.server_specs import ENVIRONMENT, PREDICTION_LOG, ServerSpec

WARM_UP_SECONDS = 2
TOLERANCE = 1e-4  # relative to the prediction or the standard deviation, whichever is larger; as in the export check
MAX_BODIES = 32  # that are sent in turn


@dataclass(frozen=True)
class LoadCase:
    """A load: protocol, rows per request and number of connections."""

    protocol: str
    rows: int
    connections: int

    @property
    def name(self) -> str:
        """Name on the command line and in the report."""
        return f"{self.protocol}-{self.rows}-c{self.connections}"


CASES = {
    case.name: case
    for case in (
        LoadCase("v1", 1, 1),
        LoadCase("v1", 1, 16),
        LoadCase("v1", 1, 64),
        LoadCase("v1", 1, 256),
        LoadCase("v1", 100, 16),
        LoadCase("v2", 1, 16),
        LoadCase("v2", 100, 16),
        LoadCase("grpc", 1, 16),
    )
}


@dataclass(frozen=True)
class RunResult:
    """Result of one run of a server.

    Attributes:
        ready_seconds: Seconds from the start until the server was ready.
        resident_mb: Resident memory after the load, in 10^6 bytes.
        measured: Results by case.
        dropped: Number of rows that the prediction log dropped by its own count; a log that drops rows costs little.
    """

    ready_seconds: float
    resident_mb: float
    measured: dict[str, LoadResult]
    dropped: float


def run_rounds(
    model: ServedModel,
    servers: Mapping[str, ServerSpec],
    cases: Sequence[str],
    rounds: int,
    seconds: int,
    *,
    cpus: float | None = None,
) -> dict[str, list[RunResult]]:
    """Run each server once per round, alternating, so that other load on the machine affects all.

    Args:
        model: Model that is served.
        servers: Servers by name.
        cases: Names of the load cases.
        rounds: Number of rounds.
        seconds: Duration of each load.
        cpus: Number of processors that each server is limited to; None for no limit.

    Returns:
        The runs by the name of the server.
    """
    runs: dict[str, list[RunResult]] = {name: [] for name in servers}
    for number in range(rounds):
        for name, server in servers.items():
            selected = [CASES[case] for case in cases]
            runs[name].append(run_load_test(model, name, server, selected, seconds, cpus=cpus))
            console.print(f"round {number + 1}: {name}: {format_run(runs[name][-1])}", soft_wrap=True)
    return runs


def run_load_test(
    model: ServedModel,
    name: str,
    server: ServerSpec,
    cases: Sequence[LoadCase],
    seconds: int,
    *,
    cpus: float | None = None,
) -> RunResult:
    """Start a server, run the load cases that it supports, measure its memory and stop it."""
    shutil.rmtree(PREDICTION_LOG, ignore_errors=True)
    http_port, grpc_port = free_ports(2)
    log = DIRECTORY / "logs" / f"{name}.log"
    with run_server(server.command(http_port, grpc_port), (http_port, grpc_port), log, ENVIRONMENT) as process:
        process.wait_until_ready(server.ready_path)
        with nullcontext() if cpus is None else cpu_limit(process.process.pid, cpus):
            measured = {
                case.name: (run_grpc_case if case.protocol == "grpc" else run_rest_case)(
                    model, server, process, case, seconds
                )
                for case in cases
                if server.supports(case.protocol)
            }
        return RunResult(process.ready_seconds, process.resident_mb(), measured, count_dropped(process, server))


def run_rest_case(
    model: ServedModel, server: ServerSpec, process: ServerProcess, case: LoadCase, seconds: int
) -> LoadResult:
    """Check the predictions of concurrent requests, which a batching server may mix up; warm up and measure."""
    endpoint = server.endpoints[case.protocol]
    batches = [model.rows[start : start + case.rows] for start in range(0, len(model.rows), case.rows)][:MAX_BODIES]
    bodies = [endpoint.encode(batch) for batch in batches]
    with ThreadPoolExecutor(case.connections) as pool:
        responses = pool.map(process.post, repeat(endpoint.path), bodies)
        predictions = [value for response in responses for value in endpoint.decode(response)]
    check_predictions(model, server, predictions, len(bodies) * case.rows)
    url = f"http://127.0.0.1:{process.http_port}{endpoint.path}"
    script = DIRECTORY / f"{case.name}.lua"
    load_generators.load_rest(url, bodies, case.connections, WARM_UP_SECONDS, script)
    return load_generators.load_rest(url, bodies, case.connections, seconds, script)


def run_grpc_case(
    model: ServedModel, server: ServerSpec, process: ServerProcess, case: LoadCase, seconds: int
) -> LoadResult:
    """Check the predictions of a request, which h2load then repeats; warm up and measure."""
    framed = DIRECTORY / f"{case.name}.bin"
    framed.write_bytes(protocols.encode_grpc(model.rows[: case.rows], model))
    response = process.call(protocols.GRPC_METHOD, framed.read_bytes()[protocols.GRPC_PREFIX_BYTES :])
    check_predictions(model, server, protocols.decode_grpc(response), case.rows)
    url = f"http://127.0.0.1:{process.grpc_port}{protocols.GRPC_METHOD}"
    size = protocols.GRPC_PREFIX_BYTES + len(response)
    load_generators.load_grpc(url, framed, case.connections, WARM_UP_SECONDS, size)
    return load_generators.load_grpc(url, framed, case.connections, seconds, size)


def check_predictions(model: ServedModel, server: ServerSpec, predictions: list[float], rows: int) -> None:
    """Compare predictions with those of the pyfunc.

    Raises:
        SystemExit: The number of predictions is wrong, or they differ by more than `TOLERANCE`.
    """
    if len(predictions) != rows:
        raise SystemExit(f"{server.title} answered {len(predictions)} predictions for {rows} rows")
    if not server.is_echo and (difference := model.difference(predictions)) > TOLERANCE:
        raise SystemExit(f"{server.title} answers others than the pyfunc, off by {difference:.2g}: {predictions[:3]}")


def count_dropped(process: ServerProcess, server: ServerSpec) -> float:
    """Sum the counters of dropped rows in the metrics of a server."""
    metrics = process.get("/metrics")[1].decode() if server.has_metrics else ""
    return sum(float(count) for count in re.findall(r"^\w*dropped\w*_total(?:\{.*\})? (\S+)$", metrics, re.MULTILINE))


def format_run(run: RunResult) -> str:
    """Format a run in one line."""
    rates = ", ".join(f"{name} {load.rate:,.0f}/s (p99 {load.p99:.1f} ms)" for name, load in run.measured.items())
    return f"{rates}; {run.resident_mb:.0f} MB, ready in {run.ready_seconds:.1f} s"
