"""A pipeline validates its table once: later jobs trust the validation mark of preparation."""

import numpy as np
import pandas as pd
import pytest
from loguru import logger

from model_name.core import dataframes
from model_name.errors import DataError
from model_name.settings import load_job
from tests.support import projects


@pytest.fixture
def prepared(tmp_path):
    """Return a config folder and the path of the table that preparation wrote for it."""
    confs = projects.make_project(tmp_path)
    with load_job([confs / "preparation.yaml"]) as job:
        return confs, job.run().table


@pytest.fixture
def lines():
    messages = []
    sink = logger.add(lambda line: messages.append(line.record["message"]))
    yield messages
    logger.remove(sink)


def training(confs, table):
    return load_job([confs / "training.yaml"], [f"job.table.path={table}"])


def test_a_later_job_trusts_the_mark_and_logs_it(prepared, lines, monkeypatch):
    confs, table = prepared
    job = training(confs, table)
    expected = job.read_and_validate()
    with monkeypatch.context() as patch:
        patch.delattr(dataframes, "check_frame")
        lines.clear()
        result = job.read()
    pd.testing.assert_frame_equal(result.frame, expected.frame)
    assert result.report == expected.report
    (line,) = lines
    assert f"{table}: 600 rows, already validated by preparation (schema " in line
    assert line.endswith("...); not validated again")


def test_a_table_that_was_changed_since_is_validated(prepared):
    confs, table = prepared
    frame = pd.read_parquet(table)
    frame.loc[3, "size"] = 1e6
    frame.to_parquet(table, index=False)
    with pytest.raises(DataError, match=r"size, row 3: 1000000\.0 is above 100"):
        training(confs, table).read()


def test_a_schema_that_was_changed_since_is_checked(prepared, lines):
    confs, table = prepared
    path = confs / "schema.yaml"
    path.write_text(path.read_text().replace("max: 100", "max: 5"))
    with pytest.raises(DataError, match="is above 5"):
        training(confs, table).read()
    assert f"{table}: validated by preparation, but with another schema; validating it again" in lines


def test_preparation_validates_a_prepared_table_again(prepared, capfd):
    confs, table = prepared
    with load_job([confs / "preparation.yaml"], [f"job.table.path={table}"]) as job:
        assert job.run().table == table
    log = capfd.readouterr().err
    assert f"{table}: 600 rows fit the schema orders" in log
    assert "not validated again" not in log


def test_a_trusted_table_is_split_like_a_validated_one(prepared):
    confs, table = prepared
    job = training(confs, table)
    split = job.read_split()
    validated = job.read_and_validate().frame
    train, test = job.resolved_splitter.split(validated, job.schema_)
    assert np.array_equal(split.train.index, train)
    assert np.array_equal(split.test.index, test)
