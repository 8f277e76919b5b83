"""An explainer process, called by real clients."""

import json
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from model_name.core import dataframes
from model_name.explainer.__main__ import main
from model_name.serving.batching.batcher import LARGE_BODY_BYTES
from tests.support.signing_keys import make_key_pair, sign

PATH = "/v1/models/things:explain"
KINDS = [
    "BoostedTrees",
    *(
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in ("RandomForest", "LinearModel", "TabularNetwork", "AutoModel")
    ),
]


@pytest.fixture(scope="session")
def server(explainer_of):
    """Return the explainer of boosted trees, a regression."""
    return explainer_of("BoostedTrees")


def explain(server, instances, **more):
    return server.client.post(PATH, json={"instances": instances} | more)


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_add_up_over_http(explainer_of, rows, kind):
    response = explain(explainer_of(kind), rows)
    assert response.status_code == 200
    explained = response.json()["explanations"]
    assert len(explained) == len(rows)
    for row in explained:
        assert row["base_value"] + sum(row["values"].values()) == pytest.approx(row["score"], abs=2e-4, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_requests_get_equal_responses_under_load(explainer_of, rows, kind):
    # Given the response to each row alone
    alone = [explain(explainer_of(kind), [row]).content for row in rows]
    # When clients send small requests and a large one concurrently
    large = {"instances": rows, "parameters": {"padding": "x" * LARGE_BODY_BYTES}}
    with ThreadPoolExecutor(8) as pool:
        other = pool.submit(explainer_of(kind).client.post, PATH, json=large)
        together = list(pool.map(lambda row: explain(explainer_of(kind), [row]).content, rows * 3))
    # Then the responses are the same
    assert together == alone * 3
    assert len(other.result().json()["explanations"]) == len(rows)


def test_rows_may_be_arrays(server, rows):
    by_name, by_position = (explain(server, some).json() for some in (rows, [list(row.values()) for row in rows]))
    assert by_name == by_position


def test_request_headers_are_not_echoed(server, rows, tmp_path):
    # Given a request with secret headers
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": rows[:1]}))
    secrets = ["-H", "X-Secret: hush", "-H", "Authorization: Bearer hush", "-H", "Cookie: hush=hush"]
    # When it is sent by curl
    command = ["curl", "-si", *secrets, "-d", f"@{body}", server.url + PATH]
    response = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Then neither headers nor body of the response contain them, and the version is in the headers
    head, _, text = response.partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "x-model-version: 7" in head
    assert "x-model-semver: 1.2.3" in head
    assert "hush" not in response
    assert "secret" not in response.lower()
    assert set(json.loads(text)) == {"explanations", "scale"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"size": "wide"}, "size: not a number", id="text where a number belongs"),
        pytest.param({"size": None}, "size: is missing", id="null for an input that may not be missing"),
        pytest.param({"colour": "red"}, "colour: ", id="an unknown column"),
        pytest.param({"size": 1e300}, "size: 1e+300 is too large for float32", id="a number beyond float32"),
    ],
)
def test_invalid_row_is_rejected_with_its_reason(server, rows, change, reason):
    response = explain(server, [rows[0] | change])
    assert response.status_code == 400
    assert response.json()["error"].startswith(reason)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        pytest.param(b"{", 400, "", id="no JSON"),
        pytest.param(b"[]", 400, 'the body is not an object with "instances"', id="no object"),
        pytest.param(b'{"instances": []}', 400, "the request holds no row", id="no row"),
        pytest.param(b'{"instances": [{}], "parameters": 1}', 400, '"parameters" is not an object', id="no parameters"),
        pytest.param(
            b'{"instances": [' + b"{}," * 1000 + b"{}]}",
            413,
            "the request has 1001 rows, this server takes 1000 at once",
            id="too many rows",
        ),
    ],
)
def test_invalid_body_is_rejected_with_its_reason(server, body, status, reason):
    response = server.client.post(PATH, content=body)
    assert response.status_code == status
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        pytest.param("POST", "/v1/models/things:predict", 501, "its predictor is another server", id="predict of V1"),
        pytest.param("POST", "/v2/models/things/infer", 501, "its predictor is another server", id="infer of V2"),
        pytest.param("POST", "/v1/models/others:explain", 404, "there is no model others here", id="another model"),
        pytest.param("GET", PATH, 405, "that is POST", id="another method"),
    ],
)
def test_unsupported_request_is_rejected_with_its_reason(server, rows, method, path, status, reason):
    response = server.client.request(method, path, json={"instances": rows[:1]})
    assert response.status_code == status
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    "path",
    ["/v1/models/things", "/v2/models/things/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/things"],
)
def test_probes_and_metadata_return_200(server, path):
    assert server.client.get(path).status_code == 200


def test_explanations_are_counted_in_the_metrics(server, rows):
    explain(server, rows[:1])
    text = server.client.get("/metrics").text
    assert 'model_name_requests_total{code="200",protocol="v1",route="explain"}' in text
    assert 'model_name_model_info{name="things"' in text


