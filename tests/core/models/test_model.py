"""Behaviour that all kinds of models share."""

import gc
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from pydantic import Field, PrivateAttr, ValidationError
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision
from model_name.core.models import BoostedTrees, ConstantModel, Model, RandomForest, model_kinds
from model_name.core.models.explanation import to_probabilities
from model_name.core.models.trees import SklearnModel
from model_name.errors import DataError, ExplanationError, ExportError, NotFittedError
from model_name.training.export import check_parity, export_bundle, parity_rows

KINDS = ("BoostedTrees", "RandomForest", "ConstantModel", "LinearModel", "AutoModel")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def checked(make_schema, make_table, task):
    return dataframes.check_frame(make_table(task), make_schema(task)).frame


def test_fitted_model_predicts_every_row_under_its_index(fitted, kind, task, make_schema, make_table):
    # given unseen rows with their own index
    model = fitted(kind, task)
    rows = make_table(task, rows=20, seed=5).set_axis([f"r{row}" for row in range(20)])
    # when they are predicted
    predictions = model.predict(rows.drop(columns="outcome"))
    # then there is one prediction per row
    classes = make_schema(task).classes
    names = [f"probability_{str(label).lower() if isinstance(label, bool) else label}" for label in classes]
    assert list(predictions.columns) == ["prediction", *names]
    assert predictions.index.equals(rows.index)
    if classes:
        assert set(predictions["prediction"]) <= set(classes)
        np.testing.assert_allclose(predictions[names].sum(axis=1), 1, atol=1e-6)
    else:
        assert predictions["prediction"].dtype == np.float64
        assert np.isfinite(predictions["prediction"]).all()


def test_decision_applies_until_the_next_fit(fitted, make_schema, make_table):
    # given a model with a decision that predicts everything as positive
    schema, table = make_schema("binary"), dataframes.check_frame(make_table("binary"), make_schema("binary")).frame
    model = fitted("BoostedTrees", "binary").with_params().fit(schema, table)
    plain = model.outputs(table)
    model.set_decision(Decision(threshold=0.0))
    # then it applies to outputs, but not to raw outputs
    assert model.predict(table)["prediction"].all()
    assert model.raw_outputs(table).prediction.tolist() == plain.prediction.tolist()
    # and neither a copy nor another fit keeps it
    assert model.with_params().decision == model.fit(schema, table).decision == Decision()


def test_model_pickled_without_a_decision_attribute_predicts_the_same(fitted, make_table):
    model = fitted("BoostedTrees", "regression").model_copy(deep=True)
    expected = model.predict(make_table("regression"))
    del model.__pydantic_private__["_decision"]
    pd.testing.assert_frame_equal(model.predict(make_table("regression")), expected)


def test_empty_table_has_no_predictions(fitted, kind, task, checked):
    predictions = fitted(kind, task).predict(checked.head(0))
    assert len(predictions) == 0
    assert list(predictions.columns) == list(fitted(kind, task).predict(checked.head(1)).columns)


def test_equal_seeds_and_rows_give_equal_models(fitted, kind, task, make_schema, checked):
    first = fitted(kind, task)
    second = first.with_params().fit(make_schema(task), checked)
    pd.testing.assert_frame_equal(second.predict(checked), first.predict(checked))
    explained = [model.explain_samples(checked.head(3)) for model in (first, second)]
    pd.testing.assert_frame_equal(*explained)


@pytest.mark.parametrize(
    "access",
    [
        pytest.param(lambda model, table, folder: model.predict(table), id="predict"),
        pytest.param(lambda model, table, folder: model.explain_model(table), id="explain_model"),
        pytest.param(lambda model, table, folder: model.explain_samples(table), id="explain_samples"),
        pytest.param(lambda model, table, folder: model.export(folder), id="export"),
        pytest.param(lambda model, table, folder: model.features, id="features"),
        pytest.param(lambda model, table, folder: model.classes, id="classes"),
    ],
)
def test_unfitted_model_raises_not_fitted_error(kind, access, make_table, tmp_path):
    with pytest.raises(NotFittedError, match=f"{kind} is not fitted"):
        access(model_kinds()[kind](), make_table("regression"), tmp_path)


def test_get_internal_model_fails_without_a_fit_or_an_estimator():
    with pytest.raises(NotFittedError, match="BoostedTrees is not fitted"):
        BoostedTrees().get_internal_model()
    with pytest.raises(NotImplementedError, match="ConstantModel has no internal model"):
        ConstantModel().get_internal_model()


