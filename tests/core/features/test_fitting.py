"""Features against numbers computed by hand, and training against serving."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core import dataframes
from model_name.core.features import Features
from model_name.core.features.fitting import MAX_ONE_HOT, SHRINKAGE, TargetData, cross_fitted_matrix, fit_features
from model_name.core.models import model_kinds
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, DataError

NAN = np.nan
FLOAT32_MAX = np.finfo(np.float32).max


def schema_of(columns, task="regression", **more) -> TableSchema:
    classes = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"]}.get(task)
    target = {"name": "y", "task": task} | ({"classes": classes} if classes else {})
    return TableSchema.model_validate({"name": "t", "target": target, "columns": columns} | more)


def texts(values) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def datetimes(*values: str) -> np.ndarray:
    return np.array(values, dtype="datetime64[us]")


def fit_one(column, values, target_data=None) -> Features:
    """Fit the features of the single column `x`."""
    return fit_features(schema_of({"x": column}), {"x": values}, target_data or TargetData(np.zeros(len(values))))


def transform_one(features, values) -> dict[str, list[float]]:
    """Transform values of `x` and return the features by name."""
    matrix = features.transform({"x": values})
    return dict(zip(features.names, np.round(matrix.T.astype(float), 4).tolist(), strict=True))


NUMBERS = [
    pytest.param({}, [1, NAN], {"x": [1, NAN]}, id="unscaled"),
    pytest.param({"scale": "standard"}, [1, 3, NAN], {"x": [-1, 1, NAN]}, id="standard"),
    pytest.param({"scale": "standard"}, [5, 5], {"x": [0, 0]}, id="standard of a constant"),
    pytest.param({"scale": "standard"}, [NAN, NAN], {"x": [NAN, NAN]}, id="standard without known values"),
    pytest.param({"scale": "log"}, [0, np.e - 1, 1 - np.e, NAN], {"x": [0, 1, -1, NAN]}, id="log, also of negatives"),
    pytest.param({"scale": "quantile"}, [5, 5, NAN], {"x": [0, 0, NAN]}, id="quantile of a constant"),
    pytest.param({"scale": "quantile"}, [NAN, NAN], {"x": [NAN, NAN]}, id="quantile without known values"),
    pytest.param({"scale": "quantile"}, [1, 2, 3], {"x": [-2.5775, 0, 2.5775]}, id="quantile of three"),
    pytest.param({"impute": "mean"}, [1, 2, 6, NAN], {"x": [1, 2, 6, 3], "x.is_missing": [0, 0, 0, 1]}, id="mean"),
    pytest.param({"impute": "median"}, [1, 2, 6, NAN], {"x": [1, 2, 6, 2], "x.is_missing": [0, 0, 0, 1]}, id="median"),
    pytest.param({"impute": "zero"}, [1, NAN], {"x": [1, 0], "x.is_missing": [0, 1]}, id="zero"),
    pytest.param({"impute": "mean"}, [1, 3], {"x": [1, 3]}, id="nothing to impute, no indicator"),
    pytest.param({"impute": "mean"}, [NAN, NAN], {"x": [0, 0]}, id="mean without known values"),
    pytest.param(
        {"impute": "mean", "scale": "standard"}, [1, 3, NAN], {"x": [-1, 1, 0], "x.is_missing": [0, 0, 1]}, id="both"
    ),
]


@pytest.mark.parametrize(("encode", "values", "expected"), NUMBERS)
def test_numeric_features(encode, values, expected):
    features = fit_one({"kind": "numeric", "nullable": True, "encode": encode}, np.array(values, dtype=float))
    transformed = transform_one(features, np.array(values, dtype=float))
    assert list(transformed) == list(expected)
    for name, numbers in expected.items():
        np.testing.assert_allclose(transformed[name], numbers, atol=2e-3)


def test_missing_value_of_a_request_is_imputed_without_an_indicator():
    features = fit_one({"kind": "numeric", "nullable": True, "encode": {"impute": "median"}}, np.array([1.0, 2, 6]))
    assert transform_one(features, np.array([NAN])) == {"x": [2]}


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30))
def test_quantile_scale_preserves_order_and_ties(values):
    column = {"kind": "numeric", "encode": {"scale": "quantile"}}
    known = np.array(values + values[:3])
    scaled = np.array(transform_one(fit_one(column, known), np.sort(known))["x"])
    assert (np.diff(scaled) >= 0).all()
    assert (np.diff(scaled)[np.diff(np.sort(known)) == 0] == 0).all()
    assert np.abs(scaled).max() < 3


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=10))
def test_log_scale_preserves_order_and_sign(values):
    features = fit_one({"kind": "numeric", "encode": {"scale": "log"}}, np.array(values))
    scaled = features.transform({"x": np.sort(values)})[:, 0]
    assert (np.diff(scaled) >= 0).all()
    assert (np.sign(scaled) * np.sign(np.sort(values)) >= 0).all()


def test_number_far_beyond_the_training_part_stays_finite():
    standard = fit_one({"kind": "numeric", "encode": {"scale": "standard"}}, np.array([0.0, 1e-30]))
    assert standard.transform({"x": np.array([1e38])})[0, 0] == FLOAT32_MAX
    columns = {"a": {"kind": "numeric"}, "b": {"kind": "numeric"}}
    values = {"a": np.array([1e30]), "b": np.array([-1e30])}
    product = fit_features(schema_of(columns, interactions=[["a", "b"]]), values, TargetData(np.zeros(1)))
    assert product.transform(values)[0, 2] == -FLOAT32_MAX


SEEN = texts(["a"] * 3 + ["b"] * 2 + ["c"] + [None])
SERVED = texts(["a", "b", "c", "never", None])
CATEGORIES = [
    pytest.param({}, {"x": [0, 1, 2, NAN, NAN]}, id="ordinal"),
    pytest.param({"rare": 2}, {"x": [0, 1, 2, NAN, NAN]}, id="one is rare"),
    pytest.param({"rare": 3}, {"x": [0, 1, 1, NAN, NAN]}, id="two are rare"),
    pytest.param({"rare": 4}, {"x": [0, 0, 0, NAN, NAN]}, id="all are rare"),
    pytest.param({"rare": 1}, {"x": [0, 1, 2, NAN, NAN]}, id="none is rare"),
    pytest.param(
        {"code": "one-hot"}, {"x=a": [1, 0, 0, 0, 0], "x=b": [0, 1, 0, 0, 0], "x=c": [0, 0, 1, 0, 0]}, id="one-hot"
    ),
    pytest.param(
        {"code": "one-hot", "rare": 3}, {"x=a": [1, 0, 0, 0, 0], "x=(other)": [0, 1, 1, 0, 0]}, id="one-hot, rare"
    ),
    pytest.param({"code": "one-hot", "rare": 9}, {"x=(other)": [1, 1, 1, 0, 0]}, id="one-hot, all rare"),
]


@pytest.mark.parametrize(("encode", "expected"), CATEGORIES)
def test_category_features(encode, expected):
    features = fit_one({"kind": "category", "nullable": True, "encode": encode}, SEEN)
    transformed = transform_one(features, SERVED)
    assert list(transformed) == list(expected)
    np.testing.assert_array_equal(list(transformed.values()), list(expected.values()))


def test_listed_category_without_rows_is_rare():
    column = {"kind": "category", "values": ["z", "a"], "encode": {"rare": 1}}
    assert transform_one(fit_one(column, texts(["a", "a"])), texts(["a", "z"])) == {"x": [0, 1]}


@pytest.mark.parametrize("encode", [{}, {"rare": 3}, {"code": "one-hot", "rare": 3}, {"code": "target", "rare": 3}])
def test_known_categories_include_the_rare_ones(encode):
    features = fit_one({"kind": "category", "nullable": True, "encode": encode}, SEEN)
    assert sorted(features.categories("x")) == ["a", "b", "c"]


def test_too_many_categories_for_one_hot_are_refused_with_a_hint():
    values = texts([f"c{number}" for number in range(10_000)])
    with pytest.raises(ConfigError, match=f"x: has 10,000 categories, one-hot allows {MAX_ONE_HOT}") as refused:
        fit_one({"kind": "category", "encode": {"code": "one-hot"}}, values)
    assert "code: target or ordinal" in refused.value.hint


@pytest.mark.parametrize("code", ["ordinal", "target"])
def test_ten_thousand_categories_are_fitted_within_seconds(code):
    values = texts([f"c{number % 10_000}" for number in range(100_000)])
    target_data = TargetData(np.arange(100_000) % 7.0)
    start = time.perf_counter()
    features = fit_one({"kind": "category", "encode": {"code": code}}, values, target_data)
    assert cross_fitted_matrix(features, {"x": values}, target_data, seed=0).shape == (100_000, 1)
    assert time.perf_counter() - start < 5


TARGET_ENCODED = {"kind": "category", "nullable": True, "encode": {"code": "target"}}


def test_target_encoding_is_shrunk_towards_the_overall_mean():
    targets = np.array([1.0, 2, 6, 0, 0, 10, 5])
    features = fit_one(TARGET_ENCODED, SEEN, TargetData(targets))
    prior = targets.mean()
    rates = [(sum(rows) + SHRINKAGE * prior) / (len(rows) + SHRINKAGE) for rows in ([1, 2, 6], [0, 0], [10])]
    np.testing.assert_allclose(transform_one(features, SERVED)["x.rate"], [*rates, prior, prior], atol=1e-4)


def test_rare_categories_share_one_mean():
    features = fit_one(
        TARGET_ENCODED | {"encode": {"code": "target", "rare": 3}}, SEEN, TargetData(np.array([1.0, 2, 6, 0, 0, 9, 5]))
    )
    a, b, c, *_ = transform_one(features, SERVED)["x.rate"]
    prior = 23 / 7
    assert b == c == pytest.approx((9 + SHRINKAGE * prior) / (3 + SHRINKAGE), abs=1e-4)
    assert a == pytest.approx((9 + SHRINKAGE * prior) / (3 + SHRINKAGE), abs=1e-4)


def test_target_encoding_has_a_feature_per_class_or_of_the_positive_class():
    codes = np.array([0, 1, 1, 0, 0, 1, 0])
    binary = fit_features(schema_of({"x": TARGET_ENCODED}, "binary"), {"x": SEEN}, TargetData(codes, 2, ("no", "yes")))
    assert binary.names == ["x.rate yes"]
    several = fit_features(
        schema_of({"x": TARGET_ENCODED}, "multiclass"), {"x": SEEN}, TargetData(codes * 2, 3, ("a", "b", "c"))
    )
    assert several.names == ["x.rate a", "x.rate b", "x.rate c"]
    matrix = several.transform({"x": SERVED})
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(matrix[:, 2], binary.transform({"x": SERVED})[:, 0])


def test_unique_categories_do_not_leak_the_target_into_the_training_matrix():
    # Given a random target and a category that is unique to each row
    rng = np.random.default_rng(0)
    targets, values = rng.normal(size=2_000), texts([f"row {row}" for row in range(2_000)])
    target_data = TargetData(targets)
    features = fit_one(TARGET_ENCODED, values, target_data)
    # When the training matrix is computed
    training = cross_fitted_matrix(features, {"x": values}, target_data, seed=0)[:, 0]
    served = features.transform({"x": values})[:, 0]
    # Then its encodings are out of fold, whereas serving uses those of all rows
    assert np.corrcoef(served, targets)[0, 1] > 0.99
    assert abs(np.corrcoef(training, targets)[0, 1]) < 0.1


def test_informative_category_is_informative_in_the_training_matrix():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 50, 5_000)
    target_data = TargetData(codes % 7 + rng.normal(0, 0.1, 5_000))
    values = texts([f"c{code}" for code in codes])
    features = fit_one(TARGET_ENCODED, values, target_data)
    training = cross_fitted_matrix(features, {"x": values}, target_data, seed=0)[:, 0]
    assert np.corrcoef(training, target_data.targets)[0, 1] > 0.99


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_few_rows_are_enough_for_target_encoding(rows):
    target_data = TargetData(np.arange(rows) * 1.0)
    values = texts(["a"] * rows)
    matrix = cross_fitted_matrix(fit_one(TARGET_ENCODED, values, target_data), {"x": values}, target_data, seed=0)
    assert np.isfinite(matrix).all()


YEAR = pd.date_range("2024-01-01", periods=366 * 24, freq="h").to_numpy().astype("datetime64[us]")
PARTS = [
    pytest.param({"parts": ["day"]}, "2024-02-29T12:00", {"x.day": 29}, id="day of the month"),
    pytest.param({"parts": ["yearday"]}, "2024-12-31", {"x.yearday": 366}, id="last day of a leap year"),
    pytest.param({"parts": ["yearday"]}, "2023-12-31", {"x.yearday": 365}, id="last day of another year"),
    pytest.param({"parts": ["yearday"]}, "2024-03-01", {"x.yearday": 61}, id="the day after a leap day"),
    pytest.param({"parts": ["elapsed"]}, "2024-01-03T12:00", {"x.elapsed": 2.5}, id="days since the first row"),
    pytest.param({"parts": ["elapsed"]}, "2023-12-31", {"x.elapsed": -1}, id="before the first row"),
    pytest.param({"parts": ["month"]}, "NaT", {"x.month": NAN}, id="a missing datetime"),
    pytest.param(
        {"parts": ["hour"], "cyclic": True},
        "2024-05-01T18:00",
        {"x.hour": 18, "x.hour.sin": -1, "x.hour.cos": 0},
        id="waves",
    ),
    pytest.param({"parts": ["elapsed"], "cyclic": True}, "2024-01-02", {"x.elapsed": 1}, id="elapsed is not cyclic"),
    pytest.param({"parts": [], "holidays": "US"}, "2024-07-04T23:00", {"x.holiday": 1}, id="a holiday, all day"),
    pytest.param({"parts": [], "holidays": "US"}, "2024-07-05", {"x.holiday": 0}, id="the day after"),
    pytest.param(
        {"parts": [], "holidays": "US"}, "2035-07-04", {"x.holiday": 1}, id="a holiday after the training part"
    ),
    pytest.param({"parts": [], "holidays": "US"}, "NaT", {"x.holiday": NAN}, id="a missing day"),
    pytest.param({"parts": [], "holidays": "DE-BY"}, "2025-01-06", {"x.holiday": 1}, id="a holiday of a subdivision"),
]


@pytest.mark.parametrize(("encode", "value", "expected"), PARTS)
def test_datetime_features(encode, value, expected):
    features = fit_one({"kind": "datetime", "nullable": True, "encode": encode}, YEAR)
    transformed = transform_one(features, datetimes(value))
    np.testing.assert_allclose([transformed[name][0] for name in expected], list(expected.values()), atol=1e-4)
    assert list(transformed) == list(expected)


def test_cyclic_encoding_is_continuous_over_midnight():
    features = fit_one({"kind": "datetime", "encode": {"parts": ["hour"], "cyclic": True}}, YEAR)
    waves = features.transform({"x": YEAR[:48]})[:, 1:]
    steps = np.linalg.norm(np.diff(waves, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-5)


def test_constant_parts_are_left_out():
    column = {"kind": "datetime", "encode": {"parts": ["hour", "weekday", "month", "elapsed"], "cyclic": True}}
    assert fit_one(column, YEAR[:24]).names == ["x.hour", "x.hour.sin", "x.hour.cos", "x.elapsed"]


def test_wave_that_is_zero_up_to_rounding_is_left_out():
    column = {"kind": "datetime", "encode": {"parts": ["hour"], "cyclic": True}}
    assert fit_one(column, YEAR[::12]).names == ["x.hour", "x.hour.cos"]


@pytest.mark.parametrize(
    ("location", "message"), [("XX", "columns.x.encode.holidays: XX"), ("DE-XX", "XX is not a part")]
)
def test_unknown_holiday_location_is_refused(location, message):
    with pytest.raises(ConfigError, match=message):
        fit_one({"kind": "datetime", "encode": {"holidays": location}}, YEAR[:48])


def test_interactions_are_products_and_pairs():
    columns = {name: {"kind": "numeric", "nullable": True} for name in "ab"}
    columns |= {"flag": {"kind": "boolean"}} | {name: {"kind": "category", "nullable": True} for name in "cd"}
    schema = schema_of(columns, interactions=[["a", "b"], ["a", "flag"], ["c", "d"]])
    table = {"a": np.array([2.0, NAN]), "b": np.array([3.0, 1]), "flag": np.array([1.0, 0])}
    table |= {"c": texts(["p", "q"]), "d": texts(["r", "s"])}
    features = fit_features(schema, table, TargetData(np.zeros(2)))
    assert features.names[5:] == ["a x b", "a x flag", "c & d"]
    np.testing.assert_array_equal(features.transform(table)[:, 5:], [[6, 2, 0], [NAN, NAN, 1]])
    other = table | {"c": texts(["q", None]), "d": texts(["r", "s"])}
    np.testing.assert_array_equal(features.transform(other)[:, 7], [NAN, NAN])


def test_five_hundred_columns_are_fitted_within_seconds():
    columns = {f"c{number}": {"kind": "numeric", "encode": {"scale": "quantile"}} for number in range(500)}
    values = {name: np.random.default_rng(0).normal(size=500) for name in columns}
    start = time.perf_counter()
    features = fit_features(schema_of(columns), values, TargetData(np.zeros(500)))
    assert features.transform(values).shape == (500, 500)
    assert time.perf_counter() - start < 10


MIXED_COLUMNS = {
    "size": {"kind": "numeric", "nullable": True, "encode": {"scale": "quantile", "impute": "median"}},
    "cost": {"kind": "numeric", "encode": {"scale": "log"}},
    "dose": {"kind": "numeric", "encode": {"scale": "standard"}},
    "flag": {"kind": "boolean", "nullable": True, "encode": {"impute": "mean"}},
    "town": {"kind": "category", "nullable": True, "encode": {"code": "target", "rare": 8}},
    "shop": {"kind": "category", "encode": {"rare": 15}},
    "type": {"kind": "category", "encode": {"code": "one-hot"}},
    "when": {
        "kind": "datetime",
        "encode": {"parts": ["hour", "yearday", "elapsed"], "cyclic": True, "holidays": "US"},
    },
    "was": {"kind": "numeric", "nullable": True, "history": {"of": "cost", "lag": "1d"}},
}


def mixed_table(task: str, rows: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = {"regression": rng.normal(size=rows), "binary": rng.choice(["no", "yes"], rows)}
    return pd.DataFrame(
        {
            "size": np.where(rng.random(rows) < 0.2, NAN, rng.normal(size=rows)),
            "cost": rng.lognormal(size=rows),
            "dose": rng.normal(50, 9, rows),
            "flag": rng.choice(texts([True, False, None]), rows),
            "town": rng.choice(texts([*(f"t{number}" for number in range(30)), None]), rows),
            "shop": rng.choice([f"s{number}" for number in range(12)], rows),
            "type": rng.choice(["p", "q", "r"], rows),
            "when": pd.date_range("2023-06-01", periods=rows, freq="12h"),
            "y": y.get(task, rng.choice(["a", "b", "c"], rows)),
        }
    )


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_requests_of_one_row_give_the_matrix_of_the_table(task):
    # Given features of every kind, fitted to a table and loaded from JSON
    interactions = [["cost", "dose"], ["shop", "type"]]
    schema = schema_of(MIXED_COLUMNS, task, time="when", interactions=interactions)
    checked = dataframes.check_frame(dataframes.add_lag_columns(mixed_table(task), schema), schema).frame
    columns = dataframes.to_columns(checked, schema)
    features = fit_features(schema, columns, TargetData.for_table(schema, dataframes.target_codes(checked, schema)))
    again = Features.model_validate_json(features.model_dump_json())
    assert again == features
    # When other rows are transformed as a table, and one by one as JSON requests
    rows = dataframes.add_lag_columns(mixed_table(task, 60, seed=1).assign(shop="never seen"), schema).drop(columns="y")
    table = features.transform(dataframes.to_columns(rows, schema))
    requests = [
        {name: [None if pd.isna(value) else str(value) if name == "when" else value] for name, value in row.items()}
        for row in rows.to_dict("records")
    ]
    served = np.concatenate([again.transform(schema.check_request(request)) for request in requests])
    # Then the matrices are equal
    np.testing.assert_array_equal(served, table)


def test_model_does_not_overfit_a_category_without_information():
    # Given a category of 300 towns that is independent of the target
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.choice([f"t{number}" for number in range(300)], 1_200), "y": rng.normal(size=1_200)})
    schema = schema_of({"x": TARGET_ENCODED})
    # When trees are fitted to one half
    model = model_kinds()["BoostedTrees"](max_iter=30).fit(schema, dataframes.check_frame(frame[:600], schema).frame)
    rest = frame[600:]
    # Then their error on the other half exceeds that of a constant only by noise
    error = np.mean((model.predict(rest)["prediction"] - rest["y"]) ** 2)
    assert error < 1.15 * np.var(rest["y"])


def test_class_without_training_rows_is_refused():
    schema = schema_of({"x": TARGET_ENCODED}, "multiclass")
    checked = dataframes.check_frame(pd.DataFrame({"x": ["p", "q"], "y": ["a", "b"]}), schema).frame
    with pytest.raises(DataError, match="the training part has no row of class 'c'"):
        dataframes.target_codes(checked, schema)
