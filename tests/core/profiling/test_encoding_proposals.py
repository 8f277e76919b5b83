"""Which encodings `init` proposes, and what it says about them."""

import numpy as np
import pandas as pd
import pytest

from model_name.core import dataframes
from model_name.core.profiling.schema_inference import InferredSchema, infer_schema
from model_name.errors import ConfigError

ROWS = 600
RNG = np.random.default_rng(5)
DAYS = pd.date_range("2022-01-01", periods=ROWS, freq="D")


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"y": RNG.normal(size=ROWS), "x": RNG.normal(size=ROWS)} | columns)


def inferred(frame: pd.DataFrame, **given: object) -> InferredSchema:
    return infer_schema(frame, **({"name": "things", "target": "y"} | given))


def encoded(found: InferredSchema, name: str) -> dict[str, object]:
    return found.schema.columns[name].encode.model_dump(exclude_defaults=True)


def said(found: InferredSchema, about: str) -> str:
    return " | ".join(finding for finding in found.findings if about in finding)


TARGETS = {
    "regression": RNG.normal(size=ROWS),
    "binary": RNG.random(ROWS) > 0.5,
    "several classes": RNG.integers(0, 3, ROWS),
}
COLUMNS = [
    pytest.param([f"c{row % 10}" for row in range(ROWS)], {}, id="few categories"),
    pytest.param([f"c{row % 11}" for row in range(ROWS)], {"code": "target"}, id="many"),
    pytest.param([f"c{row % 300}" for row in range(ROWS)], {"code": "target"}, id="two rows each"),
    pytest.param([f"c{row % 50}" if row < 70 else None for row in range(ROWS)], {}, id="too few rows each"),
    pytest.param(RNG.lognormal(3, 2, ROWS), {"scale": "log"}, id="a long tail"),
    pytest.param(np.where(RNG.random(ROWS) < 0.9, 0, 5_000 * RNG.random(ROWS)), {"scale": "log"}, id="mostly zero"),
    pytest.param([None, *RNG.lognormal(3, 2, ROWS - 1)], {"scale": "log"}, id="a long tail with gaps"),
    pytest.param(RNG.lognormal(3, 2, ROWS) / 1e6, {}, id="a long tail below 1, where a logarithm is a line"),
    pytest.param(-RNG.lognormal(3, 2, ROWS), {}, id="a long tail below zero"),
    pytest.param(RNG.normal(100, 10, ROWS), {}, id="no tail"),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("values", "encode"), COLUMNS)
def test_a_column_is_encoded_as_its_values_call_for(values, encode, target):
    frame = table(c=values, y=TARGETS[target])
    found = inferred(frame)
    assert encoded(found, "c") == encode
    assert bool(said(found, "`encode: ")) == bool(encode)
    dataframes.check_frame(frame, found.schema)


def test_a_target_of_many_classes_would_make_too_many_features():
    frame = table(c=[f"c{row % 30}" for row in range(ROWS)], y=[f"class {row % 12}" for row in range(ROWS)])
    assert encoded(inferred(frame), "c") == {}


def test_a_column_that_is_no_feature_is_left_as_it_is():
    values = RNG.lognormal(3, 2, ROWS)
    found = inferred(table(c=values, copy=values))
    assert (encoded(found, "c"), encoded(found, "copy")) == ({"scale": "log"}, {})


def test_a_country_marks_its_holidays_on_the_time_column():
    frame = table(day=DAYS, due=DAYS[::-1])
    found = inferred(frame, time="day", country="DE-BY")
    assert (encoded(found, "day"), encoded(found, "due")) == ({"holidays": "DE-BY"}, {})
    assert "public holidays of DE-BY are marked" in said(found, "day: ")


HOLIDAYS = [
    pytest.param({"day": DAYS}, "", "--country US", id="days without a country"),
    pytest.param({"day": pd.date_range("1990", periods=ROWS, freq="7D")}, "", "", id="weeks without a country"),
    pytest.param({}, "US", "no time column", id="a country without a time"),
    pytest.param({}, "", "", id="neither"),
]


@pytest.mark.parametrize(("columns", "country", "words"), HOLIDAYS)
def test_that_there_are_holidays_is_told_where_they_could_matter(columns, country, words):
    found = said(inferred(table(**columns), country=country), "holidays")
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.parametrize("columns", [{}, {"day": DAYS}], ids=["no time", "a time"])
@pytest.mark.parametrize("country", ["XX", "US-XX", "usa", "-"])
def test_a_country_that_there_is_not_is_refused(country, columns):
    with pytest.raises(ConfigError, match="--country: "):
        inferred(table(**columns), country=country)


def copied(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """The frame with so many of its rows twice."""
    return pd.concat([frame, frame.head(rows)], ignore_index=True)


COPIES = [
    pytest.param(copied(table(), 30), "drop", "30 rows (4.76%) equal an earlier one", id="many"),
    pytest.param(copied(pd.concat([table(), table(), table()]), 1), "refuse", "they are kept", id="one of many"),
    pytest.param(copied(table().round(0), 30), "refuse", "they are kept", id="equal by chance"),
    pytest.param(table(), "refuse", "", id="none"),
    pytest.param(copied(table(odd=[[1]] * ROWS), 30), "refuse", "", id="a column that is not read may differ"),
]


@pytest.mark.parametrize(("frame", "duplicates", "words"), COPIES)
def test_what_becomes_of_rows_that_are_there_twice(frame, duplicates, words):
    found = inferred(frame)
    assert found.schema.duplicates == duplicates
    assert words in said(found, "key: ")
    kept = dataframes.check_frame(frame, found.schema).frame
    assert len(kept) == (ROWS if duplicates == "drop" else len(frame))
