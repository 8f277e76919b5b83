"""What every model must beat: a constant. The other reference, default boosted trees, is `BoostedTrees()`."""

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from pydantic import PrivateAttr

from model_name.core.features.transforms import Matrix
from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, OPSET, FitContext, Model


class ConstantModel(Model):
    """Answers the mean of the training targets, or the shares of the classes, whatever the row."""

    KIND: Literal["ConstantModel"] = "ConstantModel"
    _answer: NDArray[np.float64] | None = PrivateAttr(None)

    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """As of `Model`."""
        if self.classes:
            self._answer = np.bincount(targets, minlength=len(self.classes)) / len(targets)
        else:
            self._answer = np.array([targets.mean()])

    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        """As of `Model`."""
        scores = np.tile(self._fitted(self._answer), (len(matrix), 1))
        return scores if self.classes else scores[:, 0]

    def to_onnx(self) -> onnx.ModelProto:
        """As of `Model`: the answer, expanded to the rows of the request."""
        answer = self._fitted(self._answer).astype(np.float32)[None, :]
        nodes = [
            helper.make_node("Shape", [GRAPH_INPUT], ["rows"], start=0, end=1),
            helper.make_node("Concat", ["rows", "one"], ["shape"], axis=0),
            helper.make_node("Expand", ["answer", "shape"], [GRAPH_OUTPUT]),
        ]
        float32 = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "constant",
            [helper.make_tensor_value_info(GRAPH_INPUT, float32, [None, len(self.features.columns)])],
            [helper.make_tensor_value_info(GRAPH_OUTPUT, float32, [None, answer.shape[1]])],
            [numpy_helper.from_array(answer, "answer"), numpy_helper.from_array(np.array([1], dtype=np.int64), "one")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
