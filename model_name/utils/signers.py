"""Signers: strategies that make the signature that MLflow stores with a model."""

from abc import ABC, abstractmethod
from typing import Literal

import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType
from typing_extensions import override

from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.core.schemas.strict_models import FrozenModel

MLFLOW_TYPES = {"numeric": DataType.double, "category": DataType.string, "datetime": DataType.datetime}


class Signer(FrozenModel, ABC):
    """Makes the signature of a model from its inputs and outputs."""

    KIND: str

    @abstractmethod
    def sign(self, schema: TableSchema, inputs: pd.DataFrame, outputs: pd.DataFrame) -> ModelSignature:
        """Make the signature of a model.

        Args:
            schema: Table schema.
            inputs: Example inputs.
            outputs: Outputs of the model for them.
        """


class SchemaSigner(Signer):
    """Derives the inputs from the table schema, so that the signature matches the validation of the server."""

    KIND: Literal["SchemaSigner"] = "SchemaSigner"

    @override
    def sign(self, schema: TableSchema, inputs: pd.DataFrame, outputs: pd.DataFrame) -> ModelSignature:
        columns: list[ColSpec | TensorSpec] = [
            ColSpec(_type(column), name=name) for name, column in schema.inputs.items()
        ]
        return ModelSignature(inputs=Schema(columns), outputs=infer_signature(outputs).inputs)


class InferSigner(Signer):
    """Infers inputs and outputs from examples."""

    KIND: Literal["InferSigner"] = "InferSigner"

    @override
    def sign(self, schema: TableSchema, inputs: pd.DataFrame, outputs: pd.DataFrame) -> ModelSignature:
        return infer_signature(inputs[list(schema.inputs)], outputs)


SignerKind = SchemaSigner | InferSigner


def _type(column: Column) -> DataType | AnyType:
    # MLflow rejects a missing boolean; the model validates its inputs anyway.
    return MLFLOW_TYPES.get(column.kind) or (AnyType() if column.nullable else DataType.boolean)
