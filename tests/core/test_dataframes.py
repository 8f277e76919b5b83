from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from model_name.core import dataframes
from model_name.core.schemas import Outputs, TableSchema
from model_name.errors import DataError


def schema_with(columns, target=None, **rest) -> TableSchema:
    target = target or {"name": "y", "task": "regression"}
    return TableSchema.model_validate({"name": "t", "target": target, "columns": columns} | rest)


NUMBER = {"x": {"kind": "numeric"}}


def test_valid_table_is_typed_and_keeps_its_rows(make_schema, make_table, task):
    # given a table with columns in another order and a custom index
    schema, table = make_schema(task), make_table(task)
    table = table[sorted(table.columns)].set_axis([f"row {row}" for row in range(len(table))])
    # when it is checked
    checked = dataframes.check_frame(table, schema)
    # then the columns are typed and in the order of the schema, and the rows unchanged
    assert list(checked.frame.columns) == [*schema.columns, "outcome"]
    assert checked.frame.index.equals(table.index)
    dtypes = {name: str(dtype) for name, dtype in checked.frame.dtypes.items()}
    assert dtypes == {name: dataframes.DTYPE_BY_KIND[column.kind] for name, column in schema.columns.items()} | {
        "outcome": "float64" if task == "regression" else "object"
    }
    assert checked.frame["outcome"].tolist() == table["outcome"].tolist()
    assert (checked.report.rows, checked.report.kept, checked.report.messages()) == (240, 240, [])


def test_checking_twice_changes_nothing(make_schema, make_table, task):
    once = dataframes.check_frame(make_table(task).assign(mark="unseen", gap=99.0), make_schema(task)).frame
    twice = dataframes.check_frame(once, make_schema(task))
    pd.testing.assert_frame_equal(twice.frame, once)
    assert twice.report.clipped == {}


def test_table_is_checked_without_its_target_on_request(make_schema, make_table, task):
    table = make_table(task)
    expected = dataframes.check_frame(table, make_schema(task)).frame.drop(columns="outcome")
    for given_table in (table, table.drop(columns="outcome")):
        checked = dataframes.check_frame(given_table, make_schema(task), with_target=False).frame
        pd.testing.assert_frame_equal(checked, expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda t: t.drop(columns="size"), "size: column is missing", id="a column is missing"),
        pytest.param(
            lambda t: t.assign(more=1, most=2),
            "more: is not a column of the schema things (and most)",
            id="extra columns",
        ),
        pytest.param(
            lambda t: pd.concat([t, t[["size"]]], axis=1), "size: the table has this column twice", id="a column twice"
        ),
        pytest.param(lambda t: t.head(0), "the table is empty: it has no rows", id="no rows"),
        pytest.param(
            lambda t: t.drop(columns="outcome"), "outcome: the target is not a column of the table", id="no target"
        ),
        pytest.param(lambda t: t.assign(outcome=1.0), "the target outcome is constant: 1.0", id="a constant target"),
        pytest.param(
            lambda t: t.assign(size=t["size"].astype(str)), "size, row 0: not a number; ", id="numbers in quotes"
        ),
        pytest.param(
            lambda t: t.assign(flag=None), "flag, row 0: is missing", id="missing in a column that is not nullable"
        ),
        pytest.param(
            lambda t: t.assign(code="same"),
            "239 rows have the key of an earlier row, the first is code='same'",
            id="keys twice",
        ),
        pytest.param(
            lambda t: t.assign(outcome=[None] + [1.0] * 239), "outcome, row 0: the target is missing", id="no outcome"
        ),
        pytest.param(
            lambda t: t.assign(outcome=[np.inf] + [1.0] * 239),
            "outcome, row 0: inf is not finite",
            id="an infinite outcome",
        ),
        pytest.param(
            lambda t: t.assign(outcome=["1"] + [1.0] * 239),
            "outcome, row 0: '1' is not a number",
            id="an outcome in quotes",
        ),
        pytest.param(
            lambda t: t.assign(outcome=[True] + [1.0] * 239),
            "outcome, row 0: True is not a number",
            id="a boolean outcome",
        ),
        pytest.param(
            lambda t: t.assign(outcome=pd.Series([10**400] + [1.0] * 239, dtype=object)),
            "outcome, row 0: 1000",
            id="an outcome too large for a float",
        ),
    ],
)
def test_invalid_table_is_refused_with_the_reason(make_schema, make_table, change, reason):
    with pytest.raises(DataError) as caught:
        dataframes.check_frame(change(make_table("regression")), make_schema("regression"))
    assert caught.value.message.startswith(reason)


