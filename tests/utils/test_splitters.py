"""Splits of a table."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, DataError
from model_name.utils.splitters import RandomSplitter, TimeSplitter

HOURS = st.lists(st.integers(0, 24 * 20), min_size=2, max_size=60)


def schema(*, time: str | None = "when", classes: list[str] | None = None) -> TableSchema:
    target = (
        {"name": "y", "task": "regression"} if classes is None else {"name": "y", "task": "binary", "classes": classes}
    )
    columns = {"x": {"kind": "numeric"}, "when": {"kind": "datetime"}}
    return TableSchema.model_validate({"name": "table", "target": target, "time": time, "columns": columns})


def table(hours: list[int], labels: list[str] | None = None) -> pd.DataFrame:
    moments = np.datetime64("2024-01-01T00", "us") + np.array(hours, dtype="timedelta64[h]")
    return pd.DataFrame(
        {"x": 0.0, "when": moments, "y": labels if labels is not None else np.arange(float(len(hours)))}
    )


def labelled(**counts: int) -> pd.DataFrame:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return table(list(range(len(labels))), labels)


def test_newest_rows_are_held_out():
    # given: ten unordered days
    days = [3, 9, 1, 7, 0, 5, 8, 2, 6, 4]
    # when
    train, test = TimeSplitter(test_size=0.3).split(table([24 * day for day in days]), schema())
    # then
    assert sorted(days[row] for row in test) == [7, 8, 9]
    assert sorted(days[row] for row in train) == list(range(7))
    assert list(train) == sorted(train)
    assert list(test) == sorted(test)


def test_rows_of_equal_time_are_not_separated():
    # given: the limit of 20 % lies within four rows of equal time
    hours = [0, 24, 24, 48, 72, 96, 96, 96, 96, 120]
    # when
    train, test = TimeSplitter(test_size=0.2).split(table(hours), schema())
    # then
    assert [hours[row] for row in train] == [0, 24, 24, 48, 72]
    assert [hours[row] for row in test] == [96, 96, 96, 96, 120]


def test_folds_by_time_grow_and_cover_the_newer_half():
    # given
    hours = [12 * position for position in range(20)]
    # when
    folds = list(TimeSplitter().folds(table(hours), schema(), 5))
    # then
    assert [len(train) for train, _ in folds] == [10, 12, 14, 16, 18]
    assert np.concatenate([test for _, test in folds]).tolist() == list(range(10, 20))


def test_rows_of_equal_time_are_held_out_in_a_single_fold():
    # given: both limits between the folds lie within rows of equal time
    hours = [0, 24, 48, 72, 96, 120, 144, 168, 168, 192, 192, 192]
    # when
    folds = list(TimeSplitter().folds(table(hours), schema(), 3))
    # then
    assert [[hours[row] for row in test] for _, test in folds] == [[144], [168, 168], [192, 192, 192]]


@settings(deadline=None)
@given(hours=HOURS, count=st.integers(1, 5))
def test_folds_by_time_train_on_earlier_rows_only(hours, count):
    # given
    moments = np.array(hours)
    # when
    try:
        folds = list(TimeSplitter().folds(table(hours), schema(), count))
    except DataError:
        return  # too few times; refused tables have a test of their own below
    # then
    assert len(folds) == count
    for train, test in folds:
        assert moments[train].max() < moments[test].min()
        assert len(train) == (moments < moments[test].min()).sum(), "the training part is all earlier rows"
    assert all(len(before[0]) < len(after[0]) for before, after in pairwise(folds))
    assert moments.argmax() in folds[-1][1], "the newest row is held out"
    held_out = np.concatenate([test for _, test in folds])
    assert len(held_out) == len(set(held_out))


@settings(deadline=None)
@given(hours=HOURS, test_size=st.floats(0.05, 0.95))
def test_split_by_time_is_disjoint_complete_and_ordered(hours, test_size):
    # given
    moments = np.array(hours)
    # when
    try:
        train, test = TimeSplitter(test_size=test_size).split(table(hours), schema())
    except DataError:
        return
    # then
    assert sorted([*train, *test]) == list(range(len(hours)))
    assert moments[train].max() < moments[test].min()


@settings(deadline=None)
@given(
    hours=st.lists(st.integers(0, 99), min_size=10, max_size=60),
    test_size=st.floats(0.1, 0.9),
    count=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_random_parts_are_disjoint_and_complete(hours, test_size, count, seed):
    # given
    frame, splitter = table(hours), RandomSplitter(test_size=test_size, random_state=seed)
    rows = list(range(len(hours)))
    # when
    train, test = splitter.split(frame, schema())
    folds = list(splitter.folds(frame, schema(), count))
    # then
    assert sorted([*train, *test]) == rows
    assert all(sorted([*train, *test]) == rows for train, test in folds)
    assert sorted(np.concatenate([test for _, test in folds])) == rows


def test_random_parts_are_stratified_by_class():
    # given
    frame = labelled(no=80, yes=20)
    splitter, classified = RandomSplitter(test_size=0.25), schema(classes=["no", "yes"])
    # when
    parts = [*splitter.split(frame, classified), *(test for _, test in splitter.folds(frame, classified, 4))]
    # then
    assert [(frame["y"].iloc[part] == "yes").mean() for part in parts] == [0.2] * 6


def test_random_split_depends_on_the_seed():
    # given
    frame = table(list(range(50)))
    # when
    once, again, other = (RandomSplitter(random_state=seed).split(frame, schema())[1] for seed in (1, 1, 2))
    # then
    assert list(once) == list(again) != list(other)


NO_TIME = "a split by time needs a time column, the schema table names none"
ONE_DAY = r"when: the table holds a single day \(2024-01-01\); a split by time needs at least two"
FEW = "moments are too few or too uneven for 3 folds"
ONE_ROW = "y: class 'yes' has a single row; a split needs one for each part"


@pytest.mark.parametrize(
    ("splitter", "frame", "table_schema", "error", "reason"),
    [
        pytest.param(TimeSplitter(), table([0, 24]), schema(time=None), ConfigError, NO_TIME, id="no time column"),
        pytest.param(TimeSplitter(), table([0, 5, 23]), schema(), DataError, ONE_DAY, id="a single day"),
        pytest.param(
            RandomSplitter(),
            labelled(no=9, yes=1),
            schema(classes=["no", "yes"]),
            DataError,
            ONE_ROW,
            id="a class with one row",
        ),
    ],
)
def test_table_that_cannot_be_split_is_refused(splitter, frame, table_schema, error, reason):
    with pytest.raises(error, match=reason) as caught:
        splitter.split(frame, table_schema)
    assert caught.value.hint
    with pytest.raises(error, match=reason):
        list(splitter.folds(frame, table_schema, 3))


@pytest.mark.parametrize(
    ("splitter", "hours", "reason"),
    [
        pytest.param(TimeSplitter(), [0, 24, 24, 24], FEW, id="two times"),
        pytest.param(TimeSplitter(), [0] * 9 + [24, 48, 72], FEW, id="more than half of the rows have the oldest time"),
        pytest.param(TimeSplitter(), [0, 24, 48, *[72] * 9], FEW, id="most rows have the newest time"),
        pytest.param(RandomSplitter(), [0, 24], "the table cannot be split into 3 folds", id="fewer rows than folds"),
    ],
)
def test_too_few_rows_for_the_folds_are_refused(splitter, hours, reason):
    with pytest.raises(DataError, match=reason) as caught:
        list(splitter.folds(table(hours), schema(), 3))
    assert "fewer folds" in caught.value.hint


def test_missing_time_is_refused():
    # given
    frame = table([0, 24, 48])
    frame.loc[1, "when"] = pd.NaT
    # then
    with pytest.raises(DataError, match="when: is missing in some rows"):
        TimeSplitter().split(frame, schema())


def test_empty_part_is_refused():
    # given: all rows but one have the oldest time
    with pytest.raises(DataError, match="leaves no row in the training part"):
        TimeSplitter(test_size=0.5).split(table([0, 0, 0, 24]), schema())


@pytest.mark.parametrize("size", [0.0, 1.0, -0.1])
@pytest.mark.parametrize("kind", [TimeSplitter, RandomSplitter])
def test_test_size_is_between_0_and_1(kind, size):
    with pytest.raises(ValueError, match="test_size"):
        kind(test_size=size)
