"""ONNX graph of the linear model, its encoder included."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from model_name.core.models.linear_encoder import CLIP_DEVIATIONS, LinearEncoder
from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, OPSET


def to_onnx(
    encoder: LinearEncoder,
    features: int,
    *,
    weights: NDArray[np.float64],
    table: NDArray[np.float64],
    intercept: NDArray[np.float64],
    has_classes: bool,
) -> onnx.ModelProto:
    """Build the graph of a linear model: a matrix product for the numbers, a table lookup for the categories.

    Args:
        encoder: Fitted encoder.
        features: Number of features, the width of the input.
        weights: Weights of the encoded numbers; outputs x columns.
        table: Weights of the indicators; indicators x outputs.
        intercept: Intercept of each output.
        has_classes: Whether the scores are probabilities, by a softmax.
    """
    constants: dict[str, NDArray[Any]] = {"intercept": intercept.astype(np.float32)}
    nodes = []
    total = "intercept"
    if len(encoder.numbers):
        constants |= _number_constants(encoder, weights)
        nodes += _number_nodes(has_basis=bool(encoder.edges.size))
        total = "with_numbers"
    if len(encoder.codes):
        names = ("codes", "sizes", "offsets")
        constants |= {name: getattr(encoder, name) for name in names} | {"table": table.astype(np.float32)}
        constants["second_axis"] = np.array([1], dtype=np.int64)
        nodes += _code_nodes(total)
        total = "with_codes"
    activation = helper.make_node("Softmax", [total], [GRAPH_OUTPUT], axis=1)
    nodes.append(activation if has_classes else helper.make_node("Identity", [total], [GRAPH_OUTPUT]))
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(GRAPH_INPUT, float32, [None, features])],
        [helper.make_tensor_value_info(GRAPH_OUTPUT, float32, [None, len(intercept)])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def _number_constants(encoder: LinearEncoder, weights: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    names = ("numbers", "fills", "means", "inverse", "has_gaps", "edges", "steepness")
    width = encoder.edges.size
    return {name: getattr(encoder, name) for name in names} | {
        "low": np.array(-CLIP_DEVIATIONS, dtype=np.float32),
        "high": np.array(CLIP_DEVIATIONS, dtype=np.float32),
        "zero": np.array(0, dtype=np.float32),
        "one": np.array(1, dtype=np.float32),
        "third_axis": np.array([2], dtype=np.int64),
        "flat": np.array([-1, width], dtype=np.int64),
        "weights": weights.T.astype(np.float32),
    }


def _number_nodes(*, has_basis: bool) -> list[onnx.NodeProto]:
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Gather", ["features", "numbers"], "values", {"axis": 1}),
        ("IsNaN", ["values"], "gaps", {}),
        ("Where", ["gaps", "fills", "values"], "filled", {}),
        ("Sub", ["filled", "means"], "centred", {}),
        ("Mul", ["centred", "inverse"], "unclipped", {}),
        ("Clip", ["unclipped", "low", "high"], "scaled", {}),
        ("Cast", ["gaps"], "gap_flags", {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ["gap_flags", "has_gaps"], "visible_gaps", {}),
    ]
    if has_basis:
        steps += [
            ("Unsqueeze", ["filled", "third_axis"], "column", {}),
            ("Sub", ["column", "edges"], "distances", {}),
            ("Mul", ["distances", "steepness"], "slopes", {}),
            ("Clip", ["slopes", "zero", "one"], "basis", {}),
            ("Reshape", ["basis", "flat"], "flat_basis", {}),
        ]
    steps += [
        ("Concat", ["scaled", "visible_gaps", *(["flat_basis"] if has_basis else [])], "encoded", {"axis": 1}),
        ("MatMul", ["encoded", "weights"], "weighted", {}),
        ("Add", ["weighted", "intercept"], "with_numbers", {}),
    ]
    return [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in steps]


def _code_nodes(total: str) -> list[onnx.NodeProto]:
    steps = [
        ("Gather", ["features", "codes"], "raw_codes", {"axis": 1}),
        ("IsNaN", ["raw_codes"], "unknown", {}),
        ("Where", ["unknown", "sizes", "raw_codes"], "known_codes", {}),
        ("Add", ["known_codes", "offsets"], "float_indicators", {}),
        ("Cast", ["float_indicators"], "indicators", {"to": onnx.TensorProto.INT64}),
        ("Gather", ["table", "indicators"], "table_rows", {"axis": 0}),
        ("ReduceSum", ["table_rows", "second_axis"], "from_codes", {"keepdims": 0}),
        ("Add", ["from_codes", total], "with_codes", {}),
    ]
    return [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in steps]