def test_report_lists_dropped_clipped_and_ignored_values(make_schema, make_table):
    # given a schema that drops, clips and ignores
    raw = make_schema("regression", extra="drop", duplicates="drop").model_dump(mode="json")
    raw["columns"]["size"] |= {"max": 40, "out_of_bounds": "drop"}
    schema = TableSchema.model_validate(raw)
    # and a table with a row of each kind
    table = make_table("regression").assign(size=10, more=1)
    table.loc[0, "size"] = 41
    table.loc[1, "gap"] = -99
    table.loc[2, "mark"] = "unseen"
    table.loc[3, "code"] = "id-4"
    # when it is checked
    checked = dataframes.check_frame(table, schema)
    # then every finding is reported
    assert checked.report.messages() == [
        "1 of 240 rows dropped: size is above 40.0",
        "1 of 240 rows dropped: key of an earlier row",
        "1 values of gap clipped to its bounds",
        "1 values of mark are unseen categories, taken as missing",
        "column more is not in the schema and was dropped",
    ]
    assert checked.report.kept == len(checked.frame) == 238
    assert checked.frame.loc[1, "gap"] == -10
    assert not {0, 4} & set(checked.frame.index)


def test_table_without_valid_rows_is_refused():
    schema = schema_with({"x": {"kind": "numeric", "max": 0, "out_of_bounds": "drop"}})
    with pytest.raises(DataError, match="no row of the table is left after the check: 2 of 2 rows dropped: x is above"):
        dataframes.check_frame(pd.DataFrame({"x": [1, 2], "y": [1.0, 2.0]}), schema)


def test_error_hides_a_sensitive_key():
    schema = schema_with(NUMBER | {"id": {"kind": "text-id", "sensitive": True}}, key=["id"])
    with pytest.raises(DataError) as caught:
        dataframes.check_frame(pd.DataFrame({"x": [1, 2], "id": ["secret", "secret"], "y": [1.0, 2.0]}), schema)
    assert "id=the value" in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("classes", "raw", "expected"),
    [
        pytest.param([False, True], [True, False], [True, False], id="booleans"),
        pytest.param([False, True], [1, 0], None, id="numbers for booleans"),
        pytest.param([False, True], ["true", "false"], [True, False], id="booleans as texts"),
        pytest.param([0, 1], [1.0, 0.0], [1, 0], id="integers as floats"),
        pytest.param([0, 1], ["1", "0"], [1, 0], id="integers as texts"),
        pytest.param(["no", "yes"], ["yes", "no"], ["yes", "no"], id="texts"),
        pytest.param(["no", "yes"], [b"yes", "no"], ["yes", "no"], id="bytes"),
        pytest.param(["no", "yes"], [b"\xff", "no"], None, id="bytes that are not UTF-8"),
        pytest.param(["no", "yes"], ["maybe", "no"], None, id="an unknown label"),
    ],
)
def test_labels_are_decoded_to_those_of_the_schema(classes, raw, expected):
    target = schema_with(NUMBER, {"name": "y", "task": "binary", "classes": classes}).target
    table = pd.DataFrame({"y": pd.Series(raw, dtype=object)})
    if expected is None:
        with pytest.raises(DataError, match=r"y, row 0: .* is not one of its classes"):
            dataframes.decode_target(table, target)
        return
    decoded = dataframes.decode_target(table, target).tolist()
    assert decoded == expected
    assert [type(label) for label in decoded] == [type(label) for label in expected]


def test_decimals_are_numbers():
    table = pd.DataFrame({"x": [Decimal("1.5"), Decimal(2)], "y": [Decimal(1), Decimal("2.5")]})
    checked = dataframes.check_frame(table, schema_with(NUMBER)).frame
    assert checked.to_dict("list") == {"x": [1.5, 2.0], "y": [1.0, 2.5]}


def test_pandas_categoricals_and_time_zones_are_decoded():
    schema = schema_with({"g": {"kind": "category"}, "when": {"kind": "datetime"}})
    table = pd.DataFrame(
        {
            "g": pd.Categorical(["b", None, "a"]),
            "when": pd.date_range("2024-01-01", periods=3, freq="D", tz="Europe/Berlin"),
            "y": [1, 2, 3],
        }
    )
    nullable = schema.model_copy(
        update={"columns": schema.columns | {"g": schema.columns["g"].model_copy(update={"nullable": True})}}
    )
    checked = dataframes.check_frame(table, nullable).frame
    assert checked["g"].tolist() == ["b", None, "a"]
    assert checked["when"].iloc[0] == pd.Timestamp("2023-12-31T23:00")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"size": np.inf}, "size: finite", id="infinity"),
        pytest.param({"size": np.nan}, "size: not_nullable", id="missing"),
        pytest.param({"gap": 11.0}, r"gap: less_than_or_equal_to\(10", id="above the bound"),
        pytest.param({"flag": 2.0}, "flag: isin", id="not a boolean"),
        pytest.param({"code": "same"}, "field_uniqueness|multiple_fields_uniqueness|unique", id="a key twice"),
        pytest.param({"outcome": np.inf}, "outcome: finite", id="an infinite outcome"),
    ],
)
def test_derived_pandera_schema_finds_invalid_values(make_schema, make_table, change, reason):
    checked = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    with pytest.raises(DataError, match=reason):
        dataframes.check_pandera_schema(checked.assign(**change), make_schema("regression"))


