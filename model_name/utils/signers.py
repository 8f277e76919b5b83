"""The signature that MLflow keeps with a model."""

from abc import ABC, abstractmethod
from typing import Literal

import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType

from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.core.schemas.strict_models import FrozenModel

TYPES = {"numeric": DataType.double, "category": DataType.string, "datetime": DataType.datetime}


class Signer(FrozenModel, ABC):
    """Says what goes into a model and what comes out."""

    KIND: str

    @abstractmethod
    def sign(self, schema: TableSchema, inputs: pd.DataFrame, outputs: pd.DataFrame) -> ModelSignature:
        """The signature of a model with these inputs and outputs."""


class SchemaSigner(Signer):
    """Takes the inputs from the table schema, so that the signature says what the server checks."""

    KIND: Literal["SchemaSigner"] = "SchemaSigner"

    def sign(self, schema: TableSchema, inputs: pd.DataFrame, outputs: pd.DataFrame) -> ModelSignature:
        """As of `Signer`."""
        columns: list[ColSpec | TensorSpec] = [
            ColSpec(_type(column), name=name) for name, column in schema.inputs.items()
        ]
        return ModelSignature(inputs=Schema(columns), outputs=infer_signature(outputs).inputs)


class InferSigner(Signer):
    """Infers both sides from examples."""

    KIND: Literal["InferSigner"] = "InferSigner"

    def sign(self, schema: TableSchema, inputs: pd.DataFrame, outputs: pd.DataFrame) -> ModelSignature:
        """As of `Signer`."""
        return infer_signature(inputs[list(schema.inputs)], outputs)


SignerKind = SchemaSigner | InferSigner


def _type(column: Column) -> DataType | AnyType:
    # MLflow refuses a missing boolean; the model checks it again anyway.
    return TYPES.get(column.kind) or (AnyType() if column.nullable else DataType.boolean)
