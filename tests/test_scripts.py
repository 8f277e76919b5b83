"""Entry point `model_name.scripts`."""

import subprocess
import sys

import pytest

from model_name import __version__, scripts
from model_name.cli.main import main


def test_the_entry_point_is_the_command_line():
    assert scripts.main is main


@pytest.mark.parametrize("module", ["model_name", "model_name.scripts"])
def test_the_package_and_the_entry_point_run_as_modules(module):
    command = [sys.executable, "-m", module, "--version"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, f"model-name {__version__}\n"), finished.stderr
