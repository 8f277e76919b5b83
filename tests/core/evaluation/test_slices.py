"""The search finds the rows whose losses were raised, and nothing in noise."""

import numpy as np
import pandas as pd
import pytest

from model_name.core.evaluation.slices import bin_columns, worst_slices
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column

ROWS = 4000


def make(rows=ROWS, seed=0, **columns):
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "name": [f"n{row}" for row in range(rows)],
            "moment": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows), unit="h"),
            "group": random.choice(["a", "b", "c"], rows),
            "size": np.where(random.random(rows) < 0.1, np.nan, random.normal(0, 1, rows)),
            "is_open": random.choice([0.0, 1.0], rows),
            "secret": random.choice(["x", "y"], rows),
        }
    ).assign(**columns)
    return table, random.exponential(1, rows)


SCHEMA = TableSchema(
    name="t",
    target=Target(name="y", task="regression"),
    time="moment",
    columns={
        "name": Column(kind="text-id"),
        "moment": Column(kind="datetime"),
        "group": Column(kind="category"),
        "size": Column(kind="numeric", nullable=True),
        "is_open": Column(kind="boolean"),
        "secret": Column(kind="category", sensitive=True),
    },
)


@pytest.mark.parametrize(
    ("is_bad", "description"),
    [
        pytest.param(lambda t: t["group"] == "b", "group is b", id="a category"),
        pytest.param(lambda t: t["is_open"] == 1, "is_open is true", id="a boolean"),
        pytest.param(lambda t: t["size"].isna(), "size is missing", id="missing values"),
        pytest.param(lambda t: t["size"] > 0.9, "size above 0.8", id="large numbers"),
        pytest.param(lambda t: t["moment"].dt.hour.isin([22, 23]), "moment hour 22 to 23", id="hours"),
        pytest.param(lambda t: t["moment"].dt.weekday == 5, "moment weekday is Saturday", id="a weekday"),
        pytest.param(lambda t: t["moment"].dt.month == 3, "moment month is March", id="a month"),
        pytest.param(
            lambda t: (t["group"] == "c") & (t["moment"].dt.weekday == 0),
            "moment weekday is Monday and group is c",
            id="a pair",
        ),
    ],
)
def test_worse_rows_are_found_and_described(is_bad, description):
    table, losses = make()
    bad = is_bad(table).to_numpy()
    slices = worst_slices(table, SCHEMA, losses + 3 * bad, min_rows=30)
    assert slices[0].description.startswith(description)
    assert (bad[slices[0].rows]).mean() > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_random_variation_between_days_is_no_slice(seed):
    # given: days with a common weather and a common loss, which are independent of each other
    random = np.random.default_rng(seed)
    table, losses = make()
    day = np.arange(ROWS) // 24
    table = table.assign(group="a", size=random.normal(0, 1, 200)[day])
    losses = losses / 10 + random.exponential(1, 200)[day]
    # then: with rows as observations the weather would be significant
    assert worst_slices(table, SCHEMA, losses, min_rows=30)
    assert worst_slices(table, SCHEMA, losses, min_rows=30, blocks=day) == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_slice(seed):
    table, losses = make(seed=seed)
    assert worst_slices(table, SCHEMA, losses, min_rows=30) == []


def test_pair_no_worse_than_its_column_is_not_reported():
    table, losses = make()
    slices = worst_slices(table, SCHEMA, losses + 3 * (table["group"] == "b").to_numpy(), min_rows=30)
    assert [slice_.description for slice_ in slices] == ["group is b"]


def test_at_most_five_slices_are_sorted_and_do_not_overlap():
    table, losses = make()
    weekday = table["moment"].dt.weekday.to_numpy()
    slices = worst_slices(table, SCHEMA, losses + weekday**2.0, min_rows=30)
    assert 2 <= len(slices) <= 5
    assert [slice_.excess for slice_ in slices] == sorted((slice_.excess for slice_ in slices), reverse=True)
    for index, slice_ in enumerate(slices):
        for other in slices[:index]:
            assert len(np.intersect1d(slice_.rows, other.rows)) <= 0.5 * min(len(slice_.rows), len(other.rows))


def test_slice_has_at_least_min_rows():
    table, losses = make()
    rare = np.isin(np.arange(ROWS), np.random.default_rng(1).choice(ROWS, 20, replace=False))
    table = table.assign(group=np.where(rare, "rare", table["group"]))
    assert [slice_.description for slice_ in worst_slices(table, SCHEMA, losses + 9 * rare, min_rows=20)] == [
        "group is rare"
    ]
    assert worst_slices(table, SCHEMA, losses + 9 * rare, min_rows=400) == []


def test_text_ids_and_sensitive_columns_are_not_searched():
    table, _ = make()
    assert {binning.source for binning in bin_columns(table, SCHEMA)} == {"moment", "group", "size", "is_open"}


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        pytest.param({"group": [f"g{row}" for row in range(10_000)]}, 10_000, id="a column of 10 000 values"),
        pytest.param({}, 12, id="12 rows"),
        pytest.param({"size": np.full(500, np.nan)}, 500, id="a column without values"),
        pytest.param({"size": np.zeros(500), "group": "a", "is_open": 1.0}, 500, id="constant columns"),
        pytest.param({"moment": pd.Timestamp("2024-01-01")}, 500, id="a single moment"),
        pytest.param({"moment": pd.Series([pd.NaT] * 500, dtype="datetime64[us]")}, 500, id="no times"),
    ],
)
def test_degenerate_tables_are_searched(columns, rows):
    table, losses = make(rows, **columns)
    assert worst_slices(table, SCHEMA, losses, min_rows=30) == []


@pytest.mark.parametrize(
    "losses", [pytest.param(np.full(ROWS, np.nan), id="NaN"), pytest.param(np.ones(ROWS), id="all equal")]
)
def test_constant_or_nan_losses_have_no_slice(losses):
    assert worst_slices(make()[0], SCHEMA, losses, min_rows=30) == []
