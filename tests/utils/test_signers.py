import pytest
from mlflow.types import DataType
from mlflow.types.schema import AnyType

from model_name.core import dataframes
from model_name.utils.signers import InferSigner, SchemaSigner

OUTPUTS = {
    "regression": [("prediction", DataType.double)],
    "binary": [
        ("prediction", DataType.boolean),
        ("probability_false", DataType.double),
        ("probability_true", DataType.double),
    ],
    "multiclass": [
        ("prediction", DataType.string),
        ("probability_low", DataType.double),
        ("probability_mid", DataType.double),
        ("probability_high", DataType.double),
    ],
}


def columns(schema):
    return [(column.name, column.type) for column in schema.inputs]


@pytest.fixture
def example(fitted, make_schema, make_table, task):
    """The schema, a checked table and what a model answers for it."""
    checked = dataframes.check_frame(make_table(task), make_schema(task)).frame
    return make_schema(task), checked, fitted("ConstantModel", task).predict(checked)


def test_the_schema_says_what_a_model_takes_and_an_example_what_it_answers(example, task):
    schema, checked, answer = example
    signature = SchemaSigner().sign(schema, checked, answer)
    assert columns(signature.inputs) == [
        ("size", DataType.double),
        ("gap", DataType.double),
        ("group", DataType.string),
        ("mark", DataType.string),
        ("flag", DataType.boolean),
        ("maybe", AnyType()),  # MLflow knows no missing boolean
        ("moment", DataType.datetime),
    ]
    assert columns(signature.outputs) == OUTPUTS[task]


def test_both_sides_are_inferred_where_that_is_asked_for(example, task):
    schema, checked, answer = example
    signature = InferSigner().sign(schema, checked, answer)
    # neither the id nor the target is an input
    assert [name for name, _ in columns(signature.inputs)] == list(schema.inputs)
    assert dict(columns(signature.inputs))["moment"] == DataType.datetime
    assert {column.name for column in signature.inputs.inputs if not column.required} == {"gap", "mark", "maybe"}
    assert columns(signature.outputs) == OUTPUTS[task]


def test_the_signature_does_not_depend_on_the_example_rows(example, make_table, make_schema, fitted, task):
    schema, checked, answer = example
    few = checked.head(2).assign(gap=1.0, mark="p", maybe=1.0)
    assert SchemaSigner().sign(schema, few, answer.head(2)) == SchemaSigner().sign(schema, checked, answer)
