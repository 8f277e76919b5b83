"""What benchmarks share: a step in a process of its own, its peak memory, a table, a JSON file with the raw runs.

Kept light: a process that is started has at least the memory of the one that starts it.
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

BUILD = Path("build/benchmarks")
KIBIBYTE = 1 if sys.platform == "darwin" else 1024  # what `ru_maxrss` counts in

console = Console()


@dataclass(frozen=True)
class Step:
    """What a process did.

    Attributes:
        found: The JSON document that was the last line of its standard output.
        seconds: From its start to its end.
        peak_mb: The most memory that it held, in 10^6 bytes.
    """

    found: dict[str, Any]
    seconds: float
    peak_mb: float


def run_step(module: str, arguments: Sequence[str]) -> Step:
    """Run `python -m MODULE ARGUMENTS` and wait for it.

    Raises:
        SystemExit: It failed.
    """
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # the only way to the peak of one child
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} ended with exit code {process.returncode}")
    found = json.loads(text.splitlines()[-1])
    return Step(found, round(time.perf_counter() - start, 3), round(usage.ru_maxrss * KIBIBYTE / 1e6, 1))


def tell(**found: Any) -> None:
    """Hand what a step found to the process that started it."""
    print(json.dumps(found))


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table; the first one names the columns."""
    table = Table(title=title)
    for position, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if position else "left")
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    console.print(table)


def write(name: str, document: Mapping[str, Any]) -> Path:
    """Write `build/benchmarks/NAME.json`, the machine and its load included."""
    machine = {
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
    path = BUILD / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine} | dict(document), indent=1) + "\n", encoding="utf-8")
    console.print(f"wrote {path}")
    return path


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
