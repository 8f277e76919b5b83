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
    """Return a schema, a validated table and the outputs of a model for it."""
    validated = dataframes.check_frame(make_table(task), make_schema(task)).frame
    return make_schema(task), validated, fitted("ConstantModel", task).predict(validated)


def test_schema_signer_takes_inputs_from_the_schema_and_outputs_from_an_example(example, task):
    schema, validated, outputs = example
    signature = SchemaSigner().sign(schema, validated, outputs)
    assert columns(signature.inputs) == [
        ("size", DataType.double),
        ("gap", DataType.double),
        ("group", DataType.string),
        ("mark", DataType.string),
        ("flag", DataType.boolean),
        ("maybe", AnyType()),  # MLflow has no nullable boolean
        ("moment", DataType.datetime),
    ]
    assert columns(signature.outputs) == OUTPUTS[task]


def test_infer_signer_infers_inputs_and_outputs(example, task):
    schema, validated, outputs = example
    signature = InferSigner().sign(schema, validated, outputs)
    # neither the id nor the target is an input
    assert [name for name, _ in columns(signature.inputs)] == list(schema.inputs)
    assert dict(columns(signature.inputs))["moment"] == DataType.datetime
    assert {column.name for column in signature.inputs.inputs if not column.required} == {"gap", "mark", "maybe"}
    assert columns(signature.outputs) == OUTPUTS[task]


def test_signature_does_not_depend_on_the_example_rows(example, make_table, make_schema, fitted, task):
    schema, validated, outputs = example
    few = validated.head(2).assign(gap=1.0, mark="p", maybe=1.0)
    assert SchemaSigner().sign(schema, few, outputs.head(2)) == SchemaSigner().sign(schema, validated, outputs)
