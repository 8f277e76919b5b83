import json
import os
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from loguru import logger
from pydantic import PrivateAttr

from model_name.errors import DataError, DependencyError, NotFoundError
from model_name.io.osvariables import env
from model_name.io.registries import Registry
from model_name.io.services import AlertsService, LoggerService, MlflowService, Service, unreachable_error
from model_name.jobs.base import Job, Result


def closed_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def webhook(workplace, monkeypatch):
    """Start a server that records requests and responds with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            server.received.append((self.path, dict(self.headers), json.loads(body)))
            time.sleep(server.delay)
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *args):
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.status, server.delay = [], 204, 0.0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("MODEL_NAME_ALERTS_URL", f"http://127.0.0.1:{server.server_port}/hook?token=secret")
    env.cache_clear()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_alert_is_logged_and_posted_as_a_cloud_event(webhook, logs):
    AlertsService().notify("promoted", "model {1.0.0} is champion")
    ((path, headers, event),) = webhook.received
    assert path == "/hook?token=secret"
    assert headers["content-type"] == "application/cloudevents+json"
    assert event.pop("id")
    assert event == {
        "specversion": "1.0",
        "source": "model-name",
        "type": "model-name.alert",
        "subject": "promoted",
        "data": {"title": "promoted", "message": "model {1.0.0} is champion"},
    }
    assert logs == ["INFO promoted: model {1.0.0} is champion\n"]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500}, id="error status"),
        pytest.param({"delay": 2.0}, id="timeout"),
        pytest.param({"url": "http://127.0.0.1:{closed}/secret"}, id="no listener"),
        pytest.param({"url": "http://no host/secret"}, id="invalid host"),
        pytest.param({"url": "secret"}, id="no scheme"),
        pytest.param({"url": "http://[secret"}, id="malformed URL"),
    ],
)
def test_a_failing_webhook_does_not_fail_the_job_and_its_token_is_not_logged(webhook, monkeypatch, logs, fault):
    webhook.status, webhook.delay = fault.get("status", 204), fault.get("delay", 0.0)
    if "url" in fault:
        monkeypatch.setenv("MODEL_NAME_ALERTS_URL", fault["url"].format(closed=closed_port()))
        env.cache_clear()
    start = time.monotonic()
    AlertsService(timeout_seconds=0.3).notify("refused", "words")
    assert time.monotonic() - start < 1.5
    assert logs[0] == "INFO refused: words\n"
    assert logs[1].startswith("WARNING the alert could not be posted: ")
    assert "secret" not in "".join(logs)


@pytest.mark.parametrize("how", ["disabled", "no address", "empty address"])
def test_nothing_is_posted_without_a_webhook(webhook, monkeypatch, logs, how):
    if how != "disabled":
        monkeypatch.setenv("MODEL_NAME_ALERTS_URL", "")
        env.cache_clear()
    if how == "no address":
        monkeypatch.delenv("MODEL_NAME_ALERTS_URL")
    AlertsService(enable=how != "disabled").notify("trained", "words")
    assert webhook.received == []
    assert logs == ["INFO trained: words\n"]


def test_the_log_goes_to_stderr_only(capsys):
    try:
        LoggerService(level="WARNING").start()
        logger.info("too quiet")
        logger.warning("words {}", 1)
        out, err = capsys.readouterr()
        assert (out, "words 1" in err, "too quiet" in err) == ("", True, False)
        LoggerService(serialize=True).start()
        logger.info("words")
        assert json.loads(capsys.readouterr().err)["record"]["message"] == "words"
    finally:
        logger.remove()


class RecordingService(Service):
    """Service that records its start and stop, and fails if it is configured to."""

    title: str
    fails: bool = False
    _events: list[str] = PrivateAttr(default_factory=list)

    def start(self):
        if self.fails:
            raise DependencyError(f"{self.title} does not start")
        self._events.append(f"{self.title} started")

    def stop(self):
        self._events.append(f"{self.title} stopped")


def job_with(make_schema, events, **fails):
    """Create a job whose services record into one list."""

    class Quiet(Job):
        KIND: str = "Quiet"
        logger: Service
        alerts: Service
        mlflow: Service

        def run(self):
            return Result()

    services = {
        title: RecordingService(title=title, fails=fails.get(title, False)) for title in ("logger", "alerts", "mlflow")
    }
    for service in services.values():
        service._events = events
    table = {"KIND": "ParquetReader", "path": "t.parquet"}
    return Quiet.model_construct(name="m", schema_=make_schema("regression"), table=table, **services)


def test_services_start_in_order_and_stop_in_reverse(make_schema):
    events = []
    job = job_with(make_schema, events)
    with job as entered:
        assert entered is job
        events.append("work")
    assert events == [
        "logger started",
        "alerts started",
        "mlflow started",
        "work",
        "mlflow stopped",
        "alerts stopped",
        "logger stopped",
    ]


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        ("logger", []),
        ("alerts", ["logger started", "logger stopped"]),
        ("mlflow", ["logger started", "alerts started", "alerts stopped", "logger stopped"]),
    ],
)
def test_started_services_are_stopped_if_a_later_one_fails_to_start(make_schema, failing, expected):
    events = []
    with (
        pytest.raises(DependencyError, match=f"{failing} does not start"),
        job_with(make_schema, events, **{failing: True}),
    ):
        events.append("work")
    assert events == expected


def test_services_are_stopped_and_an_alert_is_sent_if_the_job_fails(make_schema, webhook):
    events = []
    job = job_with(make_schema, events).model_copy(update={"alerts": AlertsService()})
    with pytest.raises(DataError, match="bad table"), job:
        raise DataError("bad table")
    assert events == ["logger started", "mlflow started", "mlflow stopped", "logger stopped"]
    assert webhook.received[0][2]["data"] == {"title": "Quiet of m failed", "message": "DataError: bad table"}


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("http://me:hunter2@127.0.0.1:{port}", id="a server"),
        pytest.param("postgresql://me:hunter2@127.0.0.1:{port}/db", id="a database"),
        pytest.param("postgresql://me:hunter2@127.0.0.1:{port}/db", id="a database with its driver"),
        pytest.param("http://me:hunter2@no-such-host.invalid", id="a host that does not exist"),
        pytest.param("http://me:hunter2@127.0.0.1:port", id="a port that is no number"),
    ],
)
@pytest.mark.parametrize("field", ["tracking_uri", "registry_uri"])
def test_an_unreachable_store_is_reported_at_once_without_its_password(workplace, uri, field):
    start = time.monotonic()
    service = MlflowService(
        **({"tracking_uri": f"sqlite:///{workplace}/a.db"} | {field: uri.format(port=closed_port())})
    )
    with pytest.raises(DependencyError, match="cannot be used") as caught:
        service.start()
    assert time.monotonic() - start < 10
    assert caught.value.exit_code == 5
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value) or "no-such-host.invalid" in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite:///file/x.db", "sqlite:///words.db", "nodriver"])
def test_an_invalid_database_is_reported(workplace, uri):
    Path("file").touch()
    Path("words.db").write_text("no database " * 200)
    if uri == "nodriver":
        uri = "sqlite+nodriver:///x.db"  # no such driver exists
    with pytest.raises(DependencyError, match=r"MLflow at .* cannot be used"):
        MlflowService(tracking_uri=uri).start()


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        pytest.param("http://me:p%40ss@host:5000/x", "failed at http://me:p%40ss@host:5000/x", id="percent-encoded"),
        pytest.param("postgresql://me:p%40ss@host/db", "password p@ss is wrong", id="decoded"),
    ],
)
def test_a_password_in_a_foreign_error_message_is_masked(uri, reason):
    message = unreachable_error(uri, OSError(reason)).message
    assert "host" in message
    assert "p@ss" not in message
    assert "p%40ss" not in message


def test_a_run_is_recorded_in_the_experiment_and_can_be_reopened(mlflow_service, workplace):
    # given a run
    with mlflow_service.run("train", experiment="things", tags={"job": "x"}) as run:
        mlflow.log_metric("a", 1)
        mlflow.log_text("words", "words.txt")
    # when it is opened again
    with mlflow_service.run("evaluate", experiment="things", run_id=run.info.run_id):
        mlflow.log_metric("b", 2)
    # then it holds both, under its first name, with its files in the configured folder
    result = mlflow.get_run(run.info.run_id)
    assert result.data.metrics == {"a": 1, "b": 2}
    assert (result.info.run_name, result.data.tags["job"], result.info.status) == ("train", "x", "FINISHED")
    assert mlflow.get_experiment(result.info.experiment_id).name == "things"
    assert result.info.artifact_uri.startswith(f"file://{workplace}/mlartifacts/things/")
    assert list(workplace.glob("mlartifacts/things/*/artifacts/words.txt"))


def test_the_configured_experiment_takes_precedence(mlflow_service):
    service = mlflow_service.model_copy(update={"experiment": "mine"})
    with service.run("x", experiment="theirs") as run:
        experiment = mlflow.get_experiment(run.info.experiment_id).name
    assert experiment == "mine"


def test_a_failed_run_is_marked_and_its_error_propagates(mlflow_service):
    with pytest.raises(DataError, match="bad"), mlflow_service.run("x", experiment="things") as run:
        raise DataError("bad")
    assert mlflow.get_run(run.info.run_id).info.status == "FAILED"
    assert mlflow.active_run() is None


def test_an_unknown_run_is_reported(mlflow_service):
    with (
        pytest.raises(DependencyError, match="0000 not found"),
        mlflow_service.run("x", experiment="things", run_id="0" * 32),
    ):
        pytest.fail("there is no such run")


def test_stop_ends_an_open_run(mlflow_service):
    mlflow.set_experiment(experiment_id=mlflow_service.experiment_id("things"))
    run = mlflow.start_run()
    mlflow_service.stop()
    assert mlflow.active_run() is None
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"


BINARIES = Path(shutil.which("postgres") or "/nowhere/postgres").resolve().parent


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """Start a PostgreSQL server and return the URI of its database."""
    if not (BINARIES / "initdb").exists():
        pytest.skip("there is no PostgreSQL here")
    folder = tmp_path_factory.mktemp("postgres")
    user = {}
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        shutil.chown(folder, "postgres")
        for parent in (folder, *folder.parents[:3]):  # one more if tests run in parallel
            parent.chmod(0o755)
        user = {"user": "postgres"}
    port = closed_port()
    password = folder / "password"
    password.write_text("hunter2")
    password.chmod(0o644)

    def run(name, *arguments):
        subprocess.run([str(BINARIES / name), *arguments], check=True, capture_output=True, cwd=folder, **user)

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "me", "-A", "scram-sha-256", "--pwfile", str(password), "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    run("pg_ctl", "-D", data, "-l", str(folder / "data" / "log"), "-w", "-o", options, "start")
    yield f"postgresql://me:hunter2@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.mark.postgres
def test_postgresql_stores_runs_and_versions(workplace, postgres):
    service = MlflowService(tracking_uri=postgres, artifacts=str(workplace / "artifacts"))
    service.start()
    with service.run("x", experiment="things") as run:
        mlflow.log_metric("a", 1)
    assert mlflow.get_run(run.info.run_id).data.metrics == {"a": 1}
    with pytest.raises(NotFoundError, match="holds no version"):
        Registry("things").resolve("1")
    service.stop()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"hunter2": "guess1"}, "password authentication failed", id="a wrong password"),
        pytest.param({"/postgres": "/nope"}, 'database "nope" does not exist', id="a database that does not exist"),
    ],
)
def test_a_refusal_by_postgresql_is_reported_without_the_password(workplace, postgres, wrong, reason):
    for old, new in wrong.items():
        scheme, rest = postgres.split("://")
        postgres = f"{scheme}://{rest.replace(old, new)}"
    with pytest.raises(DependencyError, match=reason) as caught:
        MlflowService(tracking_uri=postgres).start()
    assert "hunter2" not in str(caught.value)
    assert "guess1" not in str(caught.value)
