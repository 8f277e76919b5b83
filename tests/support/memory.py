"""Resident memory of other processes."""

import time
from pathlib import Path

MEBIBYTE = 2**20


def resident_bytes(pid: int) -> int:
    """Read the resident memory of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def resident_mebibytes(pid: int) -> float:
    """Read the resident memory of a process in MiB."""
    return resident_bytes(pid) / MEBIBYTE


def wait_for_memory(pid: int, limit: float, seconds: float = 15) -> float:
    """Wait until the resident memory of a process is below a limit in MiB; return the last value."""
    deadline = time.monotonic() + seconds
    while (resident := resident_mebibytes(pid)) >= limit and time.monotonic() < deadline:
        time.sleep(0.1)
    return resident
