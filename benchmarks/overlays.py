"""Virtual environments over this one: for peers that need a package of another version, or one that we do not."""

import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.measuring import BUILD, console


def lay_over(name: str, pins: Path) -> Path | None:
    """The folder of an environment that has some packages of its own and all else of this one.

    Args:
        name: Of the peer.
        pins: Its packages, as pip reads them; nothing that they need beside is installed.

    Returns:
        None where it cannot be had, which is told.
    """
    folder = BUILD / name
    stamp, wanted = folder / ".set-up", pins.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return folder
    uv = [sys.executable, "-m", "uv"]
    python = str(folder / "bin/python")
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [*uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "--requirements", str(pins)],
    ):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            console.print(f"[yellow]{name} is left out[/]: it cannot be installed: {finished.stderr.strip()}")
            return None
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    stamp.write_text(wanted, encoding="utf-8")
    return folder
