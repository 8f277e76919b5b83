"""Every call of Triton's gRPC client, in a process of its own: its messages have the same names as KServe's.

`python triton.py ADDRESS MODEL VERSION` reads the columns from stdin, `{NAME: [DATATYPE, [VALUE, ...]]}`, and writes
the result of each call to stdout, or the status and the message of its error.
"""

import json
import sys
from collections.abc import Callable, Mapping
from queue import Queue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype


def main(address: str, model: str, version: str) -> None:
    """Make all calls and print their results."""
    columns = json.load(sys.stdin)
    with triton.InferenceServerClient(address) as client:
        calls = {**server_calls(client, model, version), **inference_calls(client, model, version, columns)}
        calls["last statistics"] = calls["statistics"]
        sys.stdout.write(json.dumps({name: call_result(call) for name, call in calls.items()}))


def server_calls(client: Any, model: str, version: str) -> dict[str, Callable[[], Any]]:
    """List the calls that make no prediction."""
    return {
        "live": client.is_server_live,
        "ready": client.is_server_ready,
        "model ready": lambda: client.is_model_ready(model),
        "version ready": lambda: client.is_model_ready(model, version),
        "another version ready": lambda: client.is_model_ready(model, "6"),
        "another model ready": lambda: client.is_model_ready("nobody"),
        "server": lambda: client.get_server_metadata(as_json=True),
        "metadata": lambda: client.get_model_metadata(model, as_json=True),
        "metadata of the version": lambda: client.get_model_metadata(model, version, as_json=True),
        "metadata of another version": lambda: client.get_model_metadata(model, "6", as_json=True),
        "config": lambda: client.get_model_config(model, as_json=True),
        "config of another version": lambda: client.get_model_config(model, "6"),
        "statistics": lambda: client.get_inference_statistics(model, as_json=True),
        "statistics of another model": lambda: client.get_inference_statistics("nobody"),
        "index": lambda: client.get_model_repository_index(as_json=True),
        "load": lambda: client.load_model(model),
        "unload": lambda: client.unload_model(model),
    }


def inference_calls(client: Any, model: str, version: str, columns: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """List the calls that make predictions."""

    def infer(**more: Any) -> Any:
        return to_json(client.infer(**{"model_name": model, "inputs": to_inputs(columns)} | more))

    def infer_later() -> Any:
        results: Queue[tuple[Any, Any]] = Queue()
        client.async_infer(
            model, to_inputs(columns), lambda result, error: results.put((result, error)), request_id="a"
        )
        result, error = results.get(timeout=60)
        if error is not None:
            raise error
        return to_json(result)

    some = next(iter(columns))
    bad = {**columns, some: [columns[some][0], [1e9, *columns[some][1][1:]]]}
    return {
        "infer": lambda: infer(request_id="42"),
        "infer later": infer_later,
        "one output": lambda: infer(outputs=[triton.InferRequestedOutput("prediction")]),
        "no such output": lambda: infer(outputs=[triton.InferRequestedOutput("margin")]),
        "version": lambda: infer(model_version=version),
        "another version": lambda: infer(model_version="6"),
        "another model": lambda: infer(model_name="nobody"),
        "gzip": lambda: infer(compression_algorithm="gzip"),
        "deflate": lambda: infer(compression_algorithm="deflate"),
        "interval": lambda: infer(parameters={"interval": 0.9}),
        "interval as text": lambda: infer(parameters={"interval": "0.9"}),
        "no such interval": lambda: infer(parameters={"interval": 0.5}),
        "other parameters": lambda: infer(priority=1, timeout=5_000_000, parameters={"colour": "red", "weight": 0.5}),
        "out of bounds": lambda: infer(inputs=to_inputs(bad)),
    }


def to_inputs(columns: Mapping[str, Any]) -> list[Any]:
    """Convert the columns to tensors of the client."""
    inputs = []
    for name, (datatype, values) in columns.items():
        array = np.array(values, dtype=triton_to_np_dtype(datatype))
        inputs.append(triton.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array)
    return inputs


def to_json(result: Any) -> dict[str, Any]:
    """Convert a result to types of JSON."""
    message = result.get_response()
    arrays = {output.name: result.as_numpy(output.name) for output in message.outputs}
    outputs = {name: np.char.decode(a.astype(bytes)) if a.dtype == object else a for name, a in arrays.items()}
    return {
        "id": message.id,
        "model": message.model_name,
        "version": message.model_version,
        "outputs": {name: array.tolist() for name, array in outputs.items()},
    }


def call_result(call: Callable[[], Any]) -> Any:
    """Make a call; return its result, or its status and error message."""
    try:
        return call()
    except InferenceServerException as err:
        return {"status": str(err.status()), "error": err.message()}


if __name__ == "__main__":
    main(*sys.argv[1:])
