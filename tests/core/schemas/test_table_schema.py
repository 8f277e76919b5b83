"""Definition of a table schema, and the columns that requests carry."""

import json

import pytest
import yaml
from pydantic import ValidationError

from model_name.core.schemas import TableSchema
from model_name.errors import DataError

NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"size": None}, "size: column is missing", id="a column is missing"),
        pytest.param({"size": None, "flag": None}, "size: column is missing (and flag)", id="two columns are missing"),
        pytest.param({"outcome": [1.0]}, "outcome: is the target; a request must not carry it", id="the target"),
        pytest.param({"other": [1.0]}, "other: is not a column of things", id="an extra column"),
        pytest.param({"size": [1.0, 2.0]}, "columns differ in length: ", id="columns of different lengths"),
    ],
)
def test_request_with_wrong_columns_is_refused(make_schema, make_table, change, reason):
    request = {
        name: [value] for name, value in make_table("regression", rows=1).drop(columns="outcome").iloc[0].items()
    }
    request = {name: values for name, values in (request | change).items() if values is not None}
    with pytest.raises(DataError) as caught:
        make_schema("regression").check_request(request)
    assert caught.value.message.startswith(reason)


def test_request_may_lack_ids_and_carry_dropped_columns(make_schema, make_table):
    row = make_table("regression", rows=1).drop(columns=["outcome", "code"]).iloc[0]
    request = {name: [value] for name, value in row.items()} | {"other": ["x"]}
    checked = make_schema("regression", extra="drop").check_request(request)
    assert list(checked) == ["size", "gap", "group", "mark", "flag", "maybe", "moment"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"kind": "number"}, "'numeric', 'category'", id="a kind that does not exist"),
        pytest.param(
            {"kind": "numeric", "nulable": True},
            "nulable is not a key of Column; did you mean nullable?",
            id="a typing error",
        ),
        pytest.param(
            {"kind": "category", "min": 1}, "min and max belong to numeric columns", id="bounds of a category"
        ),
        pytest.param({"kind": "numeric", "min": 2, "max": 1}, "min 2.0 is above max 1.0", id="bounds that cross"),
        pytest.param({"kind": "numeric", "min": NAN}, "finite number", id="a bound that is no number"),
        pytest.param(
            {"kind": "numeric", "values": ["a"]}, "values belong to category columns", id="categories of a number"
        ),
        pytest.param({"kind": "category", "values": ["a", "a"]}, "names a category twice", id="a category twice"),
        pytest.param({"kind": "category", "values": [1]}, "valid string", id="a category that is no text"),
        pytest.param({"kind": "text-id"}, "no column is a feature", id="only an id"),
        pytest.param({"kind": "numeric", "feature": False}, "no column is a feature", id="no feature"),
    ],
)
def test_error_explains_an_invalid_column(change, reason):
    target = {"name": "y", "task": "regression"}
    with pytest.raises(ValidationError, match=reason.replace("?", r"\?")):
        TableSchema.model_validate({"name": "t", "target": target, "columns": {"x": change}})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"time": "size"}, "time: size is not a datetime column", id="time is not a datetime"),
        pytest.param({"time": "when"}, "time: when is not a datetime column", id="unknown time"),
        pytest.param({"key": ["nope"]}, "key: nope is not a column", id="unknown key"),
        pytest.param(
            {"target": {"name": "size", "task": "regression"}}, "is also one of the columns", id="target twice"
        ),
        pytest.param(
            {"target": {"name": "y", "task": "regression", "classes": [1, 2]}},
            "belong to classifications",
            id="classes of a number",
        ),
        pytest.param({"target": {"name": "y", "task": "binary"}}, "needs its classes", id="no classes"),
        pytest.param(
            {"target": {"name": "y", "task": "binary", "classes": [1]}}, "has 2 classes, not 1", id="one class"
        ),
        pytest.param(
            {"target": {"name": "y", "task": "multiclass", "classes": [1, 2]}},
            "at least 3",
            id="two classes of a multiclass target",
        ),
        pytest.param(
            {"target": {"name": "y", "task": "binary", "classes": [1, "1"]}}, "a label twice", id="a label twice"
        ),
        pytest.param({"colums": {}}, "colums is not a key of TableSchema; did you mean columns", id="a typing error"),
    ],
)
def test_error_explains_an_invalid_schema(make_schema, change, reason):
    with pytest.raises(ValidationError, match=reason):
        make_schema("regression", **change)


def test_schema_round_trips_through_yaml_and_json(make_schema, task):
    schema = make_schema(task)
    as_yaml = yaml.safe_dump(schema.model_dump(mode="json", exclude_defaults=True))
    assert TableSchema.model_validate(yaml.safe_load(as_yaml)) == schema
    assert TableSchema.model_validate_json(schema.model_dump_json()) == schema
    assert TableSchema.model_validate(json.loads(schema.model_dump_json())).fingerprint == schema.fingerprint


def changed(schema: TableSchema, name: str, **changes) -> dict:
    raw = schema.model_dump(mode="json")
    raw["columns"][name] |= changes
    return raw


@pytest.mark.parametrize(
    ("change", "is_contract"),
    [
        pytest.param(lambda s: changed(s, "size", kind="boolean"), True, id="another kind"),
        pytest.param(lambda s: changed(s, "size", nullable=True), True, id="another nullability"),
        pytest.param(lambda s: changed(s, "size", feature=False), True, id="one input fewer"),
        pytest.param(
            lambda s: (
                s.model_dump(mode="json") | {"columns": dict(reversed(s.model_dump(mode="json")["columns"].items()))}
            ),
            True,
            id="another order",
        ),
        pytest.param(
            lambda s: s.model_dump(mode="json") | {"target": {"name": "other", "task": "regression"}},
            True,
            id="another target",
        ),
        pytest.param(lambda s: changed(s, "size", description="text"), False, id="description"),
        pytest.param(lambda s: changed(s, "size", sensitive=True), False, id="sensitivity"),
        pytest.param(lambda s: changed(s, "size", min=0.0), True, id="a bound"),
        pytest.param(
            lambda s: s.model_dump(mode="json") | {"name": "other", "duplicates": "drop"},
            False,
            id="name and duplicates",
        ),
    ],
)
def test_fingerprint_changes_only_with_the_contract(make_schema, change, is_contract):
    schema = make_schema("regression")
    assert (TableSchema.model_validate(change(schema)).fingerprint != schema.fingerprint) == is_contract
