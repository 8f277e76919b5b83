"""Memory, garbage collection and thread switching of a server process."""

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

GC_THRESHOLDS = (20_000, 20, 20)  # allocations, then collections of the younger generation, before a collection
SWITCH_INTERVAL_SECONDS = 0.0005  # a tenth of the default: requests are received while a batch runs, so batches grow
M_MMAP_THRESHOLD = -3  # of malloc.h
MMAP_THRESHOLD_BYTES = 2**20
FREE_CHUNK_ROWS = 4096
PEAK_BYTES = 8 * 2**20
TRIMS_AFTER_PEAK = 2  # the first one may come before the last bytes are freed

LIBC = ctypes.CDLL(None)
STATM = Path("/proc/self/statm")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def tune_gc() -> None:
    """Collect garbage less often, and never among the objects that exist now.

    A full collection of the imported modules takes a tenth of a second. Requests create no reference cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def set_thread_switch_interval() -> None:
    """Shorten the interval after which a thread that computes yields the interpreter to the event loop."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)


def mmap_large_allocations() -> None:
    """Make glibc allocate large blocks by `mmap` always, so that freeing them returns the memory to the system.

    By default glibc raises the threshold after the first large block is freed. It then serves large blocks from the
    heap of a thread, which never shrinks below its peak. Does nothing without glibc.
    """
    if (mallopt := getattr(LIBC, "mallopt", None)) is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def resident_bytes() -> int:
    """Read the resident memory of this process; takes microseconds. 0 on a system without `/proc`."""
    try:
        return int(STATM.read_bytes().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def trim_heap() -> None:
    """Return free heap memory to the system, which glibc would keep. Does nothing without glibc."""
    if (malloc_trim := getattr(LIBC, "malloc_trim", None)) is not None:
        malloc_trim(0)


class HeapTrimmer:
    """Returns free heap memory to the system after many bytes of requests and responses were held.

    A single large request is followed by a trim of its own, see `AdaptiveBatcher`; this is for many small ones.
    """

    def __init__(self, take_peak: Callable[[], int]) -> None:
        """Start without a peak.

        Args:
            take_peak: Returns the largest number of bytes that were held since the last call.
        """
        self._take_peak = take_peak
        self._trims_left = 0

    def trim_after_peak(self) -> None:
        """Trim the heap if there was a peak since the last call, or in the call before; call once a second."""
        if self._take_peak() >= PEAK_BYTES:
            self._trims_left = TRIMS_AFTER_PEAK
        if self._trims_left:
            self._trims_left -= 1
            trim_heap()


def free_in_chunks(lists: Iterable[Any]) -> None:
    """Empty long lists chunk by chunk, and leave other objects as they are.

    To free the values of 100 000 rows at once would hold the interpreter for a tenth of a second.
    """
    for values in lists:
        if isinstance(values, list) and len(values) > FREE_CHUNK_ROWS:
            while values:
                del values[-FREE_CHUNK_ROWS:]
