"""What explains a request, without a server: every kind, every task."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision
from model_name.core.models.model import softmax
from model_name.errors import DataError, NotFoundError
from model_name.explainer.plane import ExplainerPlane, Fitted, explain, load
from model_name.serving.bundle import MANIFEST, write_manifest
from model_name.serving.dataplane import rows_to_columns
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import V1Request

KINDS = ("BoostedTrees", "RandomForest", "LinearModel", "TabularNetwork", "ConstantModel", "AutoModel")
LOG_ODDS = ("BoostedTrees", "LinearModel")
LABELS: dict[str, Any] = {"binary": [False, True], "multiclass": ["low", "mid", "high"]}


@pytest.fixture
def plane(fitted, make_manifest, tmp_path):
    """`plane(kind, task, **manifest)`."""

    def make(kind, task, **changes):
        model = fitted(kind, task)
        return ExplainerPlane(Fitted(tmp_path, model, make_manifest(model, **changes)))

    return make


def ask(plane, rows, **question):
    return plane.explain(rows_to_columns(rows, plane.inputs), **question)


def frame_of(model, rows):
    schema = model.schema_
    return dataframes.from_columns(schema.check_request(rows_to_columns(rows, list(schema.inputs))), schema)


def scores_of(model, frame, scale):
    """The scores that are to be explained, one a row and class, without an explanation where that can be."""
    scores = model.scores(frame).reshape(len(frame), -1)
    if scale != "log-odds":
        return scores
    if scores.shape[1] == 2:
        return np.log(scores) - np.log(scores[:, :1])
    raw = model.explain(frame).scores
    np.testing.assert_allclose(softmax(raw), scores, atol=1e-6)
    return raw


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_value_and_the_values_add_up_to_the_score(plane, fitted, rows, kind, task):
    # Given a fitted model, when rows are explained
    model, found = fitted(kind, task), ask(plane(kind, task), rows)
    # Then they say of what unit the score is
    scale = "prediction" if task == "regression" else "log-odds" if kind in LOG_ODDS else "probability"
    assert found["scale"] == scale
    # And each row adds up to the score, with a value for each feature
    for row in found["explanations"]:
        assert list(row["values"]) == model.features.names
        assert row["base_value"] + sum(row["values"].values()) == pytest.approx(row["score"], abs=2e-4, rel=1e-4)
    # And that is the score of the class which is named, the positive one of two, or the prediction
    for row, scores in zip(found["explanations"], scores_of(model, frame_of(model, rows), scale), strict=True):
        place = LABELS[task].index(row["class"]) if task != "regression" else 0
        assert row["score"] == pytest.approx(scores[place], abs=2e-4, rel=1e-4)
        assert row.get("class") == {"regression": None, "binary": True, "multiclass": row["prediction"]}[task]


@pytest.mark.parametrize("kind", KINDS)
def test_the_prediction_is_what_the_model_predicts(plane, fitted, rows, kind, task):
    model = fitted(kind, task)
    expected = model.predict(frame_of(model, rows))["prediction"].tolist()
    assert [row["prediction"] for row in ask(plane(kind, task), rows)["explanations"]] == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_is_explained_like_its_like_in_a_table(plane, rows, kind):
    served = plane(kind, "regression")
    together = ask(served, rows)["explanations"]
    for row, expected in zip(rows, together, strict=True):
        (alone,) = ask(served, [row])["explanations"]
        assert alone["score"] == pytest.approx(expected["score"], rel=1e-5)
        assert alone["base_value"] == pytest.approx(expected["base_value"], rel=1e-5)
        if kind != "TabularNetwork":  # whose lines are drawn anew for each row of a request
            assert alone["values"] == pytest.approx(expected["values"], abs=1e-6)


def test_equal_rows_are_explained_although_they_have_no_spread(plane, rows):
    assert len(ask(plane("AutoModel", "binary"), [rows[0]] * 3)["explanations"]) == 3


def test_an_interval_that_is_asked_for_stands_beside_the_prediction(plane, rows):
    (row,) = ask(plane("BoostedTrees", "regression"), rows[:1], interval=0.9)["explanations"]
    assert row["lower"] < row["prediction"] < row["upper"]
    with pytest.raises(DataError, match=r"0\.5"):
        ask(plane("BoostedTrees", "regression"), rows[:1], interval=0.5)


def test_requests_of_one_batch_are_answered_each_by_itself(plane, rows):
    # Given a request that is malformed between good ones
    served = plane("TabularNetwork", "binary")
    body = json.dumps({"instances": rows[:2]}).encode()
    requests = [V1Request(text, "x") for text in (body, b'{"instances": [{"size": 1}]}', b"{", body)]
    # When they come together
    first, second, third, fourth = explain(served, requests, Limits()).responses
    # Then it alone is refused, and equal ones are answered alike
    assert isinstance(second, DataError)
    assert isinstance(third, DataError)
    assert first == fourth
    assert b'"explanations"' in first


def test_the_positive_class_is_explained_whatever_the_threshold(plane, rows):
    # Given a decision that never says yes
    served = plane("RandomForest", "binary", decision=Decision(threshold=1.0))
    # Then it is still yes that is explained
    found = ask(served, rows)["explanations"]
    assert {(row["prediction"], row["class"]) for row in found} == {(False, True)}


def test_a_saved_model_is_loaded_and_has_explained_its_example(save_model, fitted, tmp_path, rows):
    folder = save_model(fitted("LinearModel", "binary"), tmp_path / "model", semver="2.0.0")
    plane = load(folder)
    assert plane.bundle.manifest.semver == "2.0.0"
    assert len(ask(plane, rows)["explanations"]) == len(rows)


def test_a_folder_that_is_no_model_is_refused(save_model, fitted, tmp_path):
    folder = save_model(fitted("ConstantModel", "binary"), tmp_path / "model")
    manifest = (folder / MANIFEST).read_bytes()
    with pytest.raises(NotFoundError, match=r"bundle\.json is missing"):
        load(tmp_path)
    (tmp_path / MANIFEST).write_bytes(manifest)
    with pytest.raises(NotFoundError, match=r"things 1\.2\.3 cannot be loaded from"):
        load(tmp_path)
    (folder / "python_model.pkl").write_bytes((folder / "python_model.pkl").read_bytes()[:100])
    with pytest.raises(NotFoundError, match=r"things 1\.2\.3 cannot be loaded from"):
        load(folder)


def test_a_manifest_of_another_run_is_refused(save_model, make_manifest, fitted, tmp_path):
    model = fitted("ConstantModel", "binary")
    folder = save_model(model, tmp_path / "model")
    write_manifest(folder, make_manifest(model, run_id="0" * 32))
    with pytest.raises(DataError, match=r"is of run 0+, the model beside it of run f+"):
        load(folder)


def test_frames_and_requests_are_explained_alike(plane, fitted, rows):
    model = fitted("BoostedTrees", "multiclass")
    expected = model.explain_samples(frame_of(model, rows))
    found = ask(plane("BoostedTrees", "multiclass"), rows)["explanations"]
    pd.testing.assert_frame_equal(pd.DataFrame([row["values"] for row in found]), expected)
