"""Mount a disk small enough to fill, to test a full log directory."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from model_name.errors import StorageError

BLOCK = bytes(1 << 16)


@dataclass(frozen=True)
class Disk:
    """File system of a few megabytes in memory (tmpfs); it requires Linux, and root to mount it.

    Attributes:
        folder: Mount point.
        size_mb: Capacity in MiB.
    """

    folder: Path
    size_mb: int

    @property
    def ballast(self) -> Path:
        """File that fills the disk."""
        return self.folder / "ballast"

    def mount(self) -> None:
        """Mount the empty disk.

        Raises:
            StorageError: This machine does not allow mounting it.
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
        """Unmount the disk and discard its files, if it is mounted."""
        if self.folder.is_mount():
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Write until no byte is free."""
        with self.ballast.open("ab", buffering=0) as file:
            for size in (len(BLOCK), 1):
                try:
                    while file.write(BLOCK[:size]):
                        pass
                except OSError:
                    continue
            os.fsync(file.fileno())

    def free(self) -> None:
        """Remove the file that `fill` wrote."""
        self.ballast.unlink(missing_ok=True)
