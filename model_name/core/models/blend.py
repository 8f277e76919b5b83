"""A weighted blend of models: what a search over all kinds chooses, and one model to everybody else."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper
from pydantic import PrivateAttr, model_validator

from model_name.core.features.transforms import Matrix
from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, Explanation, FitContext, Model, to_probabilities
from model_name.core.models.model_kinds import build_model
from model_name.core.schemas.strict_models import Many
from model_name.errors import ConfigError

TOLERANCE = 1e-6  # of the weights' sum


class AutoModel(Model):
    """Answers the weighted mean of what its members answer. A search fills it in: `AutoSearcher`.

    Attributes:
        members: The config of each member.
        weights: The weight of each; together 1.
    """

    KIND: Literal["AutoModel"] = "AutoModel"
    members: Many[dict[str, Any]] = ()
    weights: Many[float] = ()

    _models: list[Model] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _is_a_blend(self) -> Self:
        for place, member in enumerate(self.members):
            if member.get("KIND") == "AutoModel":
                raise ValueError("a member of a blend cannot be a blend itself")
            try:
                build_model(member)
            except ValueError as err:
                raise ValueError(f"members.{place}: {err}") from err
        if len(self.weights) != len(self.members):
            raise ValueError(f"there are {len(self.members)} members and {len(self.weights)} weights")
        if self.members and (min(self.weights) <= 0 or abs(sum(self.weights) - 1) > TOLERANCE):
            raise ValueError(f"the weights {list(self.weights)} are not above 0 with a sum of 1")
        return self

    def described(self) -> dict[str, Any]:
        """As of `Model`: each member in a line, the heaviest first."""
        lines = {}
        heaviest = sorted(zip(self.weights, self.members, strict=True), key=lambda pair: -pair[0])
        for place, (weight, member) in enumerate(heaviest, start=1):
            params = ", ".join(f"{name} {_plain(value)}" for name, value in member.items() if name != "KIND")
            lines[f"member {place}"] = f"{100 * weight:.0f} % {member['KIND']}" + (f": {params}" if params else "")
        return lines | {"random_state": self.random_state}

    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """As of `Model`: each member on all rows.

        Raises:
            ConfigError: Nobody has chosen the members.
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
            model.join(self.schema_, self.features, background).fit_matrix(matrix, targets, context)
            models.append(model)
        self._models = models

    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        """As of `Model`."""
        scores = [model.score_matrix(matrix) for model in self.get_internal_model()]
        mean: NDArray[Any] = np.tensordot(self.weights, np.array(scores, dtype=np.float64), axes=1)
        return mean

    def explain_matrix(self, matrix: Matrix) -> Explanation:
        """As of `explainer`."""
        return self.explainer()(matrix)

    def explainer(self) -> Callable[[Matrix], Explanation]:
        """As of `Model`: the weighted sum of what explains the members; contributions are linear in the answer."""
        explainers = [model.explainer() for model in self.get_internal_model()]

        def explain(matrix: Matrix) -> Explanation:
            found = [to_probabilities(explain_one(matrix)) for explain_one in explainers]
            values, base, scores = (
                sum(weight * getattr(part, name) for weight, part in zip(self.weights, found, strict=True))
                for name in ("values", "base", "scores")
            )
            return self.explanation(values, base, scores, "probability")

        return explain

    def to_onnx(self) -> onnx.ModelProto:
        """As of `Model`: the members' graphs side by side in one."""
        return weighted_sum([model.to_onnx() for model in self.get_internal_model()], self.weights)

    def pruned(self, share: float) -> Self:
        """As of `Model`: each member that can be."""
        smaller = self.model_copy(deep=True)
        smaller._models = [_pruned(model, share) for model in smaller.get_internal_model()]  # noqa: SLF001  its own
        return smaller

    def get_internal_model(self) -> list[Model]:
        """The fitted members."""
        return self._fitted(self._models)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pruned(model: Model, share: float) -> Model:
    try:
        return model.pruned(share)
    except NotImplementedError:  # such as a line, which has nothing to leave out
        return model


def weighted_sum(graphs: Sequence[onnx.ModelProto], weights: Sequence[float]) -> onnx.ModelProto:
    """One graph that answers the weighted sum of what several answer for the same features."""
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
