"""A thread that does one thing after the other, and is not waited for at the end of the process."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonExecutor:
    """As an executor of one thread; but one that never comes back, in a model say, does not keep the process."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self._work: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[..., T], *args: Any) -> "Future[T]":
        """Have it call something."""
        future: Future[T] = Future()
        self._work.put((future, call, args))
        return future

    def _run(self) -> None:
        while True:
            future, call, args = self._work.get()
            try:
                future.set_result(call(*args))
            except BaseException as err:  # noqa: BLE001  it is raised again where the result is asked for
                future.set_exception(err)
