"""Serving beside its peers: the same model, the same rows, one worker each, by turns.

    python -m benchmarks.serving [--rounds 3] [--seconds 8] [--only ours,echo] [--cases v1-1-c16]

Load comes from wrk (REST) and h2load (gRPC) on the same machine, over connections that are kept open, one request at a
time on each. A server must first answer every row as the pyfunc does, and an error under load ends the benchmark.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.measuring import console, show, write
from benchmarks.servers import loads, mlserver, protocols
from benchmarks.servers.peers import ENVIRONMENT, Server, mlserver_like, servers
from benchmarks.servers.running import Running, free_ports, running
from benchmarks.servers.subject import FOLDER, Subject, subject

WARM_UP_SECONDS = 2.0
TUNING_SECONDS = 5.0
TOLERANCE = 1e-4  # of the prediction, or of their spread where that is larger: as an export is checked
DECIDING = "v1-1-c16"  # the case by which a peer is tuned
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
    """

    ready_seconds: float
    resident_mb: float
    measured: dict[str, loads.Load]


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if a limit is missed."""
    options = parse(argv)
    for tool in loads.PACKAGES:
        loads.require(tool)
    served = subject(is_fresh=options.fresh)
    chosen = choose(served, options.only)
    cases = [CASES[name] for name in options.cases or CASES]
    return judge(measure(served, chosen, cases, options.rounds, options.seconds), chosen)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--only", type=names, default=[], help="some servers, e.g. ours,echo")
    parser.add_argument("--cases", type=names, default=[], help=f"some of {', '.join(CASES)}")
    parser.add_argument("--fresh", action="store_true", help="train the model anew")
    return parser.parse_args(argv)


def names(text: str) -> list[str]:
    """A list on the command line."""
    return [name for name in text.split(",") if name]


def choose(served: Subject, wanted: Sequence[str]) -> dict[str, Server]:
    """The servers that are wanted and can be had, MLServer with the tuning that serves it best."""
    known = servers(served)
    chosen = {name: known[name] for name in wanted or known}
    if "mlserver" in chosen:
        if mlserver.install():
            chosen["mlserver"] = mlserver_like(served, tuning(served))
        else:
            del chosen["mlserver"]
    return chosen


def tuning(served: Subject) -> mlserver.Tuning:
    """The best of a few for MLServer, found once."""
    path, case = FOLDER / "tunings.json", CASES[DECIDING]
    if not path.exists():
        rates = []
        for one in mlserver.TUNINGS:
            found = run(served, "mlserver", mlserver_like(served, one), [case], TUNING_SECONDS)
            rates.append(found.measured[case.name].rate)
            console.print(f"MLServer with {one}: {told(found)}")
        path.write_text(json.dumps(rates), encoding="utf-8")
    rates = json.loads(path.read_text(encoding="utf-8"))
    return mlserver.TUNINGS[rates.index(max(rates))]


def measure(
    served: Subject, chosen: dict[str, Server], cases: Sequence[Case], rounds: int, seconds: float
) -> dict[str, list[Run]]:
    """A run of each server a round, by turns, so that what else the machine does strikes all."""
    found: dict[str, list[Run]] = {name: [] for name in chosen}
    for number in range(rounds):
        for name, server in chosen.items():
            found[name].append(run(served, name, server, cases, seconds))
            console.print(f"round {number + 1}: {name}: {told(found[name][-1])}")
    return found


def run(served: Subject, name: str, server: Server, cases: Sequence[Case], seconds: float) -> Run:
    """Start a server, check its answers, load it, weigh it and stop it."""
    http, grpc = free_ports(2)
    log = FOLDER / "logs" / f"{name}.log"
    with running(server.command(http, grpc), (http, grpc), log, {**ENVIRONMENT, **server.env}) as process:
        process.wait_until_ready(server.ready)
        measured = {
            case.name: load(served, server, process, case, seconds) for case in cases if server.takes(case.protocol)
        }
        return Run(process.ready_seconds, process.resident_mb(), measured)


def load(served: Subject, server: Server, process: Running, case: Case, seconds: float) -> loads.Load:
    """Check a few answers, then warm up and measure."""
    if case.protocol == "grpc":
        return load_grpc(served, server, process, case, seconds)
    endpoint = server.endpoints[case.protocol]
    batches = [served.rows[start : start + case.rows] for start in range(0, len(served.rows), case.rows)][:ROTATED]
    bodies = [endpoint.write(batch) for batch in batches]
    answers = [value for body in bodies for value in endpoint.read(process.post(endpoint.path, body))]
    check(served, server, answers, len(bodies) * case.rows)
    url = f"http://127.0.0.1:{process.http_port}{endpoint.path}"
    script = FOLDER / f"{case.name}.lua"
    loads.load_rest(url, bodies, case.connections, WARM_UP_SECONDS, script)
    return loads.load_rest(url, bodies, case.connections, seconds, script)


def load_grpc(served: Subject, server: Server, process: Running, case: Case, seconds: float) -> loads.Load:
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


def told(one: Run) -> str:
    """A run in a line."""
    rates = ", ".join(f"{name} {found.rate:,.0f}/s (p99 {found.p99:.1f} ms)" for name, found in one.measured.items())
    return f"{rates}; {one.resident_mb:.0f} MB, ready in {one.ready_seconds:.1f} s"


def judge(found: dict[str, list[Run]], known: dict[str, Server]) -> int:
    """Print, write and hold against the limits."""
    show("Serving, one worker: requests/s (p99 ms)", [line(known[name].title, runs) for name, runs in found.items()])
    write("serving", {"runs": {name: [asdict(one) for one in runs] for name, runs in found.items()}})
    return 0


def line(title: str, runs: list[Run]) -> dict[str, Any]:
    """A row of the table: medians over the rounds."""
    row: dict[str, Any] = {"": title}
    for case in runs[0].measured:
        rate, p99 = (statistics.median(getattr(one.measured[case], key) for one in runs) for key in ("rate", "p99"))
        row[case] = f"{rate:,.0f} ({p99:.1f})"
    row["MB"] = statistics.median(one.resident_mb for one in runs)
    row["ready s"] = statistics.median(one.ready_seconds for one in runs)
    return row


if __name__ == "__main__":
    sys.exit(main())
