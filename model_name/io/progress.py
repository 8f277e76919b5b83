"""How far a long job is: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ProgressCallback = Callable[[int, int, str], None]
"""Called with (done, total, words); a total of 0 means that it is not known."""

LOG_SECONDS = 5.0


@contextmanager
def progress(title: str) -> Generator[ProgressCallback]:
    """A place to report to while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _logging(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, words="")

        def report(done: int, total: int, words: str) -> None:
            bar.update(task, completed=done, total=total or None, words=words)

        yield report


def _logging(title: str) -> ProgressCallback:
    last = time.monotonic()

    def report(done: int, total: int, words: str) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            logger.info("{}: {:,}{} {}", title, done, f" of {total:,}" if total else "", words)

    return report
