"""Serving beside its peers: the same model, the same rows, one worker each, by turns.

    python -m benchmarks.serving [--rounds 3] [--seconds 8] [--only ours,echo] [--cases v1-1-c16]
    python -m benchmarks.serving --log-cost     # this server with and without its prediction log

A case is a protocol, rows a request and connections. Load comes from wrk (REST) and h2load (gRPC) on the same machine,
over connections that are kept open, one request at a time on each. A server must first answer as the pyfunc does, and
an error under load ends the benchmark. Ratios are of the same round; what is told are medians.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.measuring import console, show, write
from benchmarks.servers import loads, mlserver
from benchmarks.servers.peers import Server, has_log, mlserver_like, ours, servers
from benchmarks.servers.rounds import CASES, Run, measure, run, told
from benchmarks.servers.subject import FOLDER, Subject, subject

NAMES = ("ours", "echo", "naive", "mlserver", "mlflow")
ROUNDS = 3
SECONDS = 8  # of each load
ALONE_SECONDS = 4  # for daily work
TUNING_SECONDS = 5
DECIDING = "v1-1-c16"  # the case by which a peer is tuned, and the price of the log told

# Our requests/s over a peer's, by case. The no-op is what KServe's stack costs with any model, so that REST must leave
# it out of the way of a request; by gRPC there is less to leave out. The peers call the pyfunc, the better ones batch.
MIN_RATIOS = {
    ("v1-1-c16", "echo"): 2.5,
    ("v1-1-c16", "mlserver"): 10.0,
    ("v1-1-c16", "mlflow"): 40.0,
    ("v1-100-c16", "mlserver"): 3.0,
    ("v2-1-c16", "echo"): 3.0,
    ("grpc-1-c16", "echo"): 1.0,
}
NOT_SLOWER = ("v1-1-c16", "v2-1-c16", "grpc-1-c16")  # where our p99 is no worse than the no-op's
MAX_RESIDENT_MB = 260.0  # of this server after the load; a pod asks for little more
MAX_READY_SECONDS = 4.0  # of this server, which is how long scaling out takes
MIN_LOGGED = 0.9  # of the requests/s without the prediction log


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if a limit is missed."""
    options = parse(argv)
    for tool in loads.PACKAGES:
        loads.require(tool)
    served = subject(is_fresh=options.fresh)
    if options.log_cost:
        both, rounds = with_and_without_log(served), options.rounds or ROUNDS
        return judge_log(measure(served, both, options.cases or [DECIDING], rounds, options.seconds or SECONDS))
    chosen = choose(served, options.only)
    rounds, seconds = (ROUNDS, SECONDS) if len(chosen) > 1 else (1, ALONE_SECONDS)
    cases, is_whole = options.cases or list(CASES), not (options.only or options.cases)
    found = measure(served, chosen, cases, options.rounds or rounds, options.seconds or seconds)
    return judge(found, chosen, name="serving" if is_whole else "serving-part")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=0, help="3 by default, 1 for a server alone")
    parser.add_argument("--seconds", type=int, default=0, help="of each load; 8 by default, 4 for a server alone")
    parser.add_argument("--only", type=some_of(NAMES), default=[], help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--cases", type=some_of(CASES), default=[], help=f"some of {', '.join(CASES)}")
    parser.add_argument("--log-cost", action="store_true", help="this server with and without its prediction log")
    parser.add_argument("--fresh", action="store_true", help="train the model and tune the peers anew")
    return parser.parse_args(argv)


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A reader of names on the command line."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names).difference(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
        return names

    return read


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


def with_and_without_log(served: Subject) -> dict[str, Server]:
    """This server twice.

    Raises:
        SystemExit: It has no log.
    """
    if not has_log():
        raise SystemExit("the server has no --prediction_log, whose price was asked for")
    return {"ours": ours(served), "without": ours(served, is_logging=False)}


def judge(found: dict[str, list[Run]], known: dict[str, Server], *, name: str = "serving") -> int:
    """Print, write under a name and hold against the limits."""
    cases = [case for case in CASES if any(case in runs[0].measured for runs in found.values())]
    show("Serving, one worker: requests/s (p99 ms)", lines(found, cases))
    titles = {server: known[server].title for server in found}
    for server, title in titles.items():
        console.print(f"{server}: {title}", highlight=False)
    compared = {
        (case, peer): ratios(found["ours"], runs, case)
        for peer, runs in found.items()
        if peer != "ours" and "ours" in found
        for case in cases
        if case in runs[0].measured
    }
    if compared:
        show("Times the requests/s of", ratio_lines(compared, [server for server in found if server != "ours"], cases))
    limits = limits_of(found, compared) if "ours" in found else {}
    written = {f"{case} to {peer}": values for (case, peer), values in compared.items()}
    return conclude(name, found, {"titles": titles, "ratios": written}, limits)


def limits_of(found: dict[str, list[Run]], compared: dict[tuple[str, str], list[float]]) -> dict[str, bool]:
    """What must hold of that which was measured, in words."""
    limits = {}
    for (case, peer), least in MIN_RATIOS.items():
        if (case, peer) in compared:
            ratio = statistics.median(compared[case, peer])
            limits[f"{case}: {ratio:.2f} times the requests/s of {peer} is at least {least:g}"] = ratio >= least
    for case in NOT_SLOWER:
        if (case, "echo") in compared:
            ratio = statistics.median(ratios(found["ours"], found["echo"], case, "p99"))
            limits[f"{case}: {ratio:.2f} times the p99 of echo is at most 1"] = ratio <= 1
    resident, ready = (median_of(found["ours"], figure) for figure in ("resident_mb", "ready_seconds"))
    limits[f"{resident:.0f} MB are at most {MAX_RESIDENT_MB:.0f}"] = resident <= MAX_RESIDENT_MB
    limits[f"ready in {ready:.1f} s is at most {MAX_READY_SECONDS:g} s"] = ready <= MAX_READY_SECONDS
    return limits


def judge_log(found: dict[str, list[Run]]) -> int:
    """The same for the price of the log."""
    limits, compared = {}, {}
    for case in found["ours"][0].measured:
        compared[case] = ratios(found["ours"], found["without"], case)
        ratio = statistics.median(compared[case])
        limits[f"{case}: {ratio:.2f} of the requests/s without the log is at least {MIN_LOGGED:g}"] = (
            ratio >= MIN_LOGGED
        )
    show("With the prediction log, and without: requests/s (p99 ms)", lines(found, list(compared)))
    lost = sum(one.dropped for one in found["ours"])
    console.print(f"{lost:,.0f} rows were dropped by the log")
    return conclude("serving-log", found, {"ratios": compared}, limits)


def conclude(name: str, found: dict[str, list[Run]], figures: dict[str, Any], limits: dict[str, bool]) -> int:
    """Print the limits and write all; 1 if one is missed."""
    for sentence, holds in limits.items():
        console.print(f"[{'green' if holds else 'red'}]{'holds' if holds else 'FAILS'}[/] {sentence}")
    runs = {server: [asdict(one) for one in runs] for server, runs in found.items()}
    write(name, {**figures, "limits": limits, "runs": runs})
    return 0 if all(limits.values()) else 1


def ratios(ours: list[Run], theirs: list[Run], case: str, figure: str = "rate") -> list[float]:
    """Ours over theirs, round by round."""
    return [
        getattr(one.measured[case], figure) / getattr(other.measured[case], figure)
        for one, other in zip(ours, theirs, strict=True)
    ]


def lines(found: dict[str, list[Run]], cases: Sequence[str]) -> list[dict[str, Any]]:
    """Medians over the rounds: a row a case, a column a server."""

    def cell(runs: list[Run], case: str) -> str:
        loaded = [one.measured[case] for one in runs if case in one.measured]
        rate, p99 = (statistics.median(getattr(one, key) for one in loaded) if loaded else 0 for key in ("rate", "p99"))
        return f"{rate:,.0f} ({p99:.1f})" if loaded else ""

    weights = {"MB": "resident_mb", "ready s": "ready_seconds"}
    return [
        *({"": case} | {name: cell(runs, case) for name, runs in found.items()} for case in cases),
        *(
            {"": title} | {name: median_of(runs, figure) for name, runs in found.items()}
            for title, figure in weights.items()
        ),
    ]


def ratio_lines(
    compared: dict[tuple[str, str], list[float]], peers: Sequence[str], cases: Sequence[str]
) -> list[dict[str, Any]]:
    """Medians of the ratios: a row a case, a column a peer."""

    def cell(case: str, peer: str) -> float | str:
        return statistics.median(compared[case, peer]) if (case, peer) in compared else ""

    return [{"": case} | {peer: cell(case, peer) for peer in peers} for case in cases]


def median_of(runs: list[Run], figure: str) -> float:
    """The median of a figure over the rounds."""
    return float(statistics.median(getattr(one, figure) for one in runs))


if __name__ == "__main__":
    sys.exit(main())
