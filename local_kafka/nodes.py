"""The process of one broker: started, killed, suspended, and never left behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

STOP_SECONDS = 10.0  # for a clean end; half a second is usual
TAIL_LINES = 40
FRAME = re.compile(r"\s+(at \S+\(.*\)|\.\.\. \d+ more)$")
MESSAGE = re.compile(r"[\d:.]+ (TRACE|DEBUG|INFO|WARN) ")

# A broker ends with the process that started it, however that ends. `preexec_fn` would do the same, but it runs Python
# between fork and exec, which can hang where other threads hold locks.
LEASHED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
os.getppid() == int(sys.argv[1]) or sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Node:
    """One broker, which is a controller as well.

    Attributes:
        number: Its node.id, from 1.
        port: Where clients reach it.
        command: What starts it.
        log: What it writes; a new start appends.
        process: The last one; None before the first start.
        is_suspended: Whether it hangs.
        began: Where in the log the last start is.
    """

    number: int
    port: int
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    is_suspended: bool = False
    began: int = 0
    # The kernel ends a leashed child when the thread that forked it ends, so that one thread forks all of them.
    spawner: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "broker"), repr=False)

    @property
    def is_alive(self) -> bool:
        """Whether the process is there, suspended or not."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_answering(self) -> bool:
        """Whether it could answer, as far as the process goes."""
        return self.is_alive and not self.is_suspended

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"127.0.0.1:{self.port}"

    @property
    def exit_code(self) -> int | None:
        """What the process ended with; negative for a signal, None while it is there."""
        return self.process.poll() if self.process is not None else None

    def start(self) -> None:
        """Start the process; nothing happens if it runs."""
        if not self.is_alive:
            self.process = self.spawner.submit(self._spawn).result()
            self.is_suspended = False

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = list(self.command)
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", LEASHED, str(os.getpid()), *command]
        with self.log.open("ab") as log:
            self.began = log.tell()
            # The folder of the log is where a crashed Java leaves its report.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.log.parent
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process to take it."""
        if self.process is not None and self.is_alive:
            self.process.send_signal(number)

    def suspend(self) -> None:
        """Stop the process where it stands, as a pause of its machine does: connections stay, nobody answers."""
        self.send(signal.SIGSTOP)
        self.is_suspended = True

    def resume(self) -> None:
        """Let a suspended process go on."""
        self.send(signal.SIGCONT)
        self.is_suspended = False

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash does."""
        self.send(signal.SIGKILL)
        self.reap(None)

    def terminate(self) -> None:
        """Ask it to end cleanly; `reap` waits for that."""
        self.resume()
        self.send(signal.SIGTERM)

    def reap(self, seconds: float | None = STOP_SECONDS) -> None:
        """Wait until the process has ended; after so many seconds it is killed."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """Kill it for good."""
        self.kill()
        self.spawner.shutdown()

    def complaint(self) -> str:
        """What it logged since it was started that is no mere message, or else the last lines; no frames of traces."""
        if not self.log.exists():
            return ""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self.began)
            lines = [line.rstrip() for line in file if not FRAME.match(line)]
        return "\n".join(([line for line in lines if not MESSAGE.match(line)] or lines)[-TAIL_LINES:])
