"""One server in one round: started, checked, loaded, weighed and stopped."""

import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

from benchmarks.measuring import console
from benchmarks.servers import loads, protocols
from benchmarks.servers.peers import ENVIRONMENT, LOG, Server
from benchmarks.servers.running import Running, free_ports, running
from benchmarks.servers.subject import FOLDER, Subject

WARM_UP_SECONDS = 2
TOLERANCE = 1e-4  # of the prediction, or of their spread where that is larger: as an export is checked
ROTATED = 32  # requests of one row, sent in turn


@dataclass(frozen=True)
class Case:
    """A load: a protocol, rows a request, connections."""

    protocol: str
    rows: int
    connections: int

    @property
    def name(self) -> str:
        """For the command line and the table."""
        return f"{self.protocol}-{self.rows}-c{self.connections}"


CASES = {
    case.name: case
    for case in (
        Case("v1", 1, 1),
        Case("v1", 1, 16),
        Case("v1", 1, 64),
        Case("v1", 100, 16),
        Case("v2", 1, 16),
        Case("v2", 100, 16),
        Case("grpc", 1, 16),
    )
}


@dataclass(frozen=True)
class Run:
    """A server in one round.

    Attributes:
        ready_seconds: From its start until it was ready.
        resident_mb: What it held after the load, in 10^6 bytes.
        measured: What was found, by case.
        dropped: Rows that the server did not log, by its own count; a log that drops what it cannot write costs little.
    """

    ready_seconds: float
    resident_mb: float
    measured: dict[str, loads.Load]
    dropped: float


def measure(
    served: Subject, chosen: Mapping[str, Server], cases: Sequence[str], rounds: int, seconds: int
) -> dict[str, list[Run]]:
    """A run of each server a round, by turns, so that what else the machine does strikes all."""
    found: dict[str, list[Run]] = {name: [] for name in chosen}
    for number in range(rounds):
        for name, server in chosen.items():
            found[name].append(run(served, name, server, [CASES[case] for case in cases], seconds))
            console.print(f"round {number + 1}: {name}: {told(found[name][-1])}", soft_wrap=True)
    return found


def run(served: Subject, name: str, server: Server, cases: Sequence[Case], seconds: int) -> Run:
    """Start a server, check its answers, load it, weigh it and stop it."""
    shutil.rmtree(LOG, ignore_errors=True)
    http, grpc = free_ports(2)
    log = FOLDER / "logs" / f"{name}.log"
    with running(server.command(http, grpc), (http, grpc), log, ENVIRONMENT) as process:
        process.wait_until_ready(server.ready)
        measured = {
            case.name: load(served, server, process, case, seconds) for case in cases if server.takes(case.protocol)
        }
        return Run(process.ready_seconds, process.resident_mb(), measured, dropped(process, server))


def load(served: Subject, server: Server, process: Running, case: Case, seconds: int) -> loads.Load:
    """Check answers that are asked for at once, as a server that batches may mix them up; warm up and measure."""
    if case.protocol == "grpc":
        return load_grpc(served, server, process, case, seconds)
    endpoint = server.endpoints[case.protocol]
    batches = [served.rows[start : start + case.rows] for start in range(0, len(served.rows), case.rows)][:ROTATED]
    bodies = [endpoint.write(batch) for batch in batches]
    with ThreadPoolExecutor(case.connections) as pool:
        replies = pool.map(process.post, repeat(endpoint.path), bodies)
        answers = [value for reply in replies for value in endpoint.read(reply)]
    check(served, server, answers, len(bodies) * case.rows)
    url = f"http://127.0.0.1:{process.http_port}{endpoint.path}"
    script = FOLDER / f"{case.name}.lua"
    loads.load_rest(url, bodies, case.connections, WARM_UP_SECONDS, script)
    return loads.load_rest(url, bodies, case.connections, seconds, script)


def load_grpc(served: Subject, server: Server, process: Running, case: Case, seconds: int) -> loads.Load:
    """The same by gRPC, with one request again and again: h2load has no other way."""
    framed = FOLDER / f"{case.name}.bin"
    framed.write_bytes(protocols.grpc(served.rows[: case.rows], served))
    reply = process.call(protocols.GRPC_METHOD, framed.read_bytes()[protocols.PREFIX :])
    check(served, server, protocols.read_grpc(reply), case.rows)
    url = f"http://127.0.0.1:{process.grpc_port}{protocols.GRPC_METHOD}"
    size = protocols.PREFIX + len(reply)
    loads.load_grpc(url, framed, case.connections, WARM_UP_SECONDS, size)
    return loads.load_grpc(url, framed, case.connections, seconds, size)


def check(served: Subject, server: Server, answers: list[float], rows: int) -> None:
    """Hold the answers against the pyfunc's.

    Raises:
        SystemExit: They are too few, too many or others.
    """
    if len(answers) != rows:
        raise SystemExit(f"{server.title} answered {len(answers)} predictions for {rows} rows")
    if not server.is_echo and (difference := served.difference(answers)) > TOLERANCE:
        raise SystemExit(f"{server.title} answers others than the pyfunc, off by {difference:.2g}: {answers[:3]}")


def dropped(process: Running, server: Server) -> float:
    """The sum of what the server's metrics count as dropped."""
    metrics = process.get("/metrics")[1].decode() if server.has_metrics else ""
    return sum(float(count) for count in re.findall(r"^\w*dropped\w*_total(?:\{.*\})? (\S+)$", metrics, re.MULTILINE))


def told(one: Run) -> str:
    """A run in a line."""
    rates = ", ".join(f"{name} {found.rate:,.0f}/s (p99 {found.p99:.1f} ms)" for name, found in one.measured.items())
    return f"{rates}; {one.resident_mb:.0f} MB, ready in {one.ready_seconds:.1f} s"
