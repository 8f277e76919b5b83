"""Weighted blend of several models, as a search over all kinds selects it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper
from pydantic import PrivateAttr, model_validator
from typing_extensions import override

from model_name.core.features import Matrix
from model_name.core.models.explanation import Explanation, to_probabilities
from model_name.core.models.factory import build_model
from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, FitContext, Model
from model_name.core.schemas.strict_models import LaxTuple
from model_name.errors import ConfigError

WEIGHT_SUM_TOLERANCE = 1e-6  # of the weights' sum


class AutoModel(Model):
    """Predicts the weighted mean of its members' predictions. A search selects the members: `AutoSearcher`.

    Attributes:
        members: Configuration of each member.
        weights: Weight of each member; their sum is 1.
    """

    KIND: Literal["AutoModel"] = "AutoModel"
    members: LaxTuple[dict[str, Any]] = ()
    weights: LaxTuple[float] = ()

    _models: list[Model] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        for index, member in enumerate(self.members):
            if member.get("KIND") == "AutoModel":
                raise ValueError("a member of a blend cannot be a blend itself")
            try:
                build_model(member)
            except ValueError as err:
                raise ValueError(f"members.{index}: {err}") from err
        if len(self.weights) != len(self.members):
            raise ValueError(f"there are {len(self.members)} members and {len(self.weights)} weights")
        if self.members and (min(self.weights) <= 0 or abs(sum(self.weights) - 1) > WEIGHT_SUM_TOLERANCE):
            raise ValueError(f"the weights {list(self.weights)} are not above 0 with a sum of 1")
        return self

    @override
    def describe_params(self) -> dict[str, Any]:
        """Describe each member in a line, in descending order of the weights."""
        lines = {}
        by_weight = sorted(zip(self.weights, self.members, strict=True), key=lambda pair: -pair[0])
        for rank, (weight, member) in enumerate(by_weight, start=1):
            params = ", ".join(f"{name} {_format_value(value)}" for name, value in member.items() if name != "KIND")
            lines[f"member {rank}"] = f"{100 * weight:.0f} % {member['KIND']}" + (f": {params}" if params else "")
        return lines | {"random_state": self.random_state}

    @override
    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """Fit each member on all rows.

        Raises:
            ConfigError: The blend has no members.
        """
        if not self.members:
            raise ConfigError(
                "an AutoModel has no members before a search has chosen them",
                hint="run a TrainingJob or a TuningJob, which search; or name job.model.members and weights",
            )
        background = self._fitted(self._background)
        models = []
        for config in self.members:
            model: Model = build_model({"random_state": self.random_state} | config)
            model.bind_features(self.schema_, self.features, background).fit_matrix(matrix, targets, context)
            models.append(model)
        self._models = models

    @override
    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        scores = [model.score_matrix(matrix) for model in self.get_internal_model()]
        mean: NDArray[Any] = np.tensordot(self.weights, np.array(scores, dtype=np.float64), axes=1)
        return mean

    @override
    def explain_matrix(self, matrix: Matrix) -> Explanation:
        return self.explainer()(matrix)

    @override
    def explainer(self) -> Callable[[Matrix], Explanation]:
        """Prepare the weighted sum of the members' explanations; contributions are linear in the prediction."""
        explainers = [model.explainer() for model in self.get_internal_model()]

        def explain(matrix: Matrix) -> Explanation:
            explanations = [to_probabilities(explain_member(matrix)) for explain_member in explainers]
            values, base, scores = (
                sum(weight * getattr(part, name) for weight, part in zip(self.weights, explanations, strict=True))
                for name in ("values", "base", "scores")
            )
            return self.explanation(values, base, scores, "probability")

        return explain

    @override
    def to_onnx(self) -> onnx.ModelProto:
        return weighted_sum_graph([model.to_onnx() for model in self.get_internal_model()], self.weights)

    @override
    def prune(self, share: float) -> Self:
        """Prune each member that supports it."""
        smaller = self.model_copy(deep=True)
        smaller._models = [_prune_if_supported(model, share) for model in smaller.get_internal_model()]  # noqa: SLF001  same class
        return smaller

    @override
    def get_internal_model(self) -> list[Model]:
        """Return the fitted members."""
        return self._fitted(self._models)


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _prune_if_supported(model: Model, share: float) -> Model:
    try:
        return model.prune(share)
    except NotImplementedError:  # such as a LinearModel
        return model


def weighted_sum_graph(graphs: Sequence[onnx.ModelProto], weights: Sequence[float]) -> onnx.ModelProto:
    """Merge several graphs into one that computes the weighted sum of their scores for the same features."""
    parts = [compose.add_prefix(graph, f"member{number}_") for number, graph in enumerate(graphs)]
    nodes, constants, summed = [], [], []
    for number, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        own = f"member{number}_"
        nodes.append(helper.make_node("Identity", [GRAPH_INPUT], [f"{own}{GRAPH_INPUT}"]))
        nodes += part.graph.node
        nodes.append(helper.make_node("Mul", [f"{own}{GRAPH_OUTPUT}", f"weight{number}"], [f"share{number}"]))
        constants += [
            *part.graph.initializer,
            numpy_helper.from_array(np.array([weight], dtype=np.float32), f"weight{number}"),
        ]
        summed.append(f"share{number}")
    nodes.append(helper.make_node("Sum", summed, [GRAPH_OUTPUT]))
    float32 = onnx.TensorProto.FLOAT
    width = graphs[0].graph.input[0].type.tensor_type.shape.dim[1].dim_value
    graph = helper.make_graph(
        nodes,
        "blend",
        [helper.make_tensor_value_info(GRAPH_INPUT, float32, [None, width])],
        [helper.make_tensor_value_info(GRAPH_OUTPUT, float32, [None, None])],
        constants,
    )
    versions: dict[str, int] = {}
    for part in graphs:
        for domain in part.opset_import:
            versions[domain.domain] = max(versions.get(domain.domain, 0), domain.version)
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=max(part.ir_version for part in graphs))