@pytest.mark.slow
def test_sigterm_drains_and_exits_with_0(save_model, fitted, start_explainer, tmp_path, rows):
    # Given an explainer with a slow request in flight
    server = start_explainer(save_model(fitted("RandomForest", "regression"), tmp_path / "model")).wait()
    many = [row for row in rows for _ in range(80)]
    responses = []
    thread = threading.Thread(
        target=lambda: responses.append(httpx.post(server.url + PATH, json={"instances": many}, timeout=60))
    )
    thread.start()
    time.sleep(0.1)
    # When it receives SIGTERM
    code = server.stop()
    thread.join()
    # Then the request is answered, and the exit code is 0
    assert code == 0
    assert len(responses[0].json()["explanations"]) == len(many)


@pytest.mark.slow
def test_token_is_required_if_one_is_set(save_model, fitted, start_explainer, tmp_path, rows):
    folder = save_model(fitted("LinearModel", "regression"), tmp_path / "model")
    server = start_explainer(folder, MODEL_NAME_TOKEN="token").wait()
    assert explain(server, rows[:1]).status_code == 401
    server.client.headers["Authorization"] = "Bearer token"
    assert explain(server, rows[:1]).status_code == 200


@pytest.mark.slow
def test_new_version_in_the_directory_is_loaded(save_model, fitted, start_explainer, tmp_path, rows):
    # Given an explainer that checks its directory often
    folder = save_model(fitted("LinearModel", "regression"), tmp_path / "model")
    server = start_explainer(folder, "--watch_seconds", "0.2").wait()
    before = explain(server, rows)
    # When the manifest of another model is written, then it is rejected
    manifest = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(manifest.replace("f" * 32, "0" * 32))
    wait_until(lambda: "is of run 000" in server.output())
    assert explain(server, rows).headers["x-model-semver"] == "1.2.3"
    # And when another version is written, then it is served
    save_model(fitted("BoostedTrees", "regression"), folder, semver="1.3.0", version="8")
    wait_until(lambda: explain(server, rows).headers["x-model-semver"] == "1.3.0")
    assert explain(server, rows).json() != before.json()


@pytest.mark.slow
def test_signature_is_required_if_a_public_key_is_set(save_model, fitted, start_explainer, tmp_path, rows):
    # Given an explainer that requires a signature
    key = make_key_pair(tmp_path, "key")
    folder = save_model(fitted("LinearModel", "regression"), tmp_path / "model", vouched=True)
    sign(folder, key)
    options = ("--bundle_public_key", str(key.public_file), "--watch_seconds", "0.2")
    server = start_explainer(folder, *options).wait()
    # When an unsigned version comes, then the old one stays
    new = save_model(fitted("BoostedTrees", "regression"), tmp_path / "new", vouched=True, version="8")
    folder.rename(tmp_path / "old")
    new.rename(folder)
    wait_until(lambda: "is not signed, bundle.json.sig is missing" in server.output())
    assert explain(server, rows).headers["x-model-version"] == "7"
    # And when it is signed, then it is served
    sign(folder, key)
    wait_until(lambda: explain(server, rows).headers["x-model-version"] == "8")


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not met within {seconds} s"
        time.sleep(0.1)


@pytest.mark.slow
def test_plugin_model_is_explained_without_the_plugin(
    save_model, make_schema, make_table, start_explainer, tmp_path, rows, monkeypatch
):
    # Given a kind that is defined in a module outside the project
    source = """
        from typing import Literal
        import numpy as np
        from model_name.core.models import Model

        class Slope(Model):
            KIND: Literal["Slope"] = "Slope"

            def fit_matrix(self, matrix, targets, context):
                pass

            def score_matrix(self, matrix):
                return 2.0 * matrix[:, 0].astype(np.float64)

            def to_onnx(self):
                raise NotImplementedError
    """
    (tmp_path / "slopes_of_the_explainers_test.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    from slopes_of_the_explainers_test import Slope

    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    folder = save_model(Slope().fit(make_schema("regression"), table), tmp_path / "saved")
    # When it is served by a process that cannot import the module
    server = start_explainer(folder).wait()
    # Then it is explained by permutation
    for row, sent in zip(explain(server, rows).json()["explanations"], rows, strict=True):
        assert row["prediction"] == 2.0 * sent["size"]
        assert row["values"]["size"] == pytest.approx(row["score"] - row["base_value"])


def test_prediction_log_has_no_effect_and_causes_a_warning(save_model, fitted, start_explainer, tmp_path, rows):
    folder = save_model(fitted("BoostedTrees", "regression"), tmp_path / "model")
    server = start_explainer(folder, "--prediction_log", str(tmp_path / "log")).wait()
    assert explain(server, rows).status_code == 200
    assert "--prediction_log has no effect: explanations are not logged" in server.output()
    assert not (tmp_path / "log").exists()


def test_missing_model_ends_with_exit_code_4(tmp_path):
    command = [sys.executable, "-m", "model_name.explainer", "--model", str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 4
    assert "bundle.json is missing" in process.stderr


def test_several_workers_are_refused(tmp_path, capsys):
    assert main(["--model", str(tmp_path), "--workers", "2"]) == 2
    assert "--workers" in capsys.readouterr().err


def test_grpc_is_refused_before_the_model_is_loaded(tmp_path, capsys):
    assert main(["--model", str(tmp_path), "--enable_grpc", "true"]) == 2
    assert capsys.readouterr().err.startswith("error: --enable_grpc: the explainer serves REST alone\n")
