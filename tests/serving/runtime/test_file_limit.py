"""Number of connections that fit into the limit on open files."""

import subprocess
import sys

import pytest

CODE = """
import resource
from model_name.serving.runtime.file_limit import usable_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(usable_connections(1000, grpc_connections=100), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "limit"),
    [
        pytest.param(2000, 2000, 1000, 2000, id="a sufficient limit"),
        pytest.param(256, 2000, 1000, 1356, id="a limit that is raised"),
        pytest.param(256, 1000, 644, 1000, id="a limit that is raised as far as possible"),
        pytest.param(64, 64, 32, 64, id="a tight limit"),
    ],
)
def test_connections_fit_into_the_limit_on_open_files(soft: int, hard: int, connections: int, limit: int) -> None:
    command = [sys.executable, "-c", CODE.format(soft=soft, hard=hard)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(connections), str(limit)]
    assert ("only 644 fit into the limit" in result.stderr) == (connections == 644)
