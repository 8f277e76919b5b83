"""Small bundles of every task, and real servers over them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from tests.support.flat_bundles import make_bundle
from tests.support.server_processes import Server, StartServer, launch, pytest_runtest_makereport, stop_all  # noqa: F401
from tests.support.tables import FLAT_ROWS, TASKS, Row


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    """Each task in turn."""
    return str(request.param)


@pytest.fixture
def rows() -> list[Row]:
    """Rows that a client may send: plain, with all missing that may be, with a category that is the empty text."""
    return [dict(row) for row in FLAT_ROWS]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A bundle of each task."""
    return {task: make_bundle(task, tmp_path_factory.mktemp(task)) for task in TASKS}


@pytest.fixture(scope="session")
def planes(bundles: dict[str, Bundle]) -> dict[str, DataPlane]:
    """The data plane of each bundle: what every server must answer."""
    return {task: DataPlane(bundle) for task, bundle in bundles.items()}


@pytest.fixture(scope="session")
def start_server(serving_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts `python -m model_name.serving` on free ports; `wait` on what it returns. All are stopped at the end."""

    def start(bundle: Path, name: str, *args: str) -> Server:
        log = tmp_path_factory.mktemp("server") / f"{name}.log"
        return launch("model_name.serving", "--bundle", str(bundle), *args, name=name, log=log, env=serving_env)

    yield start
    stop_all()


@pytest.fixture(scope="session")
def servers(bundles: dict[str, Bundle], start_server: StartServer) -> dict[str, Server]:
    """A ready server of each task."""
    started = {task: start_server(bundle.directory, task) for task, bundle in bundles.items()}
    return {task: server.wait() for task, server in started.items()}
