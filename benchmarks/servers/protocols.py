"""Request encoders and response decoders of each protocol."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.servers.served_model import ServedModel

Rows = Sequence[Mapping[str, Any]]
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
GRPC_PREFIX_BYTES = 5  # before a gRPC message: flag and length


def encode_v1(rows: Rows) -> str:
    """Encode rows for KServe's V1."""
    return json.dumps({"instances": list(rows)})


def encode_v2(rows: Rows, datatypes: Mapping[str, str]) -> str:
    """Encode rows for V2, one tensor per column."""
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": datatype, "data": [row[name] for row in rows]}
        for name, datatype in datatypes.items()
    ]
    return json.dumps({"inputs": inputs})


def encode_mlflow(rows: Rows) -> str:
    """Encode rows for MLflow's scoring server, in the format that it decodes fastest."""
    return json.dumps({"dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}})


def encode_grpc(rows: Rows, model: ServedModel) -> bytes:
    """Encode rows as a framed V2 gRPC message with typed contents: flag, length, ModelInferRequest."""
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as service_pb2

    request = service_pb2.ModelInferRequest(model_name=model.name)
    for name, datatype in model.datatypes.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
        values = [row[name] for row in rows]
        if datatype == "FP64":
            tensor.contents.fp64_contents.extend(values)
        elif datatype == "BOOL":
            tensor.contents.bool_contents.extend(values)
        else:
            tensor.contents.bytes_contents.extend(value.encode() for value in values)
    message: bytes = request.SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def decode_v1(response: bytes) -> list[float]:
    """Decode predictions of V1 and of MLflow's scoring server: numbers, or objects with one number."""
    predictions = json.loads(response)["predictions"]
    return [float(value["prediction"] if isinstance(value, dict) else value) for value in predictions]


def decode_v2(response: bytes) -> list[float]:
    """Decode predictions of V2."""
    outputs = json.loads(response)["outputs"]
    return [float(value) for output in outputs if output["name"] == "prediction" for value in output["data"]]


def decode_grpc(response: bytes) -> list[float]:
    """Decode predictions of a ModelInferResponse, typed or raw."""
    import numpy as np
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as service_pb2

    message = service_pb2.ModelInferResponse.FromString(response)
    if message.raw_output_contents:
        return [float(value) for value in np.frombuffer(message.raw_output_contents[0], np.float64)]
    return list(message.outputs[0].contents.fp64_contents)
