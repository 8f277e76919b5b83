"""What a worker is called: a name that it has again after a restart, and nobody else has meanwhile.

The broker aborts what an earlier process of that name began as soon as the next one asks. Without it, readers and
other workers would wait until the transaction times out.
"""

import fcntl
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import IO

from model_name.errors import ConfigError

MAX_WORKERS_PER_HOST = 256  # workers of a group on a host


class InstanceLock:
    """The lowest number that no other worker of the group has on this host, held until the process ends, however."""

    def __init__(self, group: str, folder: Path | None = None) -> None:
        """Take it.

        Args:
            group: Of the workers.
            folder: Where the locks are; by default where temporary files are.

        Raises:
            ConfigError: There is no place for locks.
        """
        folder = folder or Path(tempfile.gettempdir())
        prefix = f"model-name-{os.getuid()}-{re.sub(r'[^A-Za-z0-9_.-]', '_', group)}"
        for number in range(MAX_WORKERS_PER_HOST):
            path = folder / f"{prefix}-{number}.lock"
            try:
                file = path.open("w", encoding="utf-8")
            except OSError as err:
                raise ConfigError(f"{path}: {err.strerror}", hint="give the worker an `instance` of its own") from err
            if _locked(file):
                self._file = file
                self.name = f"{group}-{socket.gethostname()}-{number}"
                return
            file.close()
        raise ConfigError(f"{MAX_WORKERS_PER_HOST} workers of {group} run on this host", hint="give each an `instance` of its own")


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
