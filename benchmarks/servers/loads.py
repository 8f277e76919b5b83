"""Load from wrk and h2load, and what they tell. An error among the replies ends the benchmark: it measures answers."""

import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}  # of Debian

# Takes the bodies in turn, so that nobody is measured answering the same row again, and tells as JSON what wrk's own
# report rounds.
SCRIPT = """
local bodies = { %(bodies)s }
local requests, turn = {}, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
init = function(args)
  for place, body in ipairs(bodies) do requests[place] = wrk.format(nil, nil, nil, body) end
end
request = function()
  turn = turn %% #requests + 1
  return requests[turn]
end
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('{"requests": %%d, "microseconds": %%d, "failed": %%d, "p50": %%d, "p99": %%d}',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What a load found.

    Attributes:
        rate: Requests a second.
        p50: Median latency in milliseconds.
        p99: The latency in milliseconds that one request of a hundred exceeds.
    """

    rate: float
    p50: float
    p99: float


def require(tool: str) -> None:
    """Look for a load generator.

    Raises:
        SystemExit: It is missing; the message names its package.
    """
    if not shutil.which(tool):
        raise SystemExit(f"{tool} is missing; the Debian package {PACKAGES[tool]} has it")


def load_rest(url: str, bodies: Sequence[str], connections: int, seconds: int, script: Path) -> Load:
    """Load a URL with wrk, which keeps so many connections open and a request on each.

    Raises:
        SystemExit: A reply was an error, or there was none.
    """
    script.write_text(SCRIPT % {"bodies": ", ".join(map(lua, bodies))}, encoding="utf-8")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s"]
    return parse_wrk(run([*command, str(script), url]))


def parse_wrk(report: str) -> Load:
    """The figures of wrk, from the line that the script prints.

    Raises:
        SystemExit: A reply was an error, or there was none.
    """
    lines = [line for line in report.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"wrk told nothing:\n{report}")
    found = json.loads(lines[-1])
    if found["failed"] or not found["requests"]:
        raise SystemExit(f"{found['failed']} of {found['requests']} requests failed:\n{report}")
    return Load(found["requests"] / found["microseconds"] * 1e6, found["p50"] / 1e3, found["p99"] / 1e3)


def lua(text: str) -> str:
    """A literal of Lua."""
    return "[==[" + text + "]==]"


def run(command: Sequence[str]) -> str:
    """The standard output of a load generator.

    Raises:
        SystemExit: It failed.
    """
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {finished.returncode}: {finished.stderr or finished.stdout}")
    return finished.stdout


def load_grpc(url: str, framed: Path, connections: int, seconds: int, reply_bytes: int) -> Load:
    """Load a method of gRPC with h2load: so many connections, and a request on each.

    Args:
        url: With the path of the method.
        framed: The file of the message as it goes over the wire.
        connections: How many.
        seconds: How long.
        reply_bytes: The framed length of a good reply. gRPC answers an error by HTTP's 200 and no message, so that
            h2load counts it as a success: what tells them apart is how many bytes came.

    Raises:
        SystemExit: A reply was an error.
    """
    log = framed.with_suffix(".log")
    log.unlink(missing_ok=True)
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command = ["h2load", "-t1", "-m1", f"-c{connections}", f"-D{seconds}", *headers]
    report = run([*command, f"--data={framed}", f"--log-file={log}", url])
    return parse_h2load(report, log.read_text(encoding="utf-8"), connections, reply_bytes)


def parse_h2load(report: str, log: str, connections: int, reply_bytes: int) -> Load:
    """The figures of h2load: the rate and the errors from its report, the latencies from its log.

    Raises:
        SystemExit: A reply was an error, or there was none.
    """
    rate = float(field(r"finished in .*, ([\d.]+) req/s", report))
    counts = {name: int(field(rf"requests:.* (\d+) {name}", report)) for name in ("succeeded", "failed", "errored")}
    data = int(field(r"traffic:.* headers.*\((\d+)\) data", report))
    if counts["failed"] or counts["errored"] or not counts["succeeded"]:
        raise SystemExit(f"requests failed:\n{report}")
    if (
        abs(data - counts["succeeded"] * reply_bytes) > connections * reply_bytes
    ):  # but for what was under way at the end
        raise SystemExit(f"a good reply has {reply_bytes} bytes, these had {data / counts['succeeded']:.1f}:\n{report}")
    latencies = [int(line.split("\t")[2]) / 1e3 for line in log.splitlines()]
    percentiles = statistics.quantiles(latencies, n=100, method="inclusive")
    return Load(rate, percentiles[49], percentiles[98])


def field(pattern: str, report: str) -> str:
    """What a pattern finds in a report.

    Raises:
        SystemExit: Nothing.
    """
    found = re.search(pattern, report)
    if not found:
        raise SystemExit(f"{pattern} is not in the report:\n{report}")
    return found[1]
