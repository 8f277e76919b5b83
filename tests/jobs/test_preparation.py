"""Preparation: validated table, findings, and errors before anything is written."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from model_name.errors import ConfigError, DataError
from model_name.settings import load_job
from tests.support import projects, tables

LAG = {"kind": "numeric", "nullable": True, "history": {"of": "amount", "by": ["region"], "lag": "24h"}}


def prepare(folder, frame=None, task="regression", change=lambda schema: None):
    """Prepare a table under a changed schema."""
    confs = projects.make_project(folder, task, frame)
    schema = tables.order_schema(task)
    change(schema)
    (confs / "schema.yaml").write_text(yaml.safe_dump(schema))
    with load_job([confs / "preparation.yaml"]) as job:
        return job.run()


def column(name, **changes):
    """Return a change of one column of the schema."""
    return lambda schema: schema["columns"].setdefault(name, {}).update(changes)


def test_lag_columns_are_computed_and_written(tmp_path):
    # Given one row per hour, each of a region
    frame = tables.order_table()
    # When the schema has the amount of the day before as a lag column
    result = prepare(tmp_path, frame, change=column("amount_24h", **LAG))
    # Then the prepared table has its value if the row of that hour has the same region
    prepared = pd.read_parquet(result.table)
    before = frame.shift(24)
    expected = before["amount"].where(before["region"] == frame["region"])
    np.testing.assert_array_equal(prepared["amount_24h"], expected)
    assert 0 < expected.notna().sum() < len(frame)


def test_dropped_rows_are_among_the_findings(tmp_path):
    frame = tables.order_table()
    frame.loc[[3, 5], "size"] = 50.0
    frame = pd.concat([frame, frame.tail(4)], ignore_index=True)

    def change(schema):
        schema.update(key=[], duplicates="drop", rules=[{"holds": "size < 40", "otherwise": "drop"}])

    result = prepare(tmp_path, frame, change=change)
    findings = ("2 of 604 rows dropped: size < 40 does not hold", "4 of 604 rows dropped: equal to an earlier row")
    assert result.findings == findings
    assert (result.rows, result.kept) == (604, 598)
    document = json.loads((tmp_path / result.table).with_suffix(".findings.json").read_text())
    assert tuple(document["findings"]) == findings


def test_a_category_of_held_out_rows_alone_is_counted_as_unseen(tmp_path):
    frame = tables.order_table()
    frame.loc[599, "region"] = "moon"
    assert prepare(tmp_path, frame).findings == ("1 values of region are unseen categories, taken as missing",)


def test_a_column_that_is_null_in_the_whole_training_part_is_accepted(tmp_path):
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


@pytest.mark.parametrize(("change", "message", "hint"), WRONG_FEATURES)
def test_unavailable_features_are_refused_before_anything_is_written(tmp_path, change, message, hint):
    with pytest.raises(ConfigError, match=message) as refused:
        prepare(tmp_path, change=change)
    assert (refused.value.exit_code, hint in refused.value.hint) == (2, True)
    assert not list(tmp_path.rglob("prepared/*"))


def changed(task="regression", **values):
    """Return the table with some values of the target changed."""
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
        "binary",
        tables.order_table("binary").assign(amount="low"),
        "the target amount is constant",
        id="one class alone",
    ),
]


@pytest.mark.parametrize(("task", "frame", "message"), WRONG_TARGETS)
def test_a_target_that_cannot_be_trained_on_is_refused(tmp_path, task, frame, message):
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, frame, task)


def test_a_class_with_one_training_row_is_accepted(tmp_path):
    frame = tables.order_table("binary").assign(amount=["high"] + ["low"] * 599)
    assert prepare(tmp_path, frame, "binary", column("region", encode={"code": "target"})).kept == 600
