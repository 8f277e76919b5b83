"""A registered model is explained with the commands of a user."""

import json
import subprocess
import sys

import pytest

from model_name.scripts import main
from model_name.serving.bundle import MANIFEST_FILE
from model_name.settings import load_job
from tests.support import projects
from tests.support.server_processes import Server, free_ports


@pytest.mark.slow
def test_registered_version_is_explained_by_one_command(workplace, tmp_path):
    # Given a trained model
    confs = projects.make_project(workplace, "binary")
    with load_job([confs / "training.yaml"]) as job:
        version = job.run()
        # Then its directory in the registry names the version
        folder = job.registry.download_model("latest", tmp_path / "model")
        assert json.loads((folder / MANIFEST_FILE).read_text())["semver"] == version.semver == "1.0.0"
    # When its explainer is started
    http_port, _ = free_ports(2)
    command = [sys.executable, "-m", "model_name", "serve", "latest", "--explainer", "--http-port", str(http_port)]
    store = ["--mlflow", f"sqlite:///{workplace}/mlflow.db", "--drain_seconds", "0.1"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([*command, *store], stdout=file, stderr=subprocess.STDOUT)
    server = Server(process, log, "orders", http_port, 0).wait()
    # Then it explains the example of the bundle
    manifest = json.loads((workplace / "build/bundles/orders/1" / MANIFEST_FILE).read_text())
    response = server.client.post("/v1/models/orders:explain", json={"instances": [manifest["example"]]})
    assert (response.status_code, response.headers["x-model-semver"]) == (200, "1.0.0")
    (row,) = response.json()["explanations"]
    assert row["class"] == "high"
    assert row["base_value"] + sum(row["values"].values()) == pytest.approx(row["score"])
    assert server.stop() == 0


def test_explainer_of_a_bundle_is_refused(capfd):
    assert main(["serve", "--explainer", "--bundle", "somewhere"]) == 2
    assert "a bundle has no model to explain" in capfd.readouterr().err
