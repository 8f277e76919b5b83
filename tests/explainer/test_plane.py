"""The explainer plane explains requests for every kind of model and every task."""

import gc
import json
import pickle
import shutil
import stat
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision
from model_name.core.models.explanation import softmax
from model_name.errors import DataError, NotFoundError
from model_name.explainer.plane import ExplainerPlane, ModelBackend, explain_batch, load_plane
from model_name.serving.bundle import MANIFEST_FILE, write_manifest
from model_name.serving.bundle_signature import SignatureVerifier
from model_name.serving.dataplane import rows_to_columns
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import V1Request
from tests.support.signing_keys import make_key_pair, sign

KINDS = ("BoostedTrees", "RandomForest", "LinearModel", "TabularNetwork", "ConstantModel", "AutoModel")
LOG_ODDS = ("BoostedTrees", "LinearModel")
LABELS: dict[str, Any] = {"binary": [False, True], "multiclass": ["low", "mid", "high"]}


@pytest.fixture
def plane(fitted, make_manifest, tmp_path):
    """Return `plane(kind, task, **manifest)`, which builds an explainer plane."""

    def make(kind, task, **changes):
        model = fitted(kind, task)
        return ExplainerPlane(ModelBackend(tmp_path, model, make_manifest(model, **changes)))

    return make


def explain_rows(plane, rows, **options):
    return plane.explain(rows_to_columns(rows, plane.inputs), **options)


def frame_of(model, rows):
    schema = model.schema_
    return dataframes.from_columns(schema.check_request(rows_to_columns(rows, list(schema.inputs))), schema)


def scores_of(model, frame, scale):
    """Compute the scores to be explained, one per row and class, without the explainer if possible."""
    scores = model.scores(frame).reshape(len(frame), -1)
    if scale != "log-odds":
        return scores
    if scores.shape[1] == 2:
        return np.log(scores) - np.log(scores[:, :1])
    raw = model.explain(frame).scores
    np.testing.assert_allclose(softmax(raw), scores, atol=1e-6)
    return raw


@pytest.mark.parametrize("kind", KINDS)
def test_base_value_and_contributions_add_up_to_the_score(plane, fitted, rows, kind, task):
    # Given a fitted model, when rows are explained
    model, explained = fitted(kind, task), explain_rows(plane(kind, task), rows)
    # Then the explanation states the scale of the score
    scale = "prediction" if task == "regression" else "log-odds" if kind in LOG_ODDS else "probability"
    assert explained["scale"] == scale
    # And each row adds up to the score, with a value for each feature
    for row in explained["explanations"]:
        assert list(row["values"]) == model.features.names
        assert row["base_value"] + sum(row["values"].values()) == pytest.approx(row["score"], abs=2e-4, rel=1e-4)
    # And it is the score of the named class (the positive one of two), or the prediction
    for row, scores in zip(explained["explanations"], scores_of(model, frame_of(model, rows), scale), strict=True):
        position = LABELS[task].index(row["class"]) if task != "regression" else 0
        assert row["score"] == pytest.approx(scores[position], abs=2e-4, rel=1e-4)
        assert row.get("class") == {"regression": None, "binary": True, "multiclass": row["prediction"]}[task]


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_is_that_of_the_model(plane, fitted, rows, kind, task):
    model = fitted(kind, task)
    expected = model.predict(frame_of(model, rows))["prediction"].tolist()
    assert [row["prediction"] for row in explain_rows(plane(kind, task), rows)["explanations"]] == pytest.approx(
        expected
    )


@pytest.mark.parametrize("kind", KINDS)
def test_explanation_does_not_depend_on_other_rows(plane, rows, kind):
    served = plane(kind, "regression")
    together = explain_rows(served, rows)["explanations"]
    for row, expected in zip(rows, together, strict=True):
        (alone,) = explain_rows(served, [row])["explanations"]
        assert alone["score"] == pytest.approx(expected["score"], rel=1e-5)
        assert alone["base_value"] == pytest.approx(expected["base_value"], rel=1e-5)
        if kind != "TabularNetwork":  # samples new paths for each row of a request
            assert alone["values"] == pytest.approx(expected["values"], abs=1e-6)


def test_equal_rows_without_variance_are_explained(plane, rows):
    assert len(explain_rows(plane("AutoModel", "binary"), [rows[0]] * 3)["explanations"]) == 3


def test_requested_interval_is_returned_with_the_prediction(plane, rows):
    (row,) = explain_rows(plane("BoostedTrees", "regression"), rows[:1], interval=0.9)["explanations"]
    assert row["lower"] < row["prediction"] < row["upper"]
    with pytest.raises(DataError, match=r"0\.5"):
        explain_rows(plane("BoostedTrees", "regression"), rows[:1], interval=0.5)


def test_requests_of_a_batch_are_explained_independently(plane, rows):
    # Given malformed requests between valid ones
    served = plane("TabularNetwork", "binary")
    body = json.dumps({"instances": rows[:2]}).encode()
    requests = [V1Request(text, "x") for text in (body, b'{"instances": [{"size": 1}]}', b"{", body)]
    # When they are explained in one batch
    first, second, third, fourth = explain_batch(served, requests, Limits()).responses
    # Then only the malformed ones fail, and equal requests get equal responses
    assert isinstance(second, DataError)
    assert isinstance(third, DataError)
    assert first == fourth
    assert b'"explanations"' in first


def test_positive_class_is_explained_at_any_threshold(plane, rows):
    # Given a decision that never predicts the positive class
    served = plane("RandomForest", "binary", decision=Decision(threshold=1.0))
    # Then the positive class is still explained
    explained = explain_rows(served, rows)["explanations"]
    assert {(row["prediction"], row["class"]) for row in explained} == {(False, True)}


