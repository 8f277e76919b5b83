"""Encodings that `init` proposes, and its findings about them."""

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


def infer(frame: pd.DataFrame, **given: object) -> InferredSchema:
    return infer_schema(frame, **({"name": "things", "target": "y"} | given))


def encoding_of(inferred: InferredSchema, name: str) -> dict[str, object]:
    return inferred.schema.columns[name].encode.model_dump(exclude_defaults=True)


def findings_about(inferred: InferredSchema, about: str) -> str:
    return " | ".join(finding for finding in inferred.findings if about in finding)


TARGETS = {
    "regression": RNG.normal(size=ROWS),
    "binary": RNG.random(ROWS) > 0.5,
    "several classes": RNG.integers(0, 3, ROWS),
}
COLUMNS = [
    pytest.param([f"c{row % 10}" for row in range(ROWS)], {}, id="few categories"),
    pytest.param([f"c{row % 11}" for row in range(ROWS)], {"code": "target"}, id="many categories"),
    pytest.param([f"c{row % 300}" for row in range(ROWS)], {"code": "target"}, id="two rows each"),
    pytest.param([f"c{row % 50}" if row < 70 else None for row in range(ROWS)], {}, id="too few rows each"),
    pytest.param(RNG.lognormal(3, 2, ROWS), {"scale": "log"}, id="a long tail"),
    pytest.param(np.where(RNG.random(ROWS) < 0.9, 0, 5_000 * RNG.random(ROWS)), {"scale": "log"}, id="mostly zero"),
    pytest.param([None, *RNG.lognormal(3, 2, ROWS - 1)], {"scale": "log"}, id="a long tail with missing values"),
    pytest.param(RNG.lognormal(3, 2, ROWS) / 1e6, {}, id="a long tail below 1, where a logarithm is a line"),
    pytest.param(-RNG.lognormal(3, 2, ROWS), {}, id="a long tail below zero"),
    pytest.param(RNG.normal(100, 10, ROWS), {}, id="no tail"),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("values", "encode"), COLUMNS)
def test_encoding_depends_on_the_values(values, encode, target):
    frame = table(c=values, y=TARGETS[target])
    inferred = infer(frame)
    assert encoding_of(inferred, "c") == encode
    assert bool(findings_about(inferred, "`encode: ")) == bool(encode)
    dataframes.check_frame(frame, inferred.schema)


def test_no_target_encoding_for_many_classes():
    frame = table(c=[f"c{row % 30}" for row in range(ROWS)], y=[f"class {row % 12}" for row in range(ROWS)])
    assert encoding_of(infer(frame), "c") == {}


def test_excluded_column_keeps_the_default_encoding():
    values = RNG.lognormal(3, 2, ROWS)
    inferred = infer(table(c=values, copy=values))
    assert (encoding_of(inferred, "c"), encoding_of(inferred, "copy")) == ({"scale": "log"}, {})


def test_country_marks_its_holidays_on_the_time_column():
    frame = table(day=DAYS, due=DAYS[::-1])
    inferred = infer(frame, time="day", country="DE-BY")
    assert (encoding_of(inferred, "day"), encoding_of(inferred, "due")) == ({"holidays": "DE-BY"}, {})
    assert "public holidays of DE-BY are marked" in findings_about(inferred, "day: ")


HOLIDAYS = [
    pytest.param({"day": DAYS}, "", "--country US", id="days without a country"),
    pytest.param({"day": pd.date_range("1990", periods=ROWS, freq="7D")}, "", "", id="weeks without a country"),
    pytest.param({}, "US", "no time column", id="a country without a time"),
    pytest.param({}, "", "", id="neither"),
]


@pytest.mark.parametrize(("columns", "country", "message"), HOLIDAYS)
def test_finding_about_holidays_if_they_are_relevant(columns, country, message):
    inferred = findings_about(infer(table(**columns), country=country), "holidays")
    assert message in inferred
    assert bool(message) == bool(inferred)


@pytest.mark.parametrize("columns", [{}, {"day": DAYS}], ids=["no time", "a time"])
@pytest.mark.parametrize("country", ["XX", "US-XX", "usa", "-"])
def test_unknown_country_is_refused(country, columns):
    with pytest.raises(ConfigError, match="--country: "):
        infer(table(**columns), country=country)


def with_duplicates(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Append copies of the first rows to a frame."""
    return pd.concat([frame, frame.head(rows)], ignore_index=True)


DUPLICATES = [
    pytest.param(with_duplicates(table(), 30), "drop", "30 rows (4.76%) equal an earlier one", id="many"),
    pytest.param(
        with_duplicates(pd.concat([table(), table(), table()]), 1), "refuse", "they are kept", id="one of many"
    ),
    pytest.param(with_duplicates(table().round(0), 30), "refuse", "they are kept", id="equal by chance"),
    pytest.param(table(), "refuse", "", id="none"),
    pytest.param(
        with_duplicates(table(odd=[[1]] * ROWS), 30), "refuse", "", id="a column that cannot be decoded may differ"
    ),
]


@pytest.mark.parametrize(("frame", "duplicates", "message"), DUPLICATES)
def test_duplicate_rows_are_dropped_or_kept(frame, duplicates, message):
    inferred = infer(frame)
    assert inferred.schema.duplicates == duplicates
    assert message in findings_about(inferred, "key: ")
    kept = dataframes.check_frame(frame, inferred.schema).frame
    assert len(kept) == (ROWS if duplicates == "drop" else len(frame))
