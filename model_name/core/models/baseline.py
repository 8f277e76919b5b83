"""Baseline that every model must beat: a constant. The other baseline, default boosted trees, is `BoostedTrees()`."""

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from pydantic import PrivateAttr
from typing_extensions import override

from model_name.core.features import Matrix
from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, OPSET, FitContext, Model


class ConstantModel(Model):
    """Predicts the mean of the training targets, or the frequencies of the classes, for every row."""

    KIND: Literal["ConstantModel"] = "ConstantModel"
    _constant: NDArray[np.float64] | None = PrivateAttr(None)

    @override
    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        if self.classes:
            self._constant = np.bincount(targets, minlength=len(self.classes)) / len(targets)
        else:
            self._constant = np.array([targets.mean()])

    @override
    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        scores = np.tile(self._fitted(self._constant), (len(matrix), 1))
        return scores if self.classes else scores[:, 0]

    @override
    def to_onnx(self) -> onnx.ModelProto:
        """Build a graph that expands the constant to the rows of the request."""
        constant = self._fitted(self._constant).astype(np.float32)[None, :]
        nodes = [
            helper.make_node("Shape", [GRAPH_INPUT], ["rows"], start=0, end=1),
            helper.make_node("Concat", ["rows", "one"], ["shape"], axis=0),
            helper.make_node("Expand", ["constant", "shape"], [GRAPH_OUTPUT]),
        ]
        float32 = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "constant",
            [helper.make_tensor_value_info(GRAPH_INPUT, float32, [None, len(self.features.columns)])],
            [helper.make_tensor_value_info(GRAPH_OUTPUT, float32, [None, constant.shape[1]])],
            [
                numpy_helper.from_array(constant, "constant"),
                numpy_helper.from_array(np.array([1], dtype=np.int64), "one"),
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