def test_saved_model_is_loaded(save_model, fitted, tmp_path, rows):
    folder = save_model(fitted("LinearModel", "binary"), tmp_path / "model", semver="2.0.0")
    plane = load_plane(folder)
    assert plane.bundle.manifest.semver == "2.0.0"
    assert len(explain_rows(plane, rows)["explanations"]) == len(rows)


def test_incomplete_model_directory_is_refused(save_model, fitted, tmp_path):
    folder = save_model(fitted("ConstantModel", "binary"), tmp_path / "model")
    manifest = (folder / MANIFEST_FILE).read_bytes()
    with pytest.raises(NotFoundError, match=r"bundle\.json is missing"):
        load_plane(tmp_path)
    (tmp_path / MANIFEST_FILE).write_bytes(manifest)
    with pytest.raises(NotFoundError, match=r"things 1\.2\.3 cannot be loaded from"):
        load_plane(tmp_path)
    (folder / "python_model.pkl").write_bytes((folder / "python_model.pkl").read_bytes()[:100])
    with pytest.raises(NotFoundError, match=r"things 1\.2\.3 cannot be loaded from"):
        load_plane(folder)


def test_manifest_of_another_run_is_refused(save_model, make_manifest, fitted, tmp_path):
    model = fitted("ConstantModel", "binary")
    folder = save_model(model, tmp_path / "model")
    write_manifest(folder, make_manifest(model, run_id="0" * 32))
    with pytest.raises(DataError, match=r"is of run 0+, the model beside it of run f+"):
        load_plane(folder)


def test_model_is_loaded_from_a_copy_of_the_files_that_were_verified(save_model, fitted, tmp_path, rows):
    # Given a model whose manifest vouches for its files
    folder = save_model(fitted("LinearModel", "binary"), tmp_path / "model", vouched=True)
    # When it is loaded
    plane = load_plane(folder)
    # Then a private copy was loaded, without files that the manifest does not list
    copy = Path(plane.bundle.verified_copy.name)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    assert {path.name for path in copy.iterdir()} >= {"MLmodel", "python_model.pkl"}
    assert not (copy / MANIFEST_FILE).exists()
    assert len(explain_rows(plane, rows)["explanations"]) == len(rows)
    # And the copy is removed with the model
    del plane
    gc.collect()
    assert not copy.exists()


@pytest.mark.parametrize("name", ["python_model.pkl", "MLmodel", "requirements.txt"])
def test_changed_file_of_a_model_is_refused_before_it_is_loaded(save_model, fitted, tmp_path, name):
    folder = save_model(fitted("ConstantModel", "binary"), tmp_path / "model", vouched=True)
    evil = tmp_path / "evil"
    content = pickle.dumps(Touch(evil)) if name == "python_model.pkl" else (folder / name).read_bytes() + b"\n"
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: is not the file that the bundle was written with"):
        load_plane(folder)
    assert not evil.exists()


class Touch:
    """Object whose unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_model_must_be_signed_if_a_public_key_is_configured(save_model, fitted, tmp_path):
    # Given an unsigned model
    key = make_key_pair(tmp_path, "key")
    verifier = SignatureVerifier(key.public_file)
    folder = save_model(fitted("ConstantModel", "binary"), tmp_path / "model", vouched=True)
    with pytest.raises(DataError, match="is not signed"):
        load_plane(folder, verifier=verifier)
    # When it is signed, then it is loaded
    sign(folder, key)
    assert load_plane(folder, verifier=verifier).bundle.manifest.version == "7"
    # And one whose manifest does not list the files of the model is refused, even if it is signed
    folder = save_model(fitted("ConstantModel", "binary"), tmp_path / "earlier")
    sign(folder, key)
    with pytest.raises(DataError, match=r"bundle\.json: does not vouch for MLmodel"):
        load_plane(folder, verifier=verifier)


def test_manifest_and_model_are_of_one_version_while_they_are_replaced(save_model, fitted, tmp_path):
    # Given two versions of one run, which replace each other file by file
    kinds = {"7": "ConstantModel", "8": "LinearModel"}
    for version, kind in kinds.items():
        save_model(fitted(kind, "binary"), tmp_path / version, vouched=True, version=version)
    live = Path(shutil.copytree(tmp_path / "7", tmp_path / "live"))
    is_over = Event()

    def replace():
        while True:
            for version in ("8", "7"):
                for name in ("MLmodel", "python_model.pkl", MANIFEST_FILE):
                    shutil.copy(tmp_path / version / name, tmp_path / "next")
                    (tmp_path / "next").replace(live / name)
                    if is_over.wait(0.02):
                        return
                if is_over.wait(0.6):
                    return

    thread = Thread(target=replace)
    thread.start()
    # When the folder is loaded again and again, then each model is that of its manifest, or none is loaded
    loaded = set()
    deadline = time.monotonic() + 60
    while len(loaded) < 2 and time.monotonic() < deadline:
        try:
            backend = load_plane(live).bundle
        except (DataError, NotFoundError):
            continue
        assert kinds[backend.manifest.version] == backend.model.KIND
        loaded.add(backend.manifest.version)
    is_over.set()
    thread.join()
    assert loaded == kinds.keys()


def test_data_frames_and_requests_are_explained_equally(plane, fitted, rows):
    model = fitted("BoostedTrees", "multiclass")
    expected = model.explain_samples(frame_of(model, rows))
    explained = explain_rows(plane("BoostedTrees", "multiclass"), rows)["explanations"]
    pd.testing.assert_frame_equal(pd.DataFrame([row["values"] for row in explained]), expected)
