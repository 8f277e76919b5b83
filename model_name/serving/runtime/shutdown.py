"""Signals of a server, and the end of a process whose shutdown takes too long."""

import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from threading import Thread, Timer
from threading import enumerate as list_threads
from time import monotonic
from typing import NoReturn

logger = logging.getLogger("model_name.serving")

SHUTDOWN_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STUCK_EXIT_CODE = 1
MARGIN_SECONDS = 1.0  # after the grace period, until the process is ended
STDERR = 2
MAX_SIGNALS = 64  # read at once


class SignalReceiver:
    """Receives SIGTERM and SIGINT on a thread of its own, also while a computation blocks the event loop."""

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        """Receive signals from now on; create in the main thread, while the event loop runs.

        Args:
            on_signal: Callback that receives the number of each signal, on the thread.
        """
        self._on_signal = on_signal
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)  # noqa: FBT003  its only argument
        for number in SHUTDOWN_SIGNALS:
            signal.signal(number, lambda *_: None)  # Python then writes the number to the socket, in any state
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        Thread(target=self._run, name="signals", daemon=True).start()

    def _run(self) -> None:
        while numbers := self._reader.recv(MAX_SIGNALS):
            for number in numbers:
                if number in SHUTDOWN_SIGNALS:
                    self._on_signal(number)


class ShutdownTimer:
    """Ends the process if its shutdown takes too long, because a computation never ends.

    A thread that computes cannot be interrupted, and the interpreter waits for some threads before it exits.
    """

    def __init__(self, write_log: Callable[[float], None], log_seconds: float) -> None:
        """Prepare a timer that does not run yet.

        Args:
            write_log: Function that writes the rest of the prediction log within some seconds.
            log_seconds: Time that this may take.
        """
        self._write_log = write_log
        self._log_seconds = log_seconds
        self._timer: Timer | None = None
        self._deadline = inf

    @property
    def seconds_left(self) -> float:
        """Time until pending requests should have ended; infinite if the timer does not run."""
        return max(0.0, self._deadline - monotonic())

    def start(self, seconds: float) -> None:
        """Start the timer, or start it again.

        Args:
            seconds: Time for the pending requests. If the process still computes `MARGIN_SECONDS` later, the log is
                written and the process ends.
        """
        self.cancel()
        self._deadline = monotonic() + seconds
        self._timer = Timer(seconds + MARGIN_SECONDS, self.end_process)
        self._timer.daemon = True
        self._timer.start()
        # This timer needs no interpreter, which a computation in C may hold.
        faulthandler.dump_traceback_later(seconds + self._log_seconds + 5 * MARGIN_SECONDS, exit=True, file=STDERR)

    def cancel(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            faulthandler.cancel_dump_traceback_later()

    def end_process(self) -> NoReturn:
        """Log where the computations are, write the prediction log and end the process."""
        logger.error("a computation does not end, so the process is ended: %s", describe_threads())
        self._write_log(self._log_seconds)
        logger.info("shut down")
        logging.shutdown()
        os._exit(STUCK_EXIT_CODE)


def describe_threads() -> str:
    """Describe which line each thread of a batch, and the main thread, executes."""
    frames = sys._current_frames()  # noqa: SLF001  documented, in spite of its name
    return "; ".join(
        f"{thread.name} in {frame.f_code.co_qualname}, {Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
        for thread in list_threads()
        if thread.name.startswith(("batch-", "MainThread")) and thread.ident is not None and thread.ident in frames
        for frame in [frames[thread.ident]]
    )
