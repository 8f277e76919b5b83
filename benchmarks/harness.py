"""Harness of the benchmarks: steps in processes of their own with peak memory, tables, and a JSON report of raw runs.

Imports little: a child process is charged at least the memory of the process that starts it.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OUTPUT_DIRECTORY = Path("build/benchmarks")
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; the unit of `ru_maxrss`

console = Console()


@dataclass(frozen=True)
class Step:
    """Result of a step that ran in a process of its own.

    Attributes:
        found: JSON document in the last line of standard output.
        seconds: Duration of the process.
        peak_mb: Peak resident memory in 10^6 bytes.
    """

    found: dict[str, Any]
    seconds: float
    peak_mb: float


def run_step(module: str, arguments: Sequence[str]) -> Step:
    """Run `python -m MODULE ARGUMENTS` and wait for it.

    Raises:
        SystemExit: The process ended with another exit code than 0.
    """
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # the only source of the peak memory of a single child
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} ended with exit code {process.returncode}")
    found = json.loads(text.splitlines()[-1])
    return Step(found, round(time.perf_counter() - start, 3), round(usage.ru_maxrss * MAXRSS_UNIT / 1e6, 1))


def emit_result(**result: Any) -> None:
    """Print the result of a step for the process that started it."""
    print(json.dumps(result))


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table with the keys of the first row as columns."""
    table = Table(title=title)
    for position, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if position else "left")
    for row in rows:
        table.add_row(*map(_format_cell, row.values()))
    console.print(table)


def write_report(name: str, document: Mapping[str, Any]) -> Path:
    """Write `build/benchmarks/NAME.json`, including the machine and its load."""
    machine = {
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
    path = OUTPUT_DIRECTORY / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine} | dict(document), indent=1) + "\n", encoding="utf-8")
    console.print(f"wrote {path}")
    return path


def conclude(name: str, report: Mapping[str, Any], limits: Mapping[str, bool]) -> int:
    """Print the limits, write the report with them, and return the exit code: 1 if a limit is missed."""
    for limit, is_met in limits.items():
        console.print(f"[{'green' if is_met else 'red'}]{'holds' if is_met else 'FAILS'}[/] {limit}")
    write_report(name, {**report, "limits": limits})
    return 0 if all(limits.values()) else 1


def _format_cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
