"""Locks between the processes of this checkout. The operating system releases a lock when its process ends."""

from pathlib import Path

from filelock import FileLock, Timeout

BUILD = Path(__file__).parents[1] / "build" / "kafka"


def file_lock(name: str) -> FileLock:
    """Create the lock of a name; entering it waits until no other process holds it."""
    return FileLock(BUILD / f"{name}.lock", thread_local=False)


def is_locked(name: str) -> bool:
    """Return whether a process holds a lock."""
    try:
        with file_lock(name).acquire(blocking=False):
            return False
    except Timeout:
        return True
