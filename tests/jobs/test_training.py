"""Training job: warm starts, and signed bundles."""

from pathlib import Path

import mlflow
import pytest

from model_name.errors import ConfigError, NotFoundError
from model_name.explainer.plane import load_plane
from model_name.io.osvariables import env
from model_name.serving.bundle import Bundle, read_manifest
from model_name.serving.bundle_signature import SignatureVerifier
from model_name.settings import load_job
from model_name.training.signing import load_signing_key
from tests.support import projects
from tests.support.signing_keys import make_key_pair

NETWORK = {"KIND": "TabularNetwork", "hidden": 16, "bins": 8, "max_epochs": 3}


def run(confs, **changes):
    projects.write_yaml(confs / "training.yaml", {"job": {"KIND": "TrainingJob", "model": NETWORK} | changes})
    with load_job([confs / "training.yaml"]) as job:
        return job.run()


def test_a_warm_start_is_logged_and_gives_other_weights(tmp_path):
    # given a registered network
    confs = projects.make_project(tmp_path)
    first = run(confs)
    # when the next training starts from it
    second = run(confs, warm_start="latest")
    # then its run names the first version, and its metrics differ
    logged = mlflow.get_run(second.run_id).data
    assert (logged.params["warm_start"], logged.tags["warm_start"]) == (first.semver, "orders 1.0.0 (version 1)")
    assert second.metrics != first.metrics
    # and trees cannot start from it
    with pytest.raises(ConfigError, match="BoostedTrees cannot begin"):
        run(confs, model={"KIND": "BoostedTrees"}, warm_start="1")


def test_a_missing_warm_start_version_is_refused_first(tmp_path):
    with pytest.raises(NotFoundError, match="no version"):
        run(projects.make_project(tmp_path), warm_start="champion")


def test_a_warm_started_version_inherits_the_intervals(tmp_path):
    # given a network trained for enough epochs, and one that continues it for one epoch
    confs = projects.make_project(tmp_path)
    first = run(confs, model=NETWORK | {"max_epochs": 6})
    second = run(confs, model=NETWORK | {"max_epochs": 1}, warm_start=int(first.version))
    # then its intervals are those of the first, not of a copy trained for one epoch
    decisions = [read_manifest(Path(result.bundle)).decision for result in (first, second)]
    assert decisions[1] == decisions[0]
    assert decisions[0].intervals is not None
    # and its learning curve is skipped, because that would need fits from scratch
    with load_job([confs / "evaluations.yaml"], ["job.ref=2"]) as job:
        assert "began from the weights" in job.run().learning_skipped


def test_costs_are_refused_with_a_warm_start(tmp_path):
    confs = projects.make_project(tmp_path, "binary")
    run(confs)
    with pytest.raises(ConfigError, match="by a fit from scratch"):
        run(confs, warm_start="latest", costs={"false_positive": 1, "false_negative": 5})


TREES = {"KIND": "BoostedTrees", "max_iter": 5}


def test_bundle_and_model_are_signed_with_the_key_of_the_environment(workplace, monkeypatch, capfd):
    # given a private key
    confs, key = projects.make_project(workplace), make_key_pair(workplace, "key")
    monkeypatch.setenv("MODEL_NAME_BUNDLE_PRIVATE_KEY_FILE", str(key.private_file))
    env.cache_clear()
    # when a version is trained
    result = run(confs, model=TREES, export={"sign": True})
    # then its bundle is loaded by a server that requires the signature, from both places
    verifier = SignatureVerifier(key.public_file)
    assert Bundle.load(Path(result.bundle), verifier=verifier).manifest.version == "1"
    with load_job([confs / "training.yaml"]) as job:
        downloaded = job.registry.download_bundle("latest", workplace / "downloaded")
        model = job.registry.download_model("latest", workplace / "model")
    assert Bundle.load(downloaded, verifier=verifier).manifest.semver == "1.0.0"
    # and so is its model by the explainer
    assert load_plane(model, verifier=verifier).bundle.manifest.semver == "1.0.0"
    # and the key is nowhere but in its file
    secret = key.private_file.read_text().splitlines()[1]
    assert secret not in "".join(capfd.readouterr()) + str(mlflow.get_run(result.run_id).to_dictionary())


def test_key_may_be_in_the_environment(workplace, monkeypatch):
    key = make_key_pair(workplace, "key")
    monkeypatch.setenv("MODEL_NAME_BUNDLE_PRIVATE_KEY", key.private_file.read_text())
    env.cache_clear()
    assert load_signing_key().sign(b"") == key.private.sign(b"")


def test_missing_key_is_refused_first(workplace):
    with pytest.raises(ConfigError, match="there is no key that signs bundles"):
        run(projects.make_project(workplace), model=TREES, export={"sign": True}, table={"path": "nowhere.parquet"})


def test_unreadable_key_is_refused(workplace, monkeypatch):
    monkeypatch.setenv("MODEL_NAME_BUNDLE_PRIVATE_KEY_FILE", "nowhere.pem")
    env.cache_clear()
    with pytest.raises(ConfigError, match=r"nowhere\.pem: the key that signs bundles cannot be read: No such file"):
        load_signing_key()
