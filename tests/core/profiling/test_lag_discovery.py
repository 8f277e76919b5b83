"""Which earlier values of the target `init` proposes, and what it says about them."""

import numpy as np
import pandas as pd
import pytest

from model_name.core import dataframes
from model_name.core.profiling.schema_inference import InferredSchema, infer_schema


def rows(freq: str, count: int, season: int, *, shops: int = 1, noise: float = 0.3) -> pd.DataFrame:
    """A regular series for each shop, whose target comes round every so many steps."""
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


def inferred(frame: pd.DataFrame, **given: object) -> InferredSchema:
    return infer_schema(frame, **({"name": "things", "target": "y", "time": "when"} | given))


def told(found: InferredSchema) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    """The histories: lag, repeats and entity by name."""
    histories = {name: column.history for name, column in found.schema.lag_columns.items()}
    return {name: (history.lag, history.repeats, history.by) for name, history in histories.items() if history}


def said(found: InferredSchema) -> str:
    return " | ".join(finding for finding in found.findings if finding.startswith("histories"))


SEASONS = [
    pytest.param("h", 2_400, 24, ["y_24h", "y_168h", "y_336h", "y_7x24h", "y_4x168h"], id="hours, a day"),
    pytest.param("30min", 3_400, 48, ["y_24h", "y_168h", "y_336h", "y_7x24h", "y_4x168h"], id="half hours, a day"),
    pytest.param("h", 1_000, 24, ["y_24h", "y_168h", "y_7x24h"], id="hours, too short for two weeks"),
    pytest.param("D", 400, 7, ["y_7d", "y_14d", "y_28d", "y_4x7d"], id="days, a week"),
    pytest.param("D", 1_100, 7, ["y_7d", "y_14d", "y_28d", "y_364d", "y_4x7d"], id="days of three years"),
    pytest.param("W-MON", 200, 52, ["y_1w", "y_2w", "y_52w", "y_4x1w"], id="weeks, a year"),
    pytest.param("W-MON", 200, 4, ["y_2w", "y_52w"], id="weeks, those that tell nothing are left out"),
    pytest.param("5h", 400, 30, ["y_5h", "y_10h", "y_15h"], id="steps that no day is a multiple of"),
    pytest.param("2D", 300, 40, ["y_2d", "y_4d", "y_6d"], id="every other day"),
]


@pytest.mark.parametrize("shops", [1, 3])
@pytest.mark.parametrize(("freq", "count", "season", "names"), SEASONS)
def test_a_seasonal_series_is_told_of_its_season(freq, count, season, names, shops):
    frame = rows(freq, count, season, shops=shops)
    found = inferred(frame)
    assert list(told(found)) == names
    assert {by for _, _, by in told(found).values()} == {() if shops == 1 else ("shop",)}
    assert f"EVERY REQUEST MUST BRING {', '.join(names)}" in said(found)
    assert len(dataframes.check_frame(dataframes.add_lag_columns(frame, found.schema), found.schema).frame) == len(
        frame
    )


NOT_TOLD = [
    pytest.param(rows("h", 2_400, 24).assign(y=np.random.default_rng(1).normal(size=2_400)), "too little", id="noise"),
    pytest.param(rows("h", 60, 24), "too few or too irregular", id="too short"),
    pytest.param(rows("MS", 200, 12), "too few or too irregular", id="months, which no span of time can say"),
    pytest.param(rows("h", 2_400, 24).sample(300, random_state=0), "no series", id="moments at random"),
    pytest.param(rows("50s", 4_000, 24), "no series", id="seconds, which no span of time can say"),
    pytest.param(rows("h", 800, 24, shops=3).assign(shop="s"), "no series", id="several rows of a moment, no entity"),
]


@pytest.mark.parametrize(("frame", "words"), NOT_TOLD)
def test_what_is_no_season_is_not_told_and_the_reason_is(frame, words):
    found = inferred(frame)
    assert told(found) == {}
    assert words in said(found)


def test_a_class_has_no_histories():
    frame = rows("h", 2_400, 24)
    assert told(inferred(frame.assign(y=frame["y"] > 5))) == {}


def test_an_entity_may_be_two_columns_or_a_number():
    frame = rows("h", 1_200, 24, shops=6)
    frame["city"] = frame["shop"].map(dict(zip(["s0", "s1", "s2", "s3", "s4", "s5"], "aabbcc", strict=True)))
    frame["kind"] = frame["shop"].map(dict(zip(["s0", "s1", "s2", "s3", "s4", "s5"], "pqpqpq", strict=True)))
    frame["number"] = frame["shop"].str[1:].astype(int)
    by = {history[2] for history in told(inferred(frame.drop(columns=["shop", "number"]))).values()}
    assert by == {("kind", "city")}
    by = {history[2] for history in told(inferred(frame[["number", "when", "size", "y"]])).values()}
    assert by == {("number",)}


def test_a_name_that_is_taken_is_not_taken_twice():
    frame = rows("D", 400, 7).assign(y_7d=1.5)
    found = inferred(frame)
    assert "y_7d_" in told(found)
    assert found.schema.columns["y_7d"].history is None


def test_a_target_that_is_never_negative_has_no_negative_history():
    above = inferred(rows("D", 400, 7)).schema.columns["y_7d"]
    frame = rows("D", 400, 7)
    below = inferred(frame.assign(y=frame["y"] - 5)).schema.columns["y_7d"]
    assert (above.min, below.min) == (0, None)
