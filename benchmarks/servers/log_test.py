"""Load test of the prediction log: what it writes in a steady state, what it costs, and what it loses at the end."""

import re
import shutil
import signal
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import orjson

from benchmarks.servers.load_generators import LoadResult
from benchmarks.servers.load_test import CASES, LoadCase, run_grpc_case, run_rest_case
from benchmarks.servers.served_model import DIRECTORY, ServedModel
from benchmarks.servers.server_process import ServerProcess, free_ports, run_server
from benchmarks.servers.server_specs import ENVIRONMENT, PREDICTION_LOG, ServerSpec

POLL_SECONDS = 1.0
KILL_SECONDS = 10  # of load before SIGKILL
END_SECONDS = 120.0  # for which the end of the server is waited for
PREDICTING_ROUTES = ("predict", "infer")


@dataclass(frozen=True)
class LogFigures:
    """Figures of the prediction log of one server.

    Attributes:
        written: Number of rows per second that were written during the load.
        dropped: Number of dropped rows.
        waiting: Largest number of rows that waited, of those scraped every second.
        probability: Smallest sampling probability, of those scraped every second.
        resident_mb: Largest resident memory during the load, in 10^6 bytes.
        cpu_us: Processor time of the thread of the log per row, in microseconds.
        logged_share: Rows in the log after SIGTERM, with their weights, over those that were answered.
        unwritten: Number of rows that were not written at SIGTERM, by the log of the server.
        end_seconds: Time from SIGTERM to the end of the process, without a drain period.
        killed_rows: Number of answered rows that were not in the log after SIGKILL.
        killed_seconds: Time in which so many rows were answered.
    """

    written: float
    dropped: float
    waiting: float
    probability: float
    resident_mb: float
    cpu_us: float
    logged_share: float
    unwritten: int
    end_seconds: float
    killed_rows: float
    killed_seconds: float


@dataclass
class Peaks:
    """Extremes of what was scraped during a load.

    Attributes:
        waiting: Largest number of rows that waited.
        probability: Smallest sampling probability.
        resident_mb: Largest resident memory, in 10^6 bytes.
    """

    waiting: float = 0.0
    probability: float = 1.0
    resident_mb: float = 0.0


def run_log_test(model: ServedModel, server: ServerSpec, case_name: str, seconds: int) -> tuple[LoadResult, LogFigures]:
    """Load a server with a prediction log for some seconds and end it by SIGTERM; load another and kill it."""
    case = CASES[case_name]
    with start(server, "log") as process:
        before = scrape(process)
        with poll(process) as peaks:
            load = run_case(model, server, process, case, seconds)
        time.sleep(POLL_SECONDS)  # the counters are updated every second
        after = scrape(process)
        answered = after["answered"] * case.rows
        process.process.terminate()
        started = time.perf_counter()
        process.process.wait(END_SECONDS)
        end_seconds = time.perf_counter() - started
        unwritten = re.findall(r"closed with (\d+) rows unwritten", process.log_tail())
    logged_share = logged_rows(PREDICTION_LOG) / answered
    elapsed = (after["answered"] - before["answered"]) / load.rate
    written = after["written_rows_total"] - before["written_rows_total"]
    killed_rows, killed_seconds = measure_kill(model, server, case)
    figures = LogFigures(
        written=written / elapsed,
        dropped=after["dropped_rows_total"],
        waiting=peaks.waiting,
        probability=peaks.probability,
        resident_mb=peaks.resident_mb,
        cpu_us=(after["cpu_seconds_total"] - before["cpu_seconds_total"]) / max(written, 1.0) * 1e6,
        logged_share=logged_share,
        unwritten=sum(map(int, unwritten)),
        end_seconds=end_seconds,
        killed_rows=killed_rows,
        killed_seconds=killed_seconds,
    )
    return load, figures


def measure_kill(model: ServedModel, server: ServerSpec, case: LoadCase) -> tuple[float, float]:
    """Kill a server under load; return the number of answered rows that its log lacks, and the time of so many."""
    with start(server, "log-kill") as process, ThreadPoolExecutor(1) as pool:
        load = pool.submit(run_case, model, server, process, case, KILL_SECONDS + 10)
        time.sleep(KILL_SECONDS)
        first, started = scrape(process)["answered"], time.perf_counter()
        time.sleep(POLL_SECONDS)
        answered = scrape(process)["answered"]
        rate = (answered - first) / (time.perf_counter() - started) * case.rows
        process.process.send_signal(signal.SIGKILL)
        with suppress(SystemExit):  # the requests in flight have failed
            load.result()
    lost = max(0.0, answered * case.rows - logged_rows(PREDICTION_LOG))
    return lost, lost / rate


@contextmanager
def start(server: ServerSpec, name: str) -> Generator[ServerProcess]:
    """Start a server with an empty log and without a drain period."""
    shutil.rmtree(PREDICTION_LOG, ignore_errors=True)
    http_port, grpc_port = free_ports(2)
    command = [*server.command(http_port, grpc_port), "--drain_seconds", "0"]
    with run_server(command, (http_port, grpc_port), DIRECTORY / "logs" / f"{name}.log", ENVIRONMENT) as process:
        process.wait_until_ready(server.ready_path)
        yield process


def run_case(
    model: ServedModel, server: ServerSpec, process: ServerProcess, case: LoadCase, seconds: int
) -> LoadResult:
    """Check the predictions, warm up and run a load."""
    run = run_grpc_case if case.protocol == "grpc" else run_rest_case
    return run(model, server, process, case, seconds)


@contextmanager
def poll(process: ServerProcess) -> Generator[Peaks]:
    """Scrape a server every second within a context."""
    peaks, is_done = Peaks(), Event()

    def run() -> None:
        while not is_done.wait(POLL_SECONDS):
            metrics = scrape(process)
            peaks.waiting = max(peaks.waiting, metrics["waiting_rows"])
            peaks.probability = min(peaks.probability, metrics["sampling_probability"])
            peaks.resident_mb = max(peaks.resident_mb, process.resident_mb())

    thread = Thread(target=run)
    thread.start()
    try:
        yield peaks
    finally:
        is_done.set()
        thread.join()


def scrape(process: ServerProcess) -> dict[str, float]:
    """Scrape the metrics of the log, and the number of answered requests as `answered`."""
    text = process.get("/metrics")[1].decode()
    metrics = {name: float(value) for name, value in re.findall(r"^model_name_log_(\w+) (\S+)$", text, re.MULTILINE)}
    counts = re.findall(r"^model_name_requests_total\{(.*)\} (\S+)$", text, re.MULTILINE)
    is_predicting = [any(f'route="{route}"' in labels for route in PREDICTING_ROUTES) for labels, _ in counts]
    answered = sum(float(count) for (_, count), is_counted in zip(counts, is_predicting, strict=True) if is_counted)
    return metrics | {"answered": answered}


def logged_rows(folder: Path) -> float:
    """Sum the weights of all rows in a log; a killed server may have left an incomplete last line."""
    total = 0.0
    for path in folder.rglob("*.jsonl"):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    requests = orjson.loads(line)["requests"]
                    total += sum(map(float.__mul__, requests["weight"], map(float, requests["rows"])))
    return total
