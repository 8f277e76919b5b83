"""Progress of a long job: a bar on a terminal, an occasional line in a log."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ProgressCallback = Callable[[int, int, str], None]
"""Callback with (done, total, detail); a total of 0 means that it is unknown."""

LOG_INTERVAL_SECONDS = 5.0


@contextmanager
def progress(title: str) -> Generator[ProgressCallback]:
    """Show progress while the block runs; the block reports it to the callback that is yielded."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _log_progress(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, detail="")

        def report(done: int, total: int, detail: str) -> None:
            bar.update(task, completed=done, total=total or None, detail=detail)

        yield report


def _log_progress(title: str) -> ProgressCallback:
    last = time.monotonic()

    def report(done: int, total: int, detail: str) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= LOG_INTERVAL_SECONDS:
            last = time.monotonic()
            logger.info("{}: {:,}{} {}", title, done, f" of {total:,}" if total else "", detail)

    return report
