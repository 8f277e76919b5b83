"""A server that reports when its event loop was blocked: `python -m tests.support.watched_server ARGUMENTS`.

The report is one line per time in which the main thread computed for `MIN_REPORTED_SECONDS` between two callbacks:
`blocked SECONDS until MONOTONIC_TIME`. Processor time counts, so that other processes do not matter.
"""

import asyncio
import sys
import time

from model_name.serving.__main__ import main
from model_name.serving.server import Server

TICK_SECONDS = 0.002
MIN_REPORTED_SECONDS = 0.01


def watch(loop: asyncio.AbstractEventLoop, last: float) -> None:
    """Report the processor time since the last callback, and schedule the next one."""
    now = time.thread_time()
    if now - last > MIN_REPORTED_SECONDS:
        sys.stderr.write(f"blocked {now - last:.4f} until {time.monotonic():.4f}\n")
    loop.call_later(TICK_SECONDS, watch, loop, time.thread_time())


async def serve(self: Server) -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(TICK_SECONDS, watch, loop, time.thread_time())
    await original(self)


original = Server._serve

if __name__ == "__main__":
    Server._serve = serve  # type: ignore[method-assign]
    sys.exit(main())
