"""The data plane behind KServe's protocols: V1, and V2 (the Open Inference Protocol) by REST and by gRPC."""

import asyncio
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import numpy as np
import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from numpy.typing import NDArray

from model_name.core.columns import Kind, label_text
from model_name.core.schemas import Outputs
from model_name.errors import DataError
from model_name.serving.dataplane import DataPlane
from model_name.serving.tensors import DATATYPES, label_datatype

INTERVAL = "interval"
"""The parameter of a request that asks for prediction intervals, by their level."""

FORWARD_THREADS = 4  # more would wait for the same cores

LABEL_DTYPES: dict[str, Any] = {"BOOL": np.bool_, "INT64": np.int64}

Tensors = dict[str, Sequence[Any] | NDArray[Any]]


class UnservedError(NotImplementedError):
    """Something of KServe's API that this server does not do: 501, or UNIMPLEMENTED."""

    def __init__(self, reason: str) -> None:
        """Keep the reason where KServe's gRPC server looks for it."""
        super().__init__(reason)
        self.reason = reason


class Predictor(Model):
    """Answers requests of KServe's protocols from a data plane. A bad one is refused by 400 or INVALID_ARGUMENT.

    **V1** takes `{"instances": [ROW, ...]}`; a row is an object, or an array in the order of the inputs. `null` is a
    missing value. It answers `{"predictions": [...]}`: one plain number or label an instance, as the V1 servers of
    scikit-learn and XGBoost do. A classification adds `"probabilities": [{LABEL: p, ...}, ...]` in parallel, for
    clients that know of it. With `"parameters": {"interval": 0.9}` each prediction of a regression is an object
    `{"prediction": x, "lower": l, "upper": u}` instead.

    **V2** takes one tensor a column, of shape [n] or [n, 1] and one of the `DATATYPES` of its kind; a datetime is text
    in ISO 8601. It answers `prediction` (FP64, or BOOL, INT64 or BYTES labels, of shape [n]) and, for classes,
    `probabilities` (FP64, [n, k]) whose parameter `classes` is the JSON array of the labels in the order of its
    columns. A missing value is `null` in JSON, and where tensors are binary what they have for it: NaN in FP64, FP32
    and FP16 (also for booleans, as 0, 1 and NaN), the empty text in BYTES, unless the empty text is one of the
    column's categories. BOOL and integers have nothing for it in gRPC: send another datatype. With the parameter
    `interval` (a number, or a text in gRPC, which has no fractions) a regression also answers `lower` and `upper`
    (FP64, [n]).
    """

    def __init__(self, name: str, dataplane: DataPlane) -> None:
        """Answer from a data plane, not ready before `load`."""
        super().__init__(name)
        self.dataplane = dataplane
        self._forward = ThreadPoolExecutor(FORWARD_THREADS, thread_name_prefix="forward")

    def load(self) -> bool:
        """Become ready by answering the bundle's example.

        Raises:
            DataError: The bundle refuses its own example.
        """
        self.dataplane.warm_up()
        self.ready = True
        return self.ready

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        """Answer a decoded request, off the event loop, so that health answers meanwhile.

        Raises:
            InvalidInput: Naming column, row and reason.
        """
        answer = self.answer_v2 if isinstance(payload, InferRequest) else self.answer_v1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._forward, answer, payload)
        except DataError as err:
            raise InvalidInput(err.message) from err

    async def explain(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        """Refuse: explanations come from a server of their own.

        Raises:
            UnservedError: Always.
        """
        raise UnservedError(f"{self.name} predicts; its explainer is another server")

    def answer_v1(self, payload: Any) -> dict[str, Any]:
        """The body that answers a body of V1.

        Raises:
            DataError: Naming column, row and reason.
        """
        body = read_body(payload)
        level = read_level(body.get("parameters"))
        return write_predictions(self.dataplane.predict_rows(read_instances(body), interval=level))

    def answer_v2(self, request: InferRequest) -> InferResponse:
        """The tensors that answer tensors.

        Raises:
            DataError: Naming column, row and reason.
        """
        version = self.dataplane.bundle.manifest.version
        if request.model_version not in (None, "", version):
            raise DataError(f"version {request.model_version} was asked for, {self.name} is at {version}")
        level = read_level(request.parameters)
        outputs = self.dataplane.predict(read_tensors(request.inputs, self.dataplane), interval=level)
        return InferResponse(
            response_id=request.id or str(uuid4()),
            model_name=self.name,
            model_version=version,
            infer_outputs=write_tensors(outputs, request),
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    def get_input_types(self) -> list[dict[str, Any]]:
        """The inputs for the metadata of V2."""
        inputs = self.dataplane.schema.inputs
        return [{"name": name, "datatype": DATATYPES[column.kind][0], "shape": [-1]} for name, column in inputs.items()]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs for the metadata of V2."""
        classes = self.dataplane.schema.classes
        prediction = {"name": "prediction", "datatype": label_datatype(classes), "shape": [-1]}
        probabilities = {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(classes)]}
        return [prediction, probabilities] if classes else [prediction]


def read_body(body: Any) -> Mapping[str, Any]:
    """A body of V1.

    Raises:
        DataError: It is not JSON, or no object with instances.
    """
    if isinstance(body, bytes):  # KServe does not decode a content type such as `application/json; charset=utf-8`
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError as err:
            raise DataError(f"the body is not JSON: {err}") from err
    if not isinstance(body, Mapping) or "instances" not in body:
        raise DataError('the body is not an object with "instances"')
    return body


def read_instances(body: Mapping[str, Any]) -> list[Any]:
    """The rows of a body of V1.

    Raises:
        DataError: There are none.
    """
    instances = body["instances"]
    if not isinstance(instances, list):
        raise DataError('"instances" is not a list of rows')
    return instances


def read_level(parameters: Any) -> float | None:
    """The level of the prediction intervals that the parameters of a request ask for, if they do.

    Args:
        parameters: An object of JSON, or gRPC's map, whose values say which of their fields is set.

    Raises:
        DataError: The parameters are no object, or the level is no number.
    """
    if parameters is None:
        return None
    if not isinstance(parameters, Mapping):
        raise DataError('"parameters" is not an object')
    if INTERVAL not in parameters:
        return None
    level = parameters[INTERVAL]
    if hasattr(level, "WhichOneof"):
        level = getattr(level, level.WhichOneof("parameter_choice") or "string_param")
    try:
        return None if level is None else float(level)
    except (TypeError, ValueError) as err:
        raise DataError(f"{INTERVAL}: {level!r} is not a number between 0 and 1") from err


def write_predictions(outputs: Outputs) -> dict[str, Any]:
    """The body of V1 that holds the outputs."""
    if outputs.lower is not None:
        columns = {name: values.tolist() for name, values in outputs.columns.items()}
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}
    body: dict[str, Any] = {"predictions": outputs.prediction.tolist()}
    if outputs.probabilities is not None:
        labels = [label_text(label) for label in outputs.classes]
        body["probabilities"] = [dict(zip(labels, row, strict=True)) for row in outputs.probabilities.tolist()]
    return body


def read_tensors(inputs: Sequence[InferInput], dataplane: DataPlane) -> Tensors:
    """The columns that tensors hold.

    Raises:
        DataError: A tensor comes twice, holds no row, or its shape, datatype or data do not fit its column.
    """
    tensors: Tensors = {}
    for tensor in inputs:
        name = str(tensor.name)
        if name in tensors:
            raise DataError(f"{name}: comes twice")
        column = dataplane.schema.inputs.get(name)
        # What is not an input is named nevertheless, for the schema to refuse or ignore.
        tensors[name] = [] if column is None else read_tensor(name, column.kind, tensor)
        if tensor.datatype == "BYTES" and "" not in categories(name, dataplane):
            tensors[name] = [None if value in ("", b"") else value for value in tensors[name]]
    return tensors


def read_tensor(name: str, kind: Kind, tensor: InferInput) -> Sequence[Any] | NDArray[Any]:
    """The n values of one tensor, in JSON, in gRPC's typed contents, or binary.

    Raises:
        DataError: It holds no row, or its shape, datatype or data do not fit.
    """
    if tensor.datatype not in DATATYPES[kind]:
        fitting = ", ".join(DATATYPES[kind])
        raise DataError(f"{name}: {tensor.datatype} is not a datatype of a {kind} column; these are: {fitting}")
    rows = row_count(name, tensor.shape)
    values = tensor.data if isinstance(tensor.data, list) and tensor.data else binary_values(name, tensor)
    if len(values) != rows:
        raise DataError(f"{name}: has {len(values)} values where its shape {tensor.shape} says {rows}")
    if len(tensor.shape) == 2:  # JSON may nest what it says is nested
        return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
    return values


def row_count(name: str, shape: Any) -> int:
    """The n of a shape [n] or [n, 1].

    Raises:
        DataError: It is another shape, or n is 0.
    """
    is_shape = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not is_shape or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise DataError(f"{name}: has shape {shape}, the shape of a column is [n] or [n, 1]")
    if shape[0] == 0:
        raise DataError(f"{name}: the request holds no row")
    return int(shape[0])


def binary_values(name: str, tensor: InferInput) -> NDArray[Any]:
    """The values of a tensor that came as raw bytes.

    Raises:
        DataError: They are not as many as its shape says.
    """
    try:
        return np.reshape(tensor.as_numpy(), -1)
    except (ValueError, TypeError, struct.error) as err:
        raise DataError(f"{name}: the data are not {tensor.datatype} of shape {tensor.shape}") from err


def categories(name: str, dataplane: DataPlane) -> tuple[str, ...]:
    """The categories of a column; none where it is of another kind."""
    return dataplane.features.categories(name)


def write_tensors(outputs: Outputs, request: InferRequest) -> list[InferOutput]:
    """The outputs that a request asks for, all where it names none.

    Raises:
        DataError: It asks for an output that there is not.
    """
    labels = orjson.dumps(outputs.classes).decode()
    tensors = {"prediction": tensor_of("prediction", label_datatype(outputs.classes), label_array(outputs), request)}
    if outputs.probabilities is not None:
        parameters = {"classes": labels}
        tensors["probabilities"] = tensor_of("probabilities", "FP64", outputs.probabilities, request, parameters)
    for name, ends in (("lower", outputs.lower), ("upper", outputs.upper)):
        if ends is not None:
            tensors[name] = tensor_of(name, "FP64", ends, request)
    wanted = [str(output.name) for output in request.request_outputs or ()] or list(tensors)
    for name in wanted:
        if name not in tensors:
            raise DataError(f"{name}: is not an output; these are: {', '.join(tensors)}")
    return [tensors[name] for name in wanted]


def tensor_of(
    name: str, datatype: str, values: NDArray[Any], request: InferRequest, parameters: dict[str, Any] | None = None
) -> InferOutput:
    """One tensor. A gRPC client that sent typed contents is answered by them, as the protocol has it."""
    tensor = InferOutput(name=name, shape=list(values.shape), datatype=datatype, parameters=parameters)
    if not request.from_grpc:
        tensor.data = values  # KServe encodes it as the request has it for this output
    elif request.use_binary_outputs:
        tensor.set_data_from_numpy(values)
    else:
        tensor.data = values.reshape(-1).tolist()
    return tensor


def label_array(outputs: Outputs) -> NDArray[Any]:
    """The predictions as an array of their datatype."""
    datatype = label_datatype(outputs.classes)
    if datatype == "BYTES":
        return np.array([label_text(label) for label in outputs.prediction], dtype=object)
    return outputs.prediction.astype(LABEL_DTYPES.get(datatype, np.float64))
