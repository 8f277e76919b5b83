"""Submission to Kubeflow, against a fake API that records calls and rejects invalid ones."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from model_name.errors import ConfigError, DependencyError
from model_name.io.osvariables import env
from pipelines import remote
from pipelines.compiling import compile_pipeline
from tests.support import projects

TOKEN = "let-me-in"


class Kubeflow(BaseHTTPRequestHandler):
    """API with the calls of `kfp.Client` that this project makes; 401 for a wrong token, 404 for another call."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        responses = {
            "/apis/v2beta1/healthz": {"multi_user": False},
            "/apis/v2beta1/experiments": {"experiments": [{"experiment_id": "e1", "display_name": "nightly"}]},
            "/apis/v2beta1/experiments/e1": {"experiment_id": "e1", "display_name": "nightly"},
            "/apis/v2beta1/recurringruns": {
                "recurringRuns": [{"recurring_run_id": "old", "display_name": "model-name-training"}]
            },
        }
        self.respond(responses)

    def do_POST(self):
        responses = {
            "/apis/v2beta1/experiments": {"experiment_id": "e1", "display_name": "nightly"},
            "/apis/v2beta1/runs": {"run_id": "r1", "experiment_id": "e1"},
            "/apis/v2beta1/recurringruns": {"recurring_run_id": "s1", "display_name": "model-name-training"},
        }
        self.respond(responses)

    def do_DELETE(self):
        self.respond({"/apis/v2beta1/recurringruns/old": {}})

    def respond(self, responses):
        path = self.path.split("?")[0]
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or "null") if length else None
        self.server.calls.append((self.command, path, body))
        allowed = self.headers.get("authorization") == f"Bearer {TOKEN}"
        status = 401 if not allowed else 200 if path in responses else 404
        text = json.dumps(responses.get(path, {"error": "no"}) if allowed else {"error": "unauthorized"}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def host(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kubeflow)
    server.calls = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KF_PIPELINES_TOKEN", TOKEN)
    env.cache_clear()
    yield server
    server.shutdown()
    server.server_close()
    env.cache_clear()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    confs = projects.make_project(tmp_path_factory.mktemp("remote"))
    return compile_pipeline("training", str(confs), out=str(confs.parent / "training.yaml"))


def url(host):
    return f"http://127.0.0.1:{host.server_port}"


def test_submit_starts_a_run_with_its_spec_and_arguments(host, package):
    result = remote.submit(
        package, {"table": "s3://b/t.parquet"}, host=url(host), namespace="kubeflow", experiment="nightly"
    )
    assert result == {"run": "r1", "experiment": "nightly"}
    (body,) = [body for method, path, body in host.calls if (method, path) == ("POST", "/apis/v2beta1/runs")]
    assert body["runtime_config"]["parameters"] == {"table": "s3://b/t.parquet"}
    assert "comp-training" in json.dumps(body["pipeline_spec"])


def test_schedule_replaces_the_one_of_the_same_name(host, package):
    result = remote.schedule(
        package,
        {"table": ""},
        host=url(host),
        namespace="kubeflow",
        experiment="nightly",
        name="model-name-training",
        cron="0 0 2 * * *",
    )
    assert result["schedule"] == "s1"
    calls = [(method, path) for method, path, _ in host.calls]
    assert calls.index(("DELETE", "/apis/v2beta1/recurringruns/old")) < calls.index(
        ("POST", "/apis/v2beta1/recurringruns")
    )
    (body,) = [body for method, path, body in host.calls if (method, path) == ("POST", "/apis/v2beta1/recurringruns")]
    assert body["trigger"]["cron_schedule"]["cron"] == "0 0 2 * * *"
    assert int(body["max_concurrency"]) == 1


def test_a_wrong_token_is_reported_without_the_token(host, package, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "stolen-token")
    env.cache_clear()
    with pytest.raises(DependencyError, match="401") as error:
        remote.submit(package, {}, host=url(host), namespace="kubeflow", experiment="nightly")
    assert "stolen-token" not in str(error.value)


def test_an_unreachable_host_is_reported(package):
    with pytest.raises(DependencyError, match=r"Kubeflow at http://127\.0\.0\.1:9"):
        remote.submit(package, {}, host="http://127.0.0.1:9", namespace="kubeflow", experiment="nightly")


def test_a_missing_host_hints_at_the_option(package, monkeypatch):
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    env.cache_clear()
    with pytest.raises(ConfigError, match="no Kubeflow host"):
        remote.submit(package, {}, host="", namespace="kubeflow", experiment="nightly")
