"""Changes of the graphs of bundles, with manifests that vouch for them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from model_name.serving.bundle import GRAPH_FILE, MANIFEST_FILE


def shift_predictions(directory: Path, by: float) -> None:
    """Add a number to the scores of a bundle."""
    model = onnx.load(directory / GRAPH_FILE)
    graph, element_type = model.graph, model.graph.output[0].type.tensor_type.elem_type
    append_addition(graph, [], helper.make_tensor("shift", element_type, [1], [by]))
    (directory / GRAPH_FILE).write_bytes(model.SerializeToString())
    edit_manifest(directory, files={GRAPH_FILE: hash_file(directory / GRAPH_FILE)})


def refer_to_external_data(directory: Path, location: str, *, length: int = 16) -> None:
    """Add the sum of the bytes of an external file to the scores; the manifest vouches for the graph alone."""
    model = onnx.load(directory / GRAPH_FILE)
    tensor = TensorProto(name="external", data_type=TensorProto.UINT8, dims=[length])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Cast", ["external"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["shift"], keepdims=0),
    ]
    append_addition(model.graph, nodes, tensor)
    (directory / GRAPH_FILE).write_bytes(model.SerializeToString())
    edit_manifest(directory, files={GRAPH_FILE: hash_file(directory / GRAPH_FILE)})


def append_addition(graph: Any, nodes: list[Any], tensor: TensorProto) -> None:
    """Add the tensor `shift`, which the nodes may compute from another one, to the output of a graph."""
    output = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["unshifted" if name == output else name for name in node.output]
    graph.initializer.append(tensor)
    graph.node.extend([*nodes, helper.make_node("Add", ["unshifted", "shift"], [output])])


def edit_manifest(directory: Path, **changes: object) -> None:
    """Change keys of a manifest without validation."""
    path = directory / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def hash_file(path: Path) -> str:
    """Compute the SHA-256 hash of a file."""
    return sha256(path.read_bytes()).hexdigest()
