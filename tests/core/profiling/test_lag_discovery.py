"""Lags of the target that `init` proposes, and its findings about them."""

import numpy as np
import pandas as pd
import pytest

from model_name.core import dataframes
from model_name.core.profiling.schema_inference import InferredSchema, infer_schema


def rows(freq: str, count: int, season: int, *, shops: int = 1, noise: float = 0.3) -> pd.DataFrame:
    """Make a regular series for each shop, whose target has a period of `season` steps."""
    rng = np.random.default_rng(0)
    step = np.tile(np.arange(count), shops)
    return pd.DataFrame(
        {
            "shop": np.repeat([f"s{number}" for number in range(shops)], count),
            "when": np.tile(pd.date_range("2020-01-06", periods=count, freq=freq), shops),
            "size": rng.normal(size=count * shops),
            "y": 5 + np.sin(2 * np.pi * step / season) + rng.normal(0, noise, count * shops),
        }
    )


def infer(frame: pd.DataFrame, **given: object) -> InferredSchema:
    return infer_schema(frame, **({"name": "things", "target": "y", "time": "when"} | given))


def lags_of(inferred: InferredSchema) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    """Return lag, repeats and entity of the lag columns by name."""
    specs = {name: column.history for name, column in inferred.schema.lag_columns.items()}
    return {name: (spec.lag, spec.repeats, spec.by) for name, spec in specs.items() if spec}


def lag_findings(inferred: InferredSchema) -> str:
    return " | ".join(finding for finding in inferred.findings if finding.startswith("histories"))


SEASONS = [
    pytest.param("h", 2_400, 24, ["y_24h", "y_168h", "y_336h", "y_7x24h", "y_4x168h"], id="hours, a day"),
    pytest.param("30min", 3_400, 48, ["y_24h", "y_168h", "y_336h", "y_7x24h", "y_4x168h"], id="half hours, a day"),
    pytest.param("h", 1_000, 24, ["y_24h", "y_168h", "y_7x24h"], id="hours, too short for two weeks"),
    pytest.param("D", 400, 7, ["y_7d", "y_14d", "y_28d", "y_4x7d"], id="days, a week"),
    pytest.param("D", 1_100, 7, ["y_7d", "y_14d", "y_28d", "y_364d", "y_4x7d"], id="days of three years"),
    pytest.param("W-MON", 200, 52, ["y_1w", "y_2w", "y_52w", "y_4x1w"], id="weeks, a year"),
    pytest.param("W-MON", 200, 4, ["y_2w", "y_52w"], id="weeks, without uncorrelated lags"),
    pytest.param("5h", 400, 30, ["y_5h", "y_10h", "y_15h"], id="steps that do not divide a day"),
    pytest.param("2D", 300, 40, ["y_2d", "y_4d", "y_6d"], id="every other day"),
]


@pytest.mark.parametrize("shops", [1, 3])
@pytest.mark.parametrize(("freq", "count", "season", "names"), SEASONS)
def test_lags_follow_the_season_of_a_series(freq, count, season, names, shops):
    frame = rows(freq, count, season, shops=shops)
    inferred = infer(frame)
    assert list(lags_of(inferred)) == names
    assert {by for _, _, by in lags_of(inferred).values()} == {() if shops == 1 else ("shop",)}
    assert f"EVERY REQUEST MUST BRING {', '.join(names)}" in lag_findings(inferred)
    with_lags = dataframes.add_lag_columns(frame, inferred.schema)
    assert len(dataframes.check_frame(with_lags, inferred.schema).frame) == len(frame)


WITHOUT_LAGS = [
    pytest.param(rows("h", 2_400, 24).assign(y=np.random.default_rng(1).normal(size=2_400)), "too little", id="noise"),
    pytest.param(rows("h", 60, 24), "too few or too irregular", id="too short"),
    pytest.param(rows("MS", 200, 12), "too few or too irregular", id="months, which are not a fixed time span"),
    pytest.param(rows("h", 2_400, 24).sample(300, random_state=0), "no series", id="random times"),
    pytest.param(rows("50s", 4_000, 24), "no series", id="seconds, which are below the smallest unit"),
    pytest.param(
        rows("h", 800, 24, shops=3).assign(shop="s"), "no series", id="several rows of a time without an entity"
    ),
]


@pytest.mark.parametrize(("frame", "message"), WITHOUT_LAGS)
def test_no_lags_without_a_season_and_the_reason(frame, message):
    inferred = infer(frame)
    assert lags_of(inferred) == {}
    assert message in lag_findings(inferred)


def test_classification_has_no_lags():
    frame = rows("h", 2_400, 24)
    assert lags_of(infer(frame.assign(y=frame["y"] > 5))) == {}


def test_entity_may_be_two_columns_or_a_number():
    frame = rows("h", 1_200, 24, shops=6)
    frame["city"] = frame["shop"].map(dict(zip(["s0", "s1", "s2", "s3", "s4", "s5"], "aabbcc", strict=True)))
    frame["kind"] = frame["shop"].map(dict(zip(["s0", "s1", "s2", "s3", "s4", "s5"], "pqpqpq", strict=True)))
    frame["number"] = frame["shop"].str[1:].astype(int)
    by = {spec[2] for spec in lags_of(infer(frame.drop(columns=["shop", "number"]))).values()}
    assert by == {("kind", "city")}
    by = {spec[2] for spec in lags_of(infer(frame[["number", "when", "size", "y"]])).values()}
    assert by == {("number",)}


def test_lag_column_does_not_reuse_a_name():
    frame = rows("D", 400, 7).assign(y_7d=1.5)
    inferred = infer(frame)
    assert "y_7d_" in lags_of(inferred)
    assert inferred.schema.columns["y_7d"].history is None


def test_lag_of_a_non_negative_target_is_bounded_by_zero():
    above = infer(rows("D", 400, 7)).schema.columns["y_7d"]
    frame = rows("D", 400, 7)
    below = infer(frame.assign(y=frame["y"] - 5)).schema.columns["y_7d"]
    assert (above.min, below.min) == (0, None)
