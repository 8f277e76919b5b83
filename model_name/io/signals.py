"""Ctrl-C and SIGTERM end the work by an exception, and insist until it is heard.

An exception that a signal raises can fall into a place that swallows it: a callback of the garbage collector, or a
library's `except Exception`. So it is raised again every few seconds, until someone says that it was heard.
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from model_name.errors import PreemptedError

AGAIN_SECONDS = 3.0


def listen() -> None:
    """From now on both signals raise."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _preempt)


def heard() -> None:
    """The work is ending: what cleans up must not be interrupted."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def behind(error: BaseException | None) -> BaseException | None:
    """What a signal raised, where a library turned it into an error of its own; None where no signal is behind it."""
    while error is not None and not isinstance(error, KeyboardInterrupt | PreemptedError):
        error = error.__cause__ or error.__context__
    return error


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    _insist(_interrupt)
    raise KeyboardInterrupt


def _preempt(_number: int, _frame: FrameType | None) -> NoReturn:
    _insist(_preempt)
    hint = "run the same command again; what has checkpoints goes on from them"
    raise PreemptedError("told to stop (SIGTERM)", hint=hint)


def _insist(handler: Callable[[int, FrameType | None], NoReturn]) -> None:
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