def test_exported_graph_matches_the_model(fitted, kind, task, make_schema, checked, tmp_path):
    # given rows with gaps, unseen categories and the bounds
    model = fitted(kind, task)
    rows = parity_rows(make_schema(task), checked)
    assert rows["gap"].isna().any()
    assert not set(rows["group"]) <= set("abc")
    # when the graph is run
    session = ort.InferenceSession(str(model.export(tmp_path)))
    assert [given.name for given in session.get_inputs()] == ["features"]
    assert [output.name for output in session.get_outputs()] == ["scores"]
    (scores,) = session.run(None, {"features": model.matrix(rows)})
    # then it computes the same scores
    assert scores.shape == (len(rows), max(1, len(model.classes)))
    np.testing.assert_allclose(
        scores.reshape(len(rows), -1), model.score_matrix(model.matrix(rows)).reshape(len(rows), -1), atol=1e-4
    )


def test_bundle_of_every_kind_passes_the_parity_check(fitted, kind, task, make_schema, checked, tmp_path):
    model = fitted(kind, task)
    bundle = export_bundle(model, tmp_path, checked.head(200), checked.tail(40), name="m", run_id="r", metrics={})
    assert check_parity(model, bundle, parity_rows(make_schema(task), checked)) <= 1e-4


class NativeCategories(SklearnModel):
    """Model with native category splits, which skl2onnx drops silently."""

    KIND: Literal["TestNativeCategories"] = "TestNativeCategories"

    def fit_matrix(self, matrix, targets, context):
        categorical = [place for place, feature in enumerate(self.features.columns) if feature.kind == "category"]
        estimator = HistGradientBoostingRegressor(categorical_features=categorical, max_iter=20, min_samples_leaf=2)
        self._estimator = estimator.fit(matrix, targets)


class MissingValueForest(SklearnModel):
    """Forest with missing-value splits, which skl2onnx does not support."""

    KIND: Literal["TestMissingValueForest"] = "TestMissingValueForest"

    def fit_matrix(self, matrix, targets, context):
        self._estimator = RandomForestRegressor(n_estimators=10, random_state=0).fit(matrix, targets)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(NativeCategories, id="native category splits"),
        pytest.param(MissingValueForest, id="gaps in a forest"),
    ],
)
def test_export_that_is_silently_wrong_is_caught(broken, make_schema, make_table, tmp_path):
    # given a table whose target depends on categories and missing values
    raw = make_table("regression")
    noise = raw["outcome"] / 100
    shift = raw["group"].map({"a": 5.0, "b": -5.0, "c": 5.0}) + 8.0 * raw["gap"].isna()
    table = dataframes.check_frame(raw.assign(outcome=shift + noise), make_schema("regression")).frame
    model = broken().fit(make_schema("regression"), table)
    # when it is exported, then the difference is detected
    with pytest.raises(ExportError, match=f"{broken().KIND}: the exported graph differs from the model"):
        export_bundle(model, tmp_path, table.head(200), table.tail(40), name="m", run_id="r", metrics={})


def test_contributions_add_up_and_name_the_features(fitted, kind, task, checked):
    model, rows = fitted(kind, task), checked.head(6)
    # when rows are explained
    explanation = model.explain(rows)
    # then base and contributions add up to the scores
    assert explanation.additivity_error < 0.01
    assert explanation.features == model.features.names
    shape = (6, len(model.features.names)) + ((3,) if task == "multiclass" else ())
    assert explanation.values.shape == shape
    assert explanation.scale == (
        "prediction"
        if task == "regression"
        else "log-odds"
        if kind in {"BoostedTrees", "LinearModel"}
        else "probability"
    )
    # and each row has its contributions, with its index
    samples = model.explain_samples(rows)
    assert (list(samples.columns), list(samples.index)) == (model.features.names, list(rows.index))


def test_prepared_explainer_matches_explain_matrix(fitted, kind, task, checked):
    model = fitted(kind, task)
    matrix = model.matrix(checked.head(6))
    expected, explain = model.explain_matrix(matrix), model.explainer()
    for explanation in (explain(matrix), explain(matrix)):
        np.testing.assert_array_equal(explanation.values, expected.values)
        np.testing.assert_array_equal(explanation.base, expected.base)
        assert (explanation.scale, explanation.features) == (expected.scale, expected.features)


def test_contributions_converted_to_probabilities_add_up_to_the_prediction(fitted, kind, task, checked):
    model, rows = fitted(kind, task), checked.head(6)
    # when predictions are explained, whatever the scale of the kind
    explanation = to_probabilities(model.explain_matrix(model.matrix(rows)))
    # then base and contributions add up to the predictions
    scores = model.score_matrix(model.matrix(rows))
    expected = scores[:, 1] if task == "binary" else scores
    assert explanation.scale == ("prediction" if task == "regression" else "probability")
    np.testing.assert_allclose(explanation.base + explanation.values.sum(axis=1), expected, atol=1e-3)


def test_importances_are_sorted_and_the_relevant_feature_is_first(fitted, task, checked):
    importances = fitted("BoostedTrees", task).explain_model(checked.head(40))
    assert list(importances.columns) == ["feature", "importance"]
    assert importances["importance"].is_monotonic_decreasing
    assert set(importances["feature"]) == set(fitted("BoostedTrees", task).features.names)
    assert importances["feature"].iloc[0] == "size"


