"""Speed of the server compared with other servers: the same model and rows, one worker each, alternating.

    python -m benchmarks.serving [--rounds 3] [--seconds 8] [--only ours,echo] [--cases v1-1-c16]
    python -m benchmarks.serving --log-cost     # this server with and without its prediction log, for a minute each
    python -m benchmarks.serving --probes       # the liveness probe beside clients that send 100 000 rows
    python -m benchmarks.serving --cpus 1       # each server limited to one processor, as by a container's limit

A case is a protocol, a number of rows per request and a number of connections. The load comes from wrk (REST) and
h2load (gRPC) on the same machine, over persistent connections, one request at a time on each. The predictions of each
server are first compared with those of the pyfunc, and an error under load ends the benchmark. Ratios compare runs of
the same round; the report shows medians.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.harness import conclude, console, print_table
from benchmarks.servers import load_generators, mlserver, probe_test
from benchmarks.servers.load_generators import LoadResult
from benchmarks.servers.load_test import CASES, RunResult, format_run, run_load_test, run_rounds
from benchmarks.servers.log_test import LogFigures, run_log_test
from benchmarks.servers.served_model import DIRECTORY, ServedModel, load_served_model
from benchmarks.servers.server_specs import ServerSpec, all_servers, has_prediction_log, mlserver_server, this_server

NAMES = ("ours", "echo", "naive", "mlserver", "mlflow")
ROUNDS = 3
SECONDS = 8  # of each load
ALONE_SECONDS = 4  # of each load of a single server
TUNING_SECONDS = 5
PROBE_SECONDS = 30
LOG_SECONDS = 60  # of each load of the log: ten times as long as it takes to fill its buffer
MAIN_CASE = "v1-1-c16"  # by which MLServer is tuned and the cost of the log is measured

# Requests/s of this server over those of another, by case. The no-op has the cost of KServe's stack with any model,
# which this server avoids for REST, and in part for gRPC. The others call the pyfunc, the better ones in batches.
MIN_RATIOS = {
    ("v1-1-c16", "echo"): 4.0,
    ("v1-1-c16", "mlserver"): 10.0,
    ("v1-1-c16", "mlflow"): 40.0,
    ("v1-100-c16", "mlserver"): 3.0,
    ("v2-1-c16", "echo"): 5.0,
    ("grpc-1-c16", "echo"): 1.5,
}
P99_CASES = ("v1-1-c16", "v2-1-c16", "grpc-1-c16")  # in which p99 must not exceed that of the no-op
SINGLE_CASE, MANY_CASE = "v1-1-c1", "v1-1-c256"
MAX_SINGLE_P50 = 1.1  # with one connection, of the p50 of the no-op
MIN_MANY_RATE = 0.9  # with many connections, of the requests/s with 16
MAX_RESIDENT_MB = 260.0  # of this server after the load; a pod requests little more
MAX_PROBE_P99 = 50.0  # milliseconds, of the liveness probe beside clients that send large requests
MAX_READY_SECONDS = 4.0  # of this server; the time to scale out
MIN_LOGGED_RATIO = 0.9  # of the requests/s without the prediction log
MAX_LOG_CPU_US = 4.0  # of the thread of the log, per row
MAX_KILLED_SECONDS = 1.0  # of rows that SIGKILL loses: `flush_seconds` of the log
LOG_CPU_SHARE = 0.04  # of a processor, which the thread of the log may use

Runs = dict[str, list[RunResult]]
"""Runs by the name of the server."""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a limit is missed."""
    options = parse_arguments(argv)
    for tool in load_generators.PACKAGES:
        load_generators.check_installed(tool)
    model = load_served_model(is_fresh=options.fresh)
    if options.probes:
        return report_probes(model, options.seconds or PROBE_SECONDS)
    if options.log_cost:
        servers, rounds = with_and_without_log(model), options.rounds or ROUNDS
        case = options.cases[0] if options.cases else MAIN_CASE
        return report_log_cost(case, *run_log_rounds(model, servers, case, rounds, options.seconds or LOG_SECONDS))
    servers = select_servers(model, options.only)
    rounds, seconds = (ROUNDS, SECONDS) if len(servers) > 1 else (1, ALONE_SECONDS)
    cases, is_complete = options.cases or list(CASES), not (options.only or options.cases)
    runs = run_rounds(model, servers, cases, options.rounds or rounds, options.seconds or seconds, cpus=options.cpus)
    if options.cpus:
        return report(runs, servers, name=f"serving-cpus-{options.cpus:g}")
    return report(runs, servers, name="serving" if is_complete else "serving-part")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=0, help="3 by default, 1 for a single server")
    parser.add_argument("--seconds", type=int, default=0, help="of each load; 8 by default, 60 with --log-cost")
    parser.add_argument("--only", type=names_of(NAMES), default=[], help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--cases", type=names_of(CASES), default=[], help=f"some of {', '.join(CASES)}")
    parser.add_argument("--log-cost", action="store_true", help="this server with and without its prediction log")
    parser.add_argument("--probes", action="store_true", help="the liveness probe beside clients with large requests")
    parser.add_argument("--cpus", type=float, help="limit of the processors of each server, by a control group")
    parser.add_argument("--fresh", action="store_true", help="train the model and tune MLServer again")
    return parser.parse_args(argv)


def names_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Create a parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names).difference(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
        return names

    return parse


def select_servers(model: ServedModel, names: Sequence[str]) -> dict[str, ServerSpec]:
    """Select servers that are installed, MLServer with its best tuning; all if no names are given."""
    known = all_servers(model)
    selected = {name: known[name] for name in names or known}
    if "mlserver" in selected:
        if mlserver.install():
            selected["mlserver"] = mlserver_server(model, best_tuning(model))
        else:
            del selected["mlserver"]
    return selected


def best_tuning(model: ServedModel) -> mlserver.Tuning:
    """Find the best of a few tunings of MLServer; measured once and then read from a file."""
    path, case = DIRECTORY / "tunings.json", CASES[MAIN_CASE]
    if not path.exists():
        rates = []
        for tuning in mlserver.TUNINGS:
            run = run_load_test(model, "mlserver", mlserver_server(model, tuning), [case], TUNING_SECONDS)
            rates.append(run.measured[case.name].rate)
            console.print(f"MLServer with {tuning}: {format_run(run)}")
        path.write_text(json.dumps(rates), encoding="utf-8")
    rates = json.loads(path.read_text(encoding="utf-8"))
    return mlserver.TUNINGS[rates.index(max(rates))]


def with_and_without_log(model: ServedModel) -> dict[str, ServerSpec]:
    """Return this server with and without its prediction log.

    Raises:
        SystemExit: The server has no prediction log.
    """
    if not has_prediction_log():
        raise SystemExit("the server has no --prediction_log, whose price was asked for")
    return {"ours": this_server(model), "without": this_server(model, is_logging=False)}


def report(runs: Runs, servers: dict[str, ServerSpec], *, name: str = "serving") -> int:
    """Print and write the results under a name, and check the limits."""
    cases = [case for case in CASES if any(case in server_runs[0].measured for server_runs in runs.values())]
    print_table("Serving, one worker: requests/s (p50, p99 ms)", result_rows(runs, cases))
    titles = {server: servers[server].title for server in runs}
    for server, title in titles.items():
        console.print(f"{server}: {title}", highlight=False)
    compared = {
        (case, other): ratios(runs["ours"], other_runs, case)
        for other, other_runs in runs.items()
        if other != "ours" and "ours" in runs
        for case in cases
        if case in other_runs[0].measured
    }
    if compared:
        others = [server for server in runs if server != "ours"]
        print_table("Times the requests/s of", ratio_rows(compared, others, cases))
    limits = check_limits(runs, compared) if "ours" in runs else {}
    ratios_by_name = {f"{case} to {other}": values for (case, other), values in compared.items()}
    return conclude_with_runs(name, runs, {"titles": titles, "ratios": ratios_by_name}, limits)


def check_limits(runs: Runs, compared: dict[tuple[str, str], list[float]]) -> dict[str, bool]:
    """Check the limits that apply to what was measured; return whether each is met."""
    limits = {}
    for (case, other), min_ratio in MIN_RATIOS.items():
        if (case, other) in compared:
            ratio = statistics.median(compared[case, other])
            limits[f"{case}: {ratio:.2f} times the requests/s of {other} is at least {min_ratio:g}"] = (
                ratio >= min_ratio
            )
    for case in P99_CASES:
        if (case, "echo") in compared:
            ratio = statistics.median(ratios(runs["ours"], runs["echo"], case, "p99"))
            limits[f"{case}: {ratio:.2f} times the p99 of echo is at most 1"] = ratio <= 1
    if (SINGLE_CASE, "echo") in compared:
        ratio = statistics.median(ratios(runs["ours"], runs["echo"], SINGLE_CASE, "p50"))
        limits[f"{SINGLE_CASE}: {ratio:.2f} times the p50 of echo is at most {MAX_SINGLE_P50:g}"] = (
            ratio <= MAX_SINGLE_P50
        )
    measured = [run.measured for run in runs["ours"] if {MANY_CASE, MAIN_CASE} <= run.measured.keys()]
    if measured:
        ratio = statistics.median(run[MANY_CASE].rate / run[MAIN_CASE].rate for run in measured)
        limits[f"{MANY_CASE}: {ratio:.2f} times the requests/s of {MAIN_CASE} is at least {MIN_MANY_RATE:g}"] = (
            ratio >= MIN_MANY_RATE
        )
    resident, ready = (median_of(runs["ours"], figure) for figure in ("resident_mb", "ready_seconds"))
    limits[f"{resident:.0f} MB are at most {MAX_RESIDENT_MB:.0f}"] = resident <= MAX_RESIDENT_MB
    limits[f"ready in {ready:.1f} s is at most {MAX_READY_SECONDS:g} s"] = ready <= MAX_READY_SECONDS
    return limits


def report_probes(model: ServedModel, seconds: int) -> int:
    """Measure the liveness probe beside large requests of each protocol, print and write it, and check the limit."""
    rows, limits = [], {}
    for protocol in ("v1", "v2"):
        load, per_minute = probe_test.run_probe_test(model, this_server(model), protocol, seconds)
        rows.append({"large requests": protocol, "per minute": per_minute, "p50 ms": load.p50, "p99 ms": load.p99})
        limits[f"{protocol}: p99 of the probe of {load.p99:.0f} ms is at most {MAX_PROBE_P99:.0f} ms"] = (
            load.p99 <= MAX_PROBE_P99
        )
    print_table(f"Liveness probe beside {probe_test.LARGE_CLIENTS} clients of {probe_test.LARGE_ROWS:,} rows", rows)
    return conclude("serving-probes", {"rows": rows}, limits)


def run_log_rounds(
    model: ServedModel, servers: dict[str, ServerSpec], case: str, rounds: int, seconds: int
) -> tuple[list[LoadResult], list[LoadResult], list[LogFigures]]:
    """Load this server without and with its log, alternating; return both results, and the figures of the log."""
    plain, logged, figures = [], [], []
    for number in range(rounds):
        run = run_load_test(model, "without", servers["without"], [CASES[case]], seconds)
        plain.append(run.measured[case])
        load, log = run_log_test(model, servers["ours"], case, seconds)
        logged.append(load)
        figures.append(log)
        console.print(
            f"round {number + 1}: {load.rate:,.0f} requests/s with the log, {plain[-1].rate:,.0f} without; "
            f"{log.cpu_us:.2f} us per row, {log.resident_mb:.0f} MB",
            soft_wrap=True,
        )
    return plain, logged, figures


def report_log_cost(case: str, plain: list[LoadResult], logged: list[LoadResult], figures: list[LogFigures]) -> int:
    """Print and write what the prediction log does and costs, and check its limits."""
    compared = [one.rate / other.rate for one, other in zip(logged, plain, strict=True)]
    log = {name: [getattr(each, name) for each in figures] for name in LogFigures.__dataclass_fields__}
    median = {name: statistics.median(values) for name, values in log.items()}
    ratio, cpu_us = statistics.median(compared), median["cpu_us"]
    rates = [statistics.median(load.rate for load in loads) for loads in (logged, plain)]
    rows = {
        "requests/s with the log": rates[0],
        "requests/s without the log": rates[1],
        "p99 with the log, ms": statistics.median(load.p99 for load in logged),
        "p99 without the log, ms": statistics.median(load.p99 for load in plain),
        "rows/s written": median["written"],
        "processor time per row, us": cpu_us,
        f"rows/s at {LOG_CPU_SHARE:.0%} of a processor": LOG_CPU_SHARE / cpu_us * 1e6,
        "rows dropped, all rounds": sum(log["dropped"]),
        "rows waiting, at most": max(log["waiting"]),
        "sampling probability, at least": min(log["probability"]),
        "MB resident, at most": max(log["resident_mb"]),
        "rows unwritten at SIGTERM": max(log["unwritten"]),
        "share of the answered rows in the log": min(log["logged_share"]),
        "seconds from SIGTERM to the end": max(log["end_seconds"]),
        "rows lost at SIGKILL": max(log["killed_rows"]),
        "seconds of rows lost at SIGKILL": max(log["killed_seconds"]),
    }
    print_table(f"The prediction log, {case}", [{"": name, "value": value} for name, value in rows.items()])
    limits = {
        f"{case}: {ratio:.2f} of the requests/s without the log is at least {MIN_LOGGED_RATIO:g}": (
            ratio >= MIN_LOGGED_RATIO
        ),
        f"{cpu_us:.2f} us per row are at most {MAX_LOG_CPU_US:g}": cpu_us <= MAX_LOG_CPU_US,
        f"{sum(log['dropped']):,.0f} rows dropped are none": not any(log["dropped"]),
        f"{max(log['unwritten']):,.0f} rows unwritten at SIGTERM are none": not any(log["unwritten"]),
        f"{max(log['killed_seconds']):.2f} s of rows lost at SIGKILL are at most {MAX_KILLED_SECONDS:g}": (
            max(log["killed_seconds"]) <= MAX_KILLED_SECONDS
        ),
        f"{max(log['resident_mb']):.0f} MB are at most {MAX_RESIDENT_MB:.0f}": max(log["resident_mb"])
        <= MAX_RESIDENT_MB,
    }
    raw = {"with": [asdict(load) for load in logged], "without": [asdict(load) for load in plain], "log": log}
    return conclude("serving-log", {"case": case, "ratios": compared, "figures": rows, "runs": raw}, limits)


def conclude_with_runs(name: str, runs: Runs, figures: dict[str, Any], limits: dict[str, bool]) -> int:
    """Print the limits, write the report with the raw runs, and return the exit code."""
    raw = {server: [asdict(run) for run in server_runs] for server, server_runs in runs.items()}
    return conclude(name, {**figures, "runs": raw}, limits)


def ratios(ours: list[RunResult], theirs: list[RunResult], case: str, figure: str = "rate") -> list[float]:
    """Divide a figure of this server by that of another, round by round."""
    return [
        getattr(one.measured[case], figure) / getattr(other.measured[case], figure)
        for one, other in zip(ours, theirs, strict=True)
    ]


def result_rows(runs: Runs, cases: Sequence[str]) -> list[dict[str, Any]]:
    """Build the table of medians over the rounds: one row per case, one column per server."""

    def cell(server_runs: list[RunResult], case: str) -> str:
        loads = [run.measured[case] for run in server_runs if case in run.measured]
        if not loads:
            return ""
        rate, p50, p99 = (
            statistics.median(getattr(load, figure) for load in loads) for figure in ("rate", "p50", "p99")
        )
        return f"{rate:,.0f} ({p50:.2f}, {p99:.1f})"

    figures = {"MB": "resident_mb", "ready s": "ready_seconds"}
    return [
        *({"": case} | {name: cell(server_runs, case) for name, server_runs in runs.items()} for case in cases),
        *(
            {"": title} | {name: median_of(server_runs, figure) for name, server_runs in runs.items()}
            for title, figure in figures.items()
        ),
    ]


def ratio_rows(
    compared: dict[tuple[str, str], list[float]], others: Sequence[str], cases: Sequence[str]
) -> list[dict[str, Any]]:
    """Build the table of median ratios: one row per case, one column per other server."""

    def cell(case: str, other: str) -> float | str:
        return statistics.median(compared[case, other]) if (case, other) in compared else ""

    return [{"": case} | {other: cell(case, other) for other in others} for case in cases]


def median_of(runs: list[RunResult], figure: str) -> float:
    """Compute the median of a figure over the rounds."""
    return float(statistics.median(getattr(run, figure) for run in runs))


if __name__ == "__main__":
    sys.exit(main())
