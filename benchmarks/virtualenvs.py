"""Virtual environments on top of this one, for servers that need other versions of some packages."""

import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.harness import OUTPUT_DIRECTORY, console


def create_overlay(name: str, requirements: Path) -> Path | None:
    """Create an environment with some packages of its own and all others of this one.

    Args:
        name: Name of the environment.
        requirements: File with its own packages, which are installed without their dependencies.

    Returns:
        The directory of the environment; None if a package cannot be installed, which is printed.
    """
    directory = OUTPUT_DIRECTORY / name
    stamp, expected = directory / ".set-up", requirements.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == expected:
        return directory
    uv = [sys.executable, "-m", "uv"]
    python = str(directory / "bin/python")
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(directory)],
        [*uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "--requirements", str(requirements)],
    ):
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            console.print(f"[yellow]{name} is left out[/]: it cannot be installed: {process.stderr.strip()}")
            return None
    packages = directory / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    stamp.write_text(expected, encoding="utf-8")
    return directory
