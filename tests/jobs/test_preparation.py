"""The check before anything costly: what it leaves behind, and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from model_name.errors import ConfigError, DataError
from model_name.settings import load_job
from tests.support import projects, tables

HISTORY = {"kind": "numeric", "nullable": True, "history": {"of": "amount", "by": ["region"], "lag": "24h"}}


def prepare(folder, frame=None, task="regression", change=lambda schema: None):
    """Prepare a table under a changed schema."""
    confs = projects.make_project(folder, task, frame)
    schema = tables.order_schema(task)
    change(schema)
    (confs / "schema.yaml").write_text(yaml.safe_dump(schema))
    with load_job([confs / "preparation.yaml"]) as job:
        return job.run()


def column(name, **changes):
    """A change of one column of the schema."""
    return lambda schema: schema["columns"].setdefault(name, {}).update(changes)


def test_histories_are_made_and_written(tmp_path):
    # Given rows of every hour, and of a region each
    frame = tables.order_table()
    # When the schema asks for the amount of the day before
    result = prepare(tmp_path, frame, change=column("amount_24h", **HISTORY))
    # Then the prepared table has it where that hour was of the same region
    found = pd.read_parquet(result.table)
    before = frame.shift(24)
    expected = before["amount"].where(before["region"] == frame["region"])
    np.testing.assert_array_equal(found["amount_24h"], expected)
    assert 0 < expected.notna().sum() < len(frame)


def test_what_was_dropped_is_among_the_findings(tmp_path):
    frame = tables.order_table()
    frame.loc[[3, 5], "size"] = 50.0
    frame = pd.concat([frame, frame.tail(4)], ignore_index=True)

    def change(schema):
        schema.update(key=[], duplicates="drop", rules=[{"holds": "size < 40", "otherwise": "drop"}])

    result = prepare(tmp_path, frame, change=change)
    words = ("2 of 604 rows dropped: size < 40 does not hold", "4 of 604 rows dropped: equal to an earlier row")
    assert result.findings == words
    assert (result.rows, result.kept) == (604, 598)
    beside = json.loads((tmp_path / result.table).with_suffix(".findings.json").read_text())
    assert tuple(beside["findings"]) == words


def test_a_category_that_only_the_held_out_rows_have_is_counted(tmp_path):
    frame = tables.order_table()
    frame.loc[599, "region"] = "moon"
    assert prepare(tmp_path, frame).findings == ("1 values of region are unseen categories, taken as missing",)


def test_a_column_that_is_missing_in_the_whole_training_part_is_taken(tmp_path):
    frame = tables.order_table()
    frame.loc[frame.index[:500], "size"] = np.nan
    encode = {"scale": "quantile", "impute": "median"}
    assert prepare(tmp_path, frame, change=column("size", encode=encode)).kept == 600


WRONG_FEATURES = [
    pytest.param(
        column("moment", encode={"holidays": "XX"}), "moment.encode.holidays: XX is not", "DE-BY", id="country"
    ),
    pytest.param(
        column("moment", encode={"holidays": "DE-XX"}), "XX is not a part of DE", "BY", id="part of a country"
    ),
    pytest.param(
        lambda schema: schema["columns"].update(code={"kind": "category", "encode": {"code": "one-hot"}}),
        "code: has 480 categories, one-hot allows 200",
        "code: target",
        id="too many categories",
    ),
]


@pytest.mark.parametrize(("change", "words", "hint"), WRONG_FEATURES)
def test_features_that_there_are_not_are_refused_before_anything_is_written(tmp_path, change, words, hint):
    with pytest.raises(ConfigError, match=words) as refused:
        prepare(tmp_path, change=change)
    assert (refused.value.exit_code, hint in refused.value.hint) == (2, True)
    assert not list(tmp_path.rglob("prepared/*"))


def changed(task="regression", **values):
    """The table with some values of the target changed."""
    frame = tables.order_table(task)
    for row, value in values.items():
        frame.loc[int(row[1:]), "amount"] = value
    return frame


WRONG_TARGETS = [
    pytest.param("regression", changed(r3=np.inf), "amount, row 3: inf is not finite", id="infinite"),
    pytest.param("regression", changed(r3=np.nan), "amount, row 3: the target is missing", id="missing"),
    pytest.param(
        "binary",
        tables.order_table("binary").assign(amount=["low"] * 599 + ["high"]),
        "the training part has no row of class 'high'",
        id="a class seen once, among the held-out rows",
    ),
    pytest.param(
        "binary", tables.order_table("binary").assign(amount="low"), "the target amount is constant", id="one class alone"
    ),
]


@pytest.mark.parametrize(("task", "frame", "words"), WRONG_TARGETS)
def test_a_target_that_nothing_can_learn_is_refused(tmp_path, task, frame, words):
    with pytest.raises(DataError, match=words):
        prepare(tmp_path, frame, task)


def test_a_class_seen_once_in_the_training_part_is_taken(tmp_path):
    frame = tables.order_table("binary").assign(amount=["high"] + ["low"] * 599)
    assert prepare(tmp_path, frame, "binary", column("region", encode={"code": "target"})).kept == 600
