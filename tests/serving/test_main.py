"""Command `python -m model_name.serving`, and the libraries that its process loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_name.serving.__main__ import main
from model_name.serving.bundle import Bundle
from tests.support.clients import (
    post_v1,
)

if TYPE_CHECKING:
    from tests.support.server_processes import Server
    from tests.support.tables import Row


FORBIDDEN = ("torch", "mlflow", "ray", "sklearn", "lightning", "kfp")


def test_the_process_imports_no_training_library(bundles: dict[str, Bundle], serving_env: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import model_name.serving.__main__\n"
        "from model_name.serving.bundle import Bundle\n"
        "from model_name.serving.dataplane import DataPlane\n"
        "DataPlane(Bundle.load(Path(sys.argv[1]))).warm_up()\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    command = [sys.executable, "-c", program, str(bundles["regression"].directory)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=serving_env)
    imported = result.stdout.split()
    assert "onnxruntime" in imported
    assert set(FORBIDDEN).isdisjoint(imported)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has mapped")
def test_a_running_server_has_loaded_no_training_library(servers: dict[str, Server], rows: list[Row]) -> None:
    assert post_v1(servers["regression"], {"instances": rows}).status_code == 200
    loaded = Path(f"/proc/{servers['regression'].process.pid}/maps").read_text(encoding="utf-8")
    assert "/onnxruntime/" in loaded
    assert [name for name in FORBIDDEN if f"/{name}/" in loaded] == []


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        pytest.param(["--bundle", "{tmp}"], 4, "error: {tmp}: is not a bundle, bundle.json is missing", id="no bundle"),
        pytest.param(["--workers", "2"], 2, "error: --workers: a server is one process\n", id="two workers"),
        pytest.param(["--bundel", "x"], 2, "unrecognized arguments: --bundel", id="an unknown argument"),
        pytest.param(["--help"], 0, "--bundle BUNDLE", id="help"),
    ],
)
def test_the_command_line_reports_errors(
    args: list[str], code: int, text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = main([arg.format(tmp=tmp_path) for arg in args])
    except SystemExit as exit_:
        returned = int(exit_.code or 0)
    assert returned == code
    assert text.format(tmp=tmp_path) in "".join(capfd.readouterr())


def test_a_missing_bundle_has_an_exit_code(tmp_path: Path, serving_env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "model_name.serving", "--bundle", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=serving_env)
    assert result.returncode == 4
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}: is not a bundle, bundle.json is missing",
        "  next: name the folder that holds it",
    ]
