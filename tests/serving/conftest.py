"""Small bundles of every task, and real servers over them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from tests.support.flat_bundles import make_bundle
from tests.support.server_processes import Server, StartServer, launch_server, pytest_runtest_makereport, stop_servers  # noqa: F401
from tests.support.tables import FLAT_ROWS, TASKS, Row


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    """Return each task."""
    return str(request.param)


@pytest.fixture
def rows() -> list[Row]:
    """Copy the example rows: a complete one, one with every value missing that may be, one with an empty category."""
    return [dict(row) for row in FLAT_ROWS]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Make a bundle of each task."""
    return {task: make_bundle(task, tmp_path_factory.mktemp(task)) for task in TASKS}


@pytest.fixture(scope="session")
def planes(bundles: dict[str, Bundle]) -> dict[str, DataPlane]:
    """Load the data plane of each bundle, whose predictions every server has to return."""
    return {task: DataPlane(bundle) for task, bundle in bundles.items()}


@pytest.fixture(scope="session")
def start_server(serving_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Return a function that starts `python -m model_name.serving` on free ports; call `wait` on its result."""

    def start(bundle: Path, name: str, *args: str) -> Server:
        log = tmp_path_factory.mktemp("server") / f"{name}.log"
        return launch_server("model_name.serving", "--bundle", str(bundle), *args, name=name, log=log, env=serving_env)

    yield start
    stop_servers()


@pytest.fixture(scope="session")
def servers(bundles: dict[str, Bundle], start_server: StartServer) -> dict[str, Server]:
    """Start a server of each task."""
    started = {task: start_server(bundle.directory, task) for task, bundle in bundles.items()}
    return {task: server.wait() for task, server in started.items()}