def test_duplicate_column_is_refused(make_schema, make_table):
    table = make_table("regression")
    with pytest.raises(DataError, match="size: the table has this column twice"):
        dataframes.to_columns(pd.concat([table, table[["size"]]], axis=1), make_schema("regression"))


def test_outputs_keep_the_index_of_their_rows():
    outputs = Outputs.from_scores(np.array([[0.3, 0.7]]), ("no", "yes"))
    frame = dataframes.outputs_frame(outputs, pd.Index(["a"]))
    assert frame.to_dict("index") == {"a": {"prediction": "yes", "probability_no": 0.3, "probability_yes": 0.7}}


# The checks agree: pandera and the check of requests accept every valid table.

BOUND = st.none() | st.integers(-5, 5)


@st.composite
def column_and_values(draw, rows):
    kind = draw(st.sampled_from(["numeric", "category", "boolean", "datetime"]))
    column = {"kind": kind, "nullable": draw(st.booleans())}
    gaps = st.none() if column["nullable"] or draw(st.integers(0, 4)) == 0 else st.nothing()
    if kind == "numeric":
        low, high = draw(BOUND), draw(BOUND)
        if low is not None and high is not None and low > high:
            low, high = high, low
        column |= {"min": low, "max": high, "out_of_bounds": draw(st.sampled_from(["refuse", "clip", "drop"]))}
        values = st.integers(-7, 7) | st.floats(-8, 8) | st.sampled_from([np.nan, 1e39, 3.4e38])
    elif kind == "category":
        known = draw(st.none() | st.lists(st.sampled_from("abc"), unique=True))
        column |= {"unseen": draw(st.sampled_from(["refuse", "other"]))} | (
            {"values": known} if known is not None else {}
        )
        values = st.sampled_from(["a", "b", "c", "d", 1])
    elif kind == "boolean":
        values = st.booleans() | st.sampled_from([0, 1])
    else:
        values = st.sampled_from(["2024-01-01", "2024-02-03T04:05:06+02:00", pd.Timestamp("2024-05-06")])
    return column, draw(st.lists(values | gaps, min_size=rows, max_size=rows))


@st.composite
def schema_and_table(draw):
    rows = draw(st.integers(2, 6))
    drawn = [draw(column_and_values(rows)) for _ in range(draw(st.integers(1, 3)))]
    classes = draw(st.sampled_from([None, [False, True], [0, 1], ["no", "yes"]]))
    target = {"name": "y", "task": "binary", "classes": classes} if classes else {"name": "y", "task": "regression"}
    outcomes = draw(st.lists(st.sampled_from(classes or [0.5, 1, 2]), min_size=rows, max_size=rows))
    key = draw(st.sampled_from([[], ["c0"]]))
    schema = schema_with(
        {f"c{place}": column for place, (column, _) in enumerate(drawn)},
        target,
        key=key,
        duplicates=draw(st.sampled_from(["refuse", "drop"])),
    )
    table = pd.DataFrame({f"c{place}": pd.Series(values, dtype=object) for place, (_, values) in enumerate(drawn)})
    return schema, table.assign(y=pd.Series(outcomes, dtype=object))


@given(schema_and_table())
@settings(max_examples=40)
def test_valid_table_passes_pandera_and_request_checks(drawn):
    schema, table = drawn
    try:
        checked = dataframes.check_frame(table, schema).frame
    except DataError:
        reject()  # other tests cover refused tables
    # then pandera accepts it
    dataframes.check_pandera_schema(checked, schema)
    # and so does the check of a request with all rows, and with each single row as JSON
    whole = dataframes.to_columns(checked, schema)
    assert {len(values) for values in whole.values()} == {len(checked)}
    for row in range(len(checked)):
        one = checked.iloc[[row]].drop(columns="y").astype(object)
        plain = {name: [None if pd.isna(value) else value for value in one[name]] for name in one}
        alone = schema.check_request(plain)
        for name, values in alone.items():
            np.testing.assert_array_equal(values, whole[name][[row]])
