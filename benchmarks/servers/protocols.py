"""Requests of each protocol for rows, and the predictions in the replies."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.servers.subject import Subject

Rows = Sequence[Mapping[str, Any]]
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
PREFIX = 5  # bytes before a message of gRPC: a flag and the length


def v1(rows: Rows) -> str:
    """A body of KServe's V1."""
    return json.dumps({"instances": list(rows)})


def v2(rows: Rows, datatypes: Mapping[str, str]) -> str:
    """A body of V2, one tensor a column."""
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": datatype, "data": [row[name] for row in rows]}
        for name, datatype in datatypes.items()
    ]
    return json.dumps({"inputs": inputs})


def mlflow_split(rows: Rows) -> str:
    """A body of MLflow's scoring server, in the shape that it reads fastest."""
    return json.dumps({"dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}})


def grpc(rows: Rows, subject: Subject) -> bytes:
    """A message of V2 with typed contents, as it goes over the wire: flag, length, ModelInferRequest."""
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as service_pb2

    request = service_pb2.ModelInferRequest(model_name=subject.name)
    for name, datatype in subject.datatypes.items():
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


def read_v1(reply: bytes) -> list[float]:
    """The predictions of V1 and of MLflow's scoring server: numbers, or objects of one number."""
    found = json.loads(reply)["predictions"]
    return [float(one["prediction"] if isinstance(one, dict) else one) for one in found]


def read_v2(reply: bytes) -> list[float]:
    """The predictions of V2."""
    outputs = json.loads(reply)["outputs"]
    return [float(value) for output in outputs if output["name"] == "prediction" for value in output["data"]]


def read_grpc(reply: bytes) -> list[float]:
    """The predictions of a ModelInferResponse, typed or raw."""
    import numpy as np
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as service_pb2

    response = service_pb2.ModelInferResponse.FromString(reply)
    if response.raw_output_contents:
        return [float(value) for value in np.frombuffer(response.raw_output_contents[0], np.float64)]
    return list(response.outputs[0].contents.fp64_contents)
