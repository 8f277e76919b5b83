"""Ctrl-C and SIGTERM end the work by an exception, and insist until it is heard.

An exception that a signal raises can fall into a place that swallows it: a callback of the garbage collector, or a
library's `except Exception`. So it is raised again every few seconds, until someone says that it was heard.

Whoever must end between two steps and not within one, such as a writer to Kafka, looks at an event (`stop_on_signal`).
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

from model_name.errors import PreemptedError

RAISE_INTERVAL_SECONDS = 3.0
POLL_SECONDS = 0.05


def install_handlers() -> None:
    """From now on both signals raise."""
    signal.signal(signal.SIGINT, _raise_interrupt)
    signal.signal(signal.SIGTERM, _raise_preempted)


def disarm() -> None:
    """The work is ending: what cleans up must not be interrupted."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def find_signal_error(error: BaseException | None) -> BaseException | None:
    """What a signal raised, where a library turned it into an error of its own; None where no signal is behind it."""
    while error is not None and not isinstance(error, KeyboardInterrupt | PreemptedError):
        error = error.__cause__ or error.__context__
    return error


class StopEvent(Event):
    """Set by Ctrl-C and SIGTERM.

    Attributes:
        exit_code: That goes with the signal; 0 as long as there was none.
    """

    exit_code = 0

    def __init__(self) -> None:
        """Not set yet."""
        super().__init__()
        self._is_set = False

    def set(self) -> None:
        """As of `Event`, but without its lock: who waits may hold it in the very thread that the signal interrupts."""
        self._is_set = True

    def is_set(self) -> bool:
        """As of `Event`."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """As of `Event`, by looking now and then."""
        end = inf if timeout is None else monotonic() + timeout
        while not self._is_set and (left := end - monotonic()) > 0:
            sleep(min(left, POLL_SECONDS))
        return self._is_set


@contextmanager
def stop_on_signal() -> Generator[StopEvent]:
    """An event that Ctrl-C and SIGTERM set, instead of what they do else; a second Ctrl-C ends the process.

    It is set from the start where one of them was swallowed before.
    """
    stop = StopEvent()

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(128 + number)
        stop.exit_code = 128 + number
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    seconds, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    if seconds:  # one came before, and was not heard: it would insist, in whatever is done from here on
        on_signal(signal.SIGTERM, None)
    try:
        yield stop
    finally:
        for number, handler in before.items():
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
