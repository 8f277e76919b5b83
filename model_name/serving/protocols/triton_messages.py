"""Protobuf messages of Triton's extensions, which KServe's module lacks: configuration, statistics, repository index.

They are added to the file descriptor of KServe's messages, in a descriptor pool of their own: a process may import
Triton's client, which defines all of them again under the same names.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool

from model_name.serving.protocols.open_inference_messages import pb

SERVICE = "GRPCInferenceService"
METHODS = ("ModelConfig", "ModelStatistics", "RepositoryIndex")
DATA_TYPES = (
    *(
        "TYPE_INVALID",
        "TYPE_BOOL",
        "TYPE_UINT8",
        "TYPE_UINT16",
        "TYPE_UINT32",
        "TYPE_UINT64",
        "TYPE_INT8",
        "TYPE_INT16",
    ),
    *("TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16"),
)
"""Values of the enumeration `DataType` from 0."""

MESSAGES: Mapping[str, str] = {
    "ModelInput": "1 name string, 2 data_type DataType, 4 dims int64*",
    "ModelOutput": "1 name string, 2 data_type DataType, 3 dims int64*",
    "ModelConfig": "1 name string, 2 platform string, 4 max_batch_size int32, 5 input ModelInput*, "
    "6 output ModelOutput*, 17 backend string",
    "ModelConfigRequest": "1 name string, 2 version string",
    "ModelConfigResponse": "1 config ModelConfig",
    "StatisticDuration": "1 count uint64, 2 ns uint64",
    "InferStatistics": "1 success StatisticDuration, 2 fail StatisticDuration, 3 queue StatisticDuration, "
    "4 compute_input StatisticDuration, 5 compute_infer StatisticDuration, 6 compute_output StatisticDuration, "
    "7 cache_hit StatisticDuration, 8 cache_miss StatisticDuration",
    "InferBatchStatistics": "1 batch_size uint64, 2 compute_input StatisticDuration, "
    "3 compute_infer StatisticDuration, 4 compute_output StatisticDuration",
    "ModelStatistics": "1 name string, 2 version string, 3 last_inference uint64, 4 inference_count uint64, "
    "5 execution_count uint64, 6 inference_stats InferStatistics, 7 batch_stats InferBatchStatistics*",
    "ModelStatisticsRequest": "1 name string, 2 version string",
    "ModelStatisticsResponse": "1 model_stats ModelStatistics*",
    "RepositoryIndexRequest": "1 repository_name string, 2 ready bool",
    "ModelIndex": "1 name string, 2 version string, 3 state string, 4 reason string",
    "RepositoryIndexResponse": "1 models ModelIndex*",
}
"""Number, name and type of the fields of each message, as Triton defines them; an asterisk marks repeated fields."""
SCALAR_TYPES: Mapping[str, Any] = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}


@cache
def triton_message(name: str) -> Any:
    """Return the class of a message of Triton's extensions."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{pb.DESCRIPTOR.package}.{name}"))


@cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    pool.Add(file_descriptor())
    return pool


def file_descriptor() -> FileDescriptorProto:
    """Build the descriptor of KServe's messages, Triton's extensions, and the service with the methods of both."""
    file = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    values = [EnumValueDescriptorProto(name=name, number=number) for number, name in enumerate(DATA_TYPES)]
    file.enum_type.append(EnumDescriptorProto(name="DataType", value=values))
    for name, fields in MESSAGES.items():
        file.message_type.append(DescriptorProto(name=name, field=map(_field, fields.split(", "))))
    service = next(item for item in file.service if item.name == SERVICE)
    for method in METHODS:
        names = {"input_type": f".{file.package}.{method}Request", "output_type": f".{file.package}.{method}Response"}
        service.method.add(name=method, **names)
    return file


def _field(text: str) -> FieldDescriptorProto:
    """Parse the description of a field."""
    number, name, kind = text.split()
    item = FieldDescriptorProto(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.endswith("*"):
        item.label = FieldDescriptorProto.LABEL_REPEATED
    kind = kind.rstrip("*")
    if kind in SCALAR_TYPES:
        item.type = SCALAR_TYPES[kind]
    else:
        item.type_name = f".{pb.DESCRIPTOR.package}.{kind}"
        item.type = FieldDescriptorProto.TYPE_ENUM if kind == "DataType" else FieldDescriptorProto.TYPE_MESSAGE
    return item
