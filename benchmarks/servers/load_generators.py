"""Load generators wrk and h2load with parsers of their reports. An error among the responses ends the benchmark."""

import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}  # Debian packages

# Sends the bodies in turn, so that no server benefits from repeated rows, and prints as JSON the figures that wrk's own
# report rounds.
LUA_SCRIPT = """
local bodies = { %(bodies)s }
local requests, current = {}, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
init = function(args)
  for index, body in ipairs(bodies) do requests[index] = wrk.format(nil, nil, nil, body) end
end
request = function()
  current = current %% #requests + 1
  return requests[current]
end
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('{"requests": %%d, "microseconds": %%d, "failed": %%d, "p50": %%d, "p99": %%d}',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class LoadResult:
    """Result of a load test.

    Attributes:
        rate: Requests per second.
        p50: Median latency in milliseconds.
        p99: 99th percentile of the latency in milliseconds.
    """

    rate: float
    p50: float
    p99: float


def check_installed(tool: str) -> None:
    """Check that a load generator is installed.

    Raises:
        SystemExit: The tool is missing; the message names its package.
    """
    if not shutil.which(tool):
        raise SystemExit(f"{tool} is missing; the Debian package {PACKAGES[tool]} has it")


def load_rest(url: str, bodies: Sequence[str], connections: int, seconds: int, script: Path) -> LoadResult:
    """Send requests to a URL with wrk, one at a time on each of several open connections.

    Raises:
        SystemExit: A response was an error, or there was no response.
    """
    script.write_text(LUA_SCRIPT % {"bodies": ", ".join(map(lua_literal, bodies))}, encoding="utf-8")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s"]
    return parse_wrk(run_tool([*command, str(script), url]))


def parse_wrk(report: str) -> LoadResult:
    """Parse the line that the script of wrk prints.

    Raises:
        SystemExit: A response was an error, or there was no response.
    """
    lines = [line for line in report.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"wrk told nothing:\n{report}")
    figures = json.loads(lines[-1])
    if figures["failed"] or not figures["requests"]:
        raise SystemExit(f"{figures['failed']} of {figures['requests']} requests failed:\n{report}")
    return LoadResult(figures["requests"] / figures["microseconds"] * 1e6, figures["p50"] / 1e3, figures["p99"] / 1e3)


def lua_literal(text: str) -> str:
    """Quote a text as a Lua literal."""
    return "[==[" + text + "]==]"


def run_tool(command: Sequence[str]) -> str:
    """Run a load generator; return its standard output.

    Raises:
        SystemExit: The load generator failed.
    """
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}: {process.stderr or process.stdout}")
    return process.stdout


def load_grpc(url: str, framed: Path, connections: int, seconds: int, response_bytes: int) -> LoadResult:
    """Call a gRPC method with h2load, one call at a time on each of several open connections.

    Args:
        url: URL with the path of the method.
        framed: File of the framed message.
        connections: Number of connections.
        seconds: Duration of the load.
        response_bytes: Framed length of a successful response. A gRPC error has HTTP status 200 and no message, which
            h2load counts as a success: only the number of received bytes distinguishes them.

    Raises:
        SystemExit: A response was an error.
    """
    log = framed.with_suffix(".log")
    log.unlink(missing_ok=True)
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command = ["h2load", "-t1", "-m1", f"-c{connections}", f"-D{seconds}", *headers]
    report = run_tool([*command, f"--data={framed}", f"--log-file={log}", url])
    return parse_h2load(report, log.read_text(encoding="utf-8"), connections, response_bytes)


def parse_h2load(report: str, log: str, connections: int, response_bytes: int) -> LoadResult:
    """Parse rate and errors from the report of h2load, and latencies from its log.

    Raises:
        SystemExit: A response was an error, or there was no response.
    """
    rate = float(find_in_report(r"finished in .*, ([\d.]+) req/s", report))
    counts = {
        name: int(find_in_report(rf"requests:.* (\d+) {name}", report)) for name in ("succeeded", "failed", "errored")
    }
    data = int(find_in_report(r"traffic:.* headers.*\((\d+)\) data", report))
    if counts["failed"] or counts["errored"] or not counts["succeeded"]:
        raise SystemExit(f"requests failed:\n{report}")
    # The last request of each connection may be in flight at the end.
    if abs(data - counts["succeeded"] * response_bytes) > connections * response_bytes:
        raise SystemExit(
            f"a good reply has {response_bytes} bytes, these had {data / counts['succeeded']:.1f}:\n{report}"
        )
    latencies = [int(line.split("\t")[2]) / 1e3 for line in log.splitlines()]
    percentiles = statistics.quantiles(latencies, n=100, method="inclusive")
    return LoadResult(rate, percentiles[49], percentiles[98])


def find_in_report(pattern: str, report: str) -> str:
    """Return the first group of a pattern in a report.

    Raises:
        SystemExit: The pattern does not match the report.
    """
    match = re.search(pattern, report)
    if not match:
        raise SystemExit(f"{pattern} is not in the report:\n{report}")
    return match[1]
