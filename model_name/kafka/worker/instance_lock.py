"""Choose the name of a worker: the same after a restart, and different from that of any other running worker.

The name is the transactional id: the broker aborts an open transaction of an earlier process as soon as the next
process with its name starts. With a new name, readers and other workers would wait until the transaction times out.
"""

import errno
import os
import re
import socket
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from model_name.errors import ConfigError

MAX_WORKERS_PER_HOST = 256  # of one group


class InstanceLock:
    """Lock on the lowest number that no other worker of the group holds on this host.

    The operating system releases it when the process ends, even by SIGKILL.

    Attributes:
        name: Name of the instance, from group, host and number.
    """

    def __init__(self, group: str, folder: Path | None = None) -> None:
        """Acquire the lock.

        Args:
            group: Consumer group of the worker.
            folder: Folder of the lock files; by default the folder for temporary files.

        Raises:
            ConfigError: No lock file can be created, or all numbers are taken.
        """
        folder = folder or Path(tempfile.gettempdir())
        prefix = f"model-name-{os.getuid()}-{re.sub(r'[^A-Za-z0-9_.-]', '_', group)}"
        for number in range(MAX_WORKERS_PER_HOST):
            lock = FileLock(folder / f"{prefix}-{number}.lock", blocking=False, thread_local=False)
            try:
                if not folder.exists():  # filelock would create it
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                lock.acquire()
            except Timeout:
                continue
            except OSError as err:
                hint = "give the worker an `instance` of its own"
                raise ConfigError(f"{lock.lock_file}: {err.strerror}", hint=hint) from err
            self._lock = lock
            self.name = f"{group}-{socket.gethostname()}-{number}"
            return
        raise ConfigError(
            f"{MAX_WORKERS_PER_HOST} workers of {group} run on this host", hint="give each an `instance` of its own"
        )
