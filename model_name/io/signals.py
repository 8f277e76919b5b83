"""Signal handlers: Ctrl-C and SIGTERM raise an exception, repeatedly until `disarm` is called.

An exception that a signal handler raises can be swallowed: by a callback of the garbage collector, or by a library's
`except Exception`. Therefore a timer raises it again every few seconds.

Code that must stop between two steps and not within one, such as a writer to Kafka, polls an event instead
(`stop_on_signal`).
"""

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from math import inf
from threading import Event
from time import monotonic, sleep
from types import FrameType
from typing import NoReturn

from typing_extensions import override

from model_name.errors import PreemptedError

RAISE_INTERVAL_SECONDS = 3.0
POLL_SECONDS = 0.05


def install_handlers() -> None:
    """Make Ctrl-C raise KeyboardInterrupt and SIGTERM raise PreemptedError."""
    signal.signal(signal.SIGINT, _raise_interrupt)
    signal.signal(signal.SIGTERM, _raise_preempted)


def disarm() -> None:
    """Stop raising the exception again, so that clean-up is not interrupted."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def find_signal_error(error: BaseException | None) -> BaseException | None:
    """Return the exception of a signal that a library wrapped into its own error; None if no signal is the cause."""
    while error is not None and not isinstance(error, KeyboardInterrupt | PreemptedError):
        error = error.__cause__ or error.__context__
    return error


class StopEvent(Event):
    """Event that Ctrl-C and SIGTERM set.

    Attributes:
        exit_code: Exit code for the signal; 0 before any signal.
    """

    exit_code = 0

    def __init__(self) -> None:
        """Create an event that is not set."""
        super().__init__()
        self._is_set = False

    @override
    def set(self) -> None:
        """Set the event without its lock, which the thread that the signal interrupts may hold in `wait`."""
        self._is_set = True

    @override
    def is_set(self) -> bool:
        return self._is_set

    @override
    def wait(self, timeout: float | None = None) -> bool:
        """Wait by polling, because `set` does not notify waiting threads."""
        end = inf if timeout is None else monotonic() + timeout
        while not self._is_set and (left := end - monotonic()) > 0:
            sleep(min(left, POLL_SECONDS))
        return self._is_set


@contextmanager
def stop_on_signal() -> Generator[StopEvent]:
    """Make Ctrl-C and SIGTERM set an event while the block runs; a second Ctrl-C kills the process.

    The event is set from the start if the exception of an earlier signal was swallowed.
    """
    stop = StopEvent()

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(128 + number)
        stop.exit_code = 128 + number
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    seconds, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    if seconds:  # an earlier signal was not handled: its timer would raise in the middle of the block
        on_signal(signal.SIGTERM, None)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    _rearm(_raise_interrupt)
    raise KeyboardInterrupt


def _raise_preempted(_number: int, _frame: FrameType | None) -> NoReturn:
    _rearm(_raise_preempted)
    hint = "run the same command again; what has checkpoints goes on from them"
    raise PreemptedError("told to stop (SIGTERM)", hint=hint)


def _rearm(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, RAISE_INTERVAL_SECONDS)
