"""Run calls one after the other on a daemon thread, which does not keep the process alive."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonExecutor:
    """Executor with one daemon thread.

    Unlike `ThreadPoolExecutor`, whose threads are joined at exit, a call that never returns does not block the exit.
    """

    def __init__(self, name: str) -> None:
        """Start the thread under a name."""
        self._calls: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[..., T], *args: Any) -> "Future[T]":
        """Queue a call and return its future."""
        future: Future[T] = Future()
        self._calls.put((future, call, args))
        return future

    def _run(self) -> None:
        while True:
            future, call, args = self._calls.get()
            try:
                future.set_result(call(*args))
            except BaseException as err:  # noqa: BLE001  raised again by `Future.result`
                future.set_exception(err)