def test_importances_of_a_constant_are_zero(fitted, task, checked):
    assert (fitted("ConstantModel", task).explain_model(checked.head(5))["importance"] == 0).all()


def test_multiclass_samples_explain_the_predicted_class(fitted, checked_multiclass):
    model = fitted("BoostedTrees", "multiclass")
    explanation = model.explain(checked_multiclass)
    samples = model.to_sample_frame(explanation, checked_multiclass)
    predicted = model.predict(checked_multiclass)["prediction"]
    for row, label in enumerate(predicted):
        code = model.classes.index(label)
        np.testing.assert_allclose(samples.iloc[row], explanation.values[row, :, code])


@pytest.fixture
def checked_multiclass(make_schema, make_table):
    return dataframes.check_frame(make_table("multiclass"), make_schema("multiclass")).frame.head(8)


class NonAdditive(ConstantModel):
    """Model with explanations that do not add up."""

    KIND: Literal["TestNonAdditive"] = "TestNonAdditive"

    def explain_matrix(self, matrix):
        scores = np.arange(len(matrix), dtype=float)
        return self.explanation(np.ones_like(matrix), 0.0, scores, "prediction")


def test_contributions_that_do_not_add_up_are_an_error(make_schema, make_table):
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    with pytest.raises(ExplanationError, match="contributions miss the scores by"):
        NonAdditive().fit(make_schema("regression"), table).explain(table.head(5))


@pytest.mark.parametrize(
    ("change", "task", "reason"),
    [
        pytest.param({"outcome": 3.0}, "regression", "has one value of outcome only: 3.0", id="a constant target"),
        pytest.param({"outcome": True}, "binary", "has one value of outcome only: True", id="one class"),
        pytest.param(
            {"moment": "never"}, "regression", "moment, row 0: not a date and time", id="a column that does not fit"
        ),
    ],
)
def test_unusable_training_part_is_refused(kind, change, task, reason, make_schema, make_table):
    table = dataframes.check_frame(make_table(task), make_schema(task)).frame
    with pytest.raises(DataError, match=reason):
        model_kinds()[kind]().fit(make_schema(task), table.assign(**change))


def test_class_missing_from_the_training_part_is_refused(kind, make_schema, make_table):
    table = dataframes.check_frame(make_table("multiclass"), make_schema("multiclass")).frame
    with pytest.raises(DataError, match="the training part has no row of class 'mid'"):
        model_kinds()[kind]().fit(make_schema("multiclass"), table[table["outcome"] != "mid"])


def test_hyperparameters_are_returned_set_and_validated():
    model = RandomForest(n_estimators=3)
    assert model.get_params() == {
        "random_state": 42,
        "n_estimators": 3,
        "max_depth": 12,
        "min_samples_leaf": 5,
        "max_features": 0.5,
        "randomized": False,
        "class_weight": "none",
        "n_jobs": -1,
    }
    assert model.set_params(n_estimators=5) is model
    assert model.n_estimators == 5
    assert model.with_params(max_depth=None).get_params() == model.get_params() | {"max_depth": None}
    for wrong, reason in (({"n_estimator": 3}, "did you mean n_estimators"), ({"n_estimators": "3"}, "integer")):
        with pytest.raises(ValidationError, match=reason):
            model.set_params(**wrong)
        with pytest.raises(ValidationError, match=reason):
            model.with_params(**wrong)
    assert model.n_estimators == 5


class Slope(Model):
    """Minimal custom kind: no estimator, no explanation of its own."""

    KIND: Literal["TestSlope"] = "TestSlope"
    factor: float = Field(2.0, gt=0)
    _base: float | None = PrivateAttr(None)

    def fit_matrix(self, matrix, targets, context) -> None:
        context.progress(1, 1, "done")
        self._base = float(targets.mean())

    def score_matrix(self, matrix) -> Any:
        return self._fitted(self._base) + self.factor * np.nan_to_num(matrix[:, 0])

    def to_onnx(self) -> onnx.ModelProto:
        raise NotImplementedError


def test_custom_kind_is_registered_and_works(make_schema, make_table):
    # given a subclass, then it is registered as a kind
    assert model_kinds()["TestSlope"] is Slope
    assert {"BoostedTrees", "ConstantModel", "RandomForest", "TabularNetwork"} <= set(model_kinds())
    # and is explained by permutation
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    model = Slope().fit(make_schema("regression"), table)
    importances = model.explain(table.head(10)).importances
    assert next(iter(importances)) == "size"
    assert sum(value > 1e-9 for value in importances.values()) == 1


def test_subclass_without_its_own_kind_does_not_replace_its_parent():
    class Unnamed(BoostedTrees):
        pass

    assert model_kinds()["BoostedTrees"] is BoostedTrees
    del Unnamed
    gc.collect()
