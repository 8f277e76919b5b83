"""What the command line of a server stands for."""

from __future__ import annotations

import socket

import pytest

from model_name.errors import ConfigError
from model_name.serving.arguments import ListenAddress, check_ports_free


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--http_port {port}: "):
            check_ports_free(ListenAddress("", port, None))
    check_ports_free(ListenAddress("", port, None))
