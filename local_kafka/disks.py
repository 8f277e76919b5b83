"""A disk that is small enough to fill, for the fault of a full log directory."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from model_name.errors import StorageError

BLOCK = bytes(1 << 16)


@dataclass(frozen=True)
class Disk:
    """A file system in memory of a few megabytes; Linux alone has it, and to mount it takes root.

    Attributes:
        folder: Where it is mounted.
        size_mb: How much it holds, in MiB.
    """

    folder: Path
    size_mb: int

    @property
    def ballast(self) -> Path:
        """The file that takes the space."""
        return self.folder / "ballast"

    def mount(self) -> None:
        """Mount it, empty.

        Raises:
            StorageError: This machine does not allow that.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        mount = shutil.which("mount") or "mount"
        command = [mount, "-t", "tmpfs", "-o", f"size={self.size_mb}m", "kafka", str(self.folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise StorageError("no small disk can be made: there is no `mount`", hint="use Linux") from error
        if done.returncode:
            raise StorageError(f"no small disk can be mounted: {done.stderr.strip()}", hint="run it as root on Linux")

    def unmount(self) -> None:
        """Give it back, with all that it held; nothing happens if it is not mounted."""
        if self.folder.is_mount():
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Write until there is not a byte left."""
        with self.ballast.open("ab", buffering=0) as file:
            for size in (len(BLOCK), 1):
                try:
                    while file.write(BLOCK[:size]):
                        pass
                except OSError:
                    continue
            os.fsync(file.fileno())

    def free(self) -> None:
        """Remove what `fill` wrote."""
        self.ballast.unlink(missing_ok=True)
