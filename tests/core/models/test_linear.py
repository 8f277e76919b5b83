import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from model_name.core import dataframes
from model_name.core.features import DatePartFeature, NumericFeature, OrdinalFeature
from model_name.core.models import LinearModel
from model_name.core.models.linear_encoder import CLIP_DEVIATIONS, LinearEncoder
from model_name.core.schemas import TableSchema


def plain(task="regression", rows=400, categories=3, **columns):
    """Build a table whose target is linear in `x` plus an offset for each category of `g`."""
    random = np.random.default_rng(0)
    x, codes = random.normal(5, 2, rows), random.integers(0, categories, rows)
    signal = 3 * x + 10 * codes
    classes = {} if task == "regression" else {"classes": ["no", "yes"]}
    raw = {
        "name": "lines",
        "target": {"name": "y", "task": task} | classes,
        "columns": {"x": {"kind": "numeric", "nullable": True}, "g": {"kind": "category"}},
    }
    noisy = signal + random.normal(0, 4, rows)
    target = signal if task == "regression" else np.where(noisy > np.median(noisy), "yes", "no")
    table = {"x": x, "g": np.array([f"c{code}" for code in codes], dtype=object), "y": target} | columns
    schema = TableSchema.model_validate(raw)
    return schema, dataframes.check_frame(pd.DataFrame(table), schema).frame


def test_linear_relation_is_fitted_and_extrapolated():
    schema, table = plain()
    model = LinearModel(alpha=0.001).fit(schema, table)
    # when rows far beyond the training rows, and a missing value, are predicted
    rows = table.head(3).assign(x=[20.0, 0.0, np.nan], g=["c0", "c1", "c2"])
    predictions = model.predict(rows)["prediction"].to_numpy()
    # then it extrapolates linearly, and imputes the median
    np.testing.assert_allclose(predictions, [60, 10, 3 * np.median(table["x"]) + 20], rtol=0.01)


def test_extreme_numbers_are_clipped():
    schema, table = plain()
    model = LinearModel().fit(schema, table)
    far, farther = (model.predict(table.head(1).assign(x=value))["prediction"].iloc[0] for value in (1e3, 1e6))
    assert far == farther
    spread = CLIP_DEVIATIONS * table["x"].std()
    assert far == pytest.approx(3 * (table["x"].mean() + spread) + 10 * int(table["g"].iloc[0][1]), rel=0.02)


def test_pieces_fit_a_piecewise_linear_target():
    schema, table = plain()
    bent = table.assign(y=np.abs(table["x"] - 5))
    errors = [
        np.abs(LinearModel(pieces=pieces).fit(schema, bent).predict(bent)["prediction"] - bent["y"]).mean()
        for pieces in (0, 8)
    ]
    assert errors[1] < 0.2 * errors[0]


def test_larger_alpha_flattens_the_predictions():
    schema, table = plain()
    slopes = [
        np.ptp(LinearModel(alpha=alpha).fit(schema, table).predict(table)["prediction"]) for alpha in (0.01, 1e3, 1e6)
    ]
    assert slopes == sorted(slopes, reverse=True)


def test_sparse_design_matrix_gives_the_same_predictions(monkeypatch):
    schema, table = plain(categories=9)
    dense = LinearModel(alpha=1.0).fit(schema, table).predict(table)
    monkeypatch.setattr("model_name.core.models.linear.MAX_DENSE_INDICATORS", 2)
    sparse = LinearModel(alpha=1.0).fit(schema, table).predict(table)
    np.testing.assert_allclose(sparse["prediction"], dense["prediction"], rtol=1e-3)


def test_balanced_class_weights_predict_the_rare_class_more_often():
    schema, table = plain("binary")
    rare = table[(table["y"] == "no") | (np.arange(len(table)) % 10 == 0)]
    shares = [
        (LinearModel(class_weight=weight).fit(schema, rare).predict(rare)["prediction"] == "yes").mean()
        for weight in ("none", "balanced")
    ]
    assert shares[1] > shares[0]


def test_inputs_without_variation_in_training_have_no_weight():
    # given a constant number, an empty one, one with an incomplete season and an ordinary one
    features = (
        NumericFeature(name="same", source="same"),
        NumericFeature(name="gone", source="gone"),
        DatePartFeature(name="t.month", source="t", part="month", completed=0.5),
        NumericFeature(name="x", source="x"),
        OrdinalFeature(name="g", source="g", values=("a", "b")),
    )
    rows = np.array([[1, np.nan, 3, 5, 0], [1, np.nan, 4, np.nan, 1]], dtype=np.float32).repeat(3, axis=0)
    rows[:, 3] += np.arange(6)
    encoder = LinearEncoder.fit(features, rows, bins=2)
    # when rows with other values in the first three are encoded
    other = rows.copy()
    other[:, :3] = [[9, 9, 9]]
    # then the encoding is the same
    np.testing.assert_array_equal(encoder.encode_numbers(other), encoder.encode_numbers(rows))
    assert np.ptp(encoder.encode_numbers(rows), axis=0).max() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"alpha": 0}, id="zero alpha"),
        pytest.param({"pieces": -1}, id="negative pieces"),
        pytest.param({"class_weight": "some"}, id="unknown class weight"),
    ],
)
def test_hyperparameters_have_bounds(wrong):
    with pytest.raises(ValidationError):
        LinearModel(**wrong)
