"""The process of one broker: start, stop, kill and suspend it, and never leave it behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

STOP_SECONDS = 10.0  # for a clean stop, which usually takes half a second
TAIL_LINES = 40
STACK_FRAME = re.compile(r"\s+(at \S+\(.*\)|\.\.\. \d+ more)$")
ROUTINE_LINE = re.compile(r"[\d:.]+ (TRACE|DEBUG|INFO|WARN) ")

# A broker ends with the process that started it, even if that is killed. `preexec_fn` would do the same, but it runs
# Python between fork and exec, which can deadlock if other threads hold locks.
PDEATHSIG_WRAPPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
os.getppid() == int(sys.argv[1]) or sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Node:
    """One broker, which is a controller as well.

    Attributes:
        number: Number of the node (`node.id`), from 1.
        port: Client port.
        command: Command that starts it.
        log: Log file; a new start appends to it.
        process: Process of the last start; None before the first one.
        is_suspended: Whether the process is suspended.
        log_offset: Size of the log file at the last start.
    """

    number: int
    port: int
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    is_suspended: bool = False
    log_offset: int = 0
    # PDEATHSIG kills a child when the thread that forked it ends, so that one long-lived thread starts the process.
    spawner: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "broker"), repr=False)

    @property
    def is_alive(self) -> bool:
        """Whether the process exists, suspended or not."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_running(self) -> bool:
        """Whether the process exists and is not suspended."""
        return self.is_alive and not self.is_suspended

    @property
    def address(self) -> str:
        """Address for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process; negative for a signal, None while it exists."""
        return self.process.poll() if self.process is not None else None

    def start(self) -> None:
        """Start the process, unless it exists."""
        if not self.is_alive:
            self.process = self.spawner.submit(self._spawn).result()
            self.is_suspended = False

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = list(self.command)
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", PDEATHSIG_WRAPPER, str(os.getpid()), *command]
        with self.log.open("ab") as log:
            self.log_offset = log.tell()
            # A crashed Java writes its report to the working directory.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.log.parent
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process exists."""
        if self.process is not None and self.is_alive:
            self.process.send_signal(number)

    def suspend(self) -> None:
        """Suspend the process (SIGSTOP), as a pause of its machine does: connections stay open without responses."""
        self.send(signal.SIGSTOP)
        self.is_suspended = True

    def resume(self) -> None:
        """Resume a suspended process."""
        self.send(signal.SIGCONT)
        self.is_suspended = False

    def kill(self) -> None:
        """Kill the process (SIGKILL), as a crash does."""
        self.send(signal.SIGKILL)
        self.reap(None)

    def terminate(self) -> None:
        """Request a clean stop (SIGTERM); `reap` waits for it."""
        self.resume()
        self.send(signal.SIGTERM)

    def reap(self, timeout_seconds: float | None = STOP_SECONDS) -> None:
        """Wait until the process has ended; kill it after the timeout."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """Kill the process and end the thread that started it."""
        self.kill()
        self.spawner.shutdown()

    def error_log_tail(self) -> str:
        """Return the last lines logged since the start without level and stack frames, or else the last of all."""
        if not self.log.exists():
            return ""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self.log_offset)
            lines = [line.rstrip() for line in file if not STACK_FRAME.match(line)]
        return "\n".join(([line for line in lines if not ROUTINE_LINE.match(line)] or lines)[-TAIL_LINES:])
