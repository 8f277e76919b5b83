"""A linear model: ridge or logistic regression on standardised numbers and one indicator a category.

On small tables, and where effects add up, nothing beats it; and it is the part of a blend that extrapolates.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from pydantic import Field, PrivateAttr

from model_name.core.features.transforms import Feature, Matrix
from model_name.core.models.model import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    OPSET,
    Explanation,
    FitContext,
    Model,
    softmax,
)
from model_name.core.models.piecewise_linear import SMALLEST, pieces

CLIP_DEVIATIONS = 8.0  # beyond which a number is taken for a mistake rather than extrapolated
MAX_DENSE_CODES = 300  # categories in all, beyond which the indicators are kept as a sparse matrix
ITERATIONS = 500


@dataclass(frozen=True)
class Encoder:
    """From the feature matrix to what a linear model weighs: k numbers, and one place a category.

    Attributes:
        numbers: Positions of the features that are numbers.
        codes: Positions of those that are codes.
        fills: What a missing number becomes.
        means: Means of the numbers, `inverse` one over their deviations (zero where they do not vary).
        has_gaps: Whether a number is missing in some of the training rows.
        edges: Left edges of the pieces of each number, `steepness` one over their widths; k x pieces.
        offsets: The place of the first category of each feature; one place more a feature is for missing ones.
        places: How many places there are.
    """

    numbers: NDArray[np.int64]
    codes: NDArray[np.int64]
    fills: NDArray[np.float32]
    means: NDArray[np.float32]
    inverse: NDArray[np.float32]
    has_gaps: NDArray[np.float32]
    edges: NDArray[np.float32]
    steepness: NDArray[np.float32]
    offsets: NDArray[np.float32]
    sizes: NDArray[np.float32]

    @classmethod
    def fit(cls, features: tuple[Feature, ...], matrix: Matrix, pieces: int) -> "Encoder":
        """Learn scales and quantiles; what has not completed its season in these rows is hidden."""
        numbers = np.array([place for place, feature in enumerate(features) if feature.kind == "number"], dtype=int)
        codes = np.array([place for place, feature in enumerate(features) if feature.kind == "category"], dtype=int)
        sizes = np.array([len(features[place].values) for place in codes], dtype=np.float32)
        found = [_describe(matrix[:, place], pieces, is_seen=features[place].is_seasonal) for place in numbers]
        columns = {
            name: np.array([one[name] for one in found], dtype=np.float32)
            for name in ("fills", "means", "inverse", "has_gaps", "edges", "steepness")
        }
        shape = (len(numbers), pieces)
        columns |= {name: columns[name].reshape(shape) for name in ("edges", "steepness")}
        offsets = np.concatenate([[0], np.cumsum(sizes + 1)])[:-1].astype(np.float32)
        return cls(numbers=numbers, codes=codes, offsets=offsets, sizes=sizes, **columns)

    @property
    def places(self) -> int:
        """How many indicators there are."""
        return int((self.sizes + 1).sum())

    @property
    def owners(self) -> NDArray[np.int64]:
        """The feature that each column of `encode_numbers` belongs to."""
        pieces = np.repeat(self.numbers, self.edges.shape[1])
        return np.concatenate([self.numbers, self.numbers, pieces])

    def encode_numbers(self, matrix: Matrix) -> NDArray[np.float32]:
        """Standardised numbers, gaps and pieces; n x k (2 + pieces)."""
        values = matrix[:, self.numbers]
        gaps = np.isnan(values)
        values = np.where(gaps, self.fills, values)
        scaled = np.clip((values - self.means) * self.inverse, -CLIP_DEVIATIONS, CLIP_DEVIATIONS)
        parts = np.clip((values[:, :, None] - self.edges) * self.steepness, 0, 1)
        flat = parts.reshape(len(matrix), -1)
        encoded: NDArray[np.float32] = np.concatenate([scaled, gaps * self.has_gaps, flat], axis=1, dtype=np.float32)
        return encoded

    def encode_codes(self, matrix: Matrix) -> NDArray[np.int64]:
        """The place of each category; n x codes."""
        codes = matrix[:, self.codes]
        places: NDArray[np.int64] = (np.where(np.isnan(codes), self.sizes, codes) + self.offsets).astype(np.int64)
        return places


class LinearModel(Model):
    """Ridge regression, or logistic regression with the same penalty; missing numbers are told apart by an indicator.

    Attributes:
        alpha: Shrinkage of the weights of standardised features; the larger, the smoother.
        pieces: Linear pieces between quantiles that each number is also weighed by; 0 for straight lines.
        class_weight: `balanced` gives each class the same weight in all.
    """

    KIND: Literal["LinearModel"] = "LinearModel"
    alpha: float = Field(1.0, gt=0)
    pieces: int = Field(0, ge=0, le=64)
    class_weight: Literal["none", "balanced"] = "none"

    _encoder: Encoder | None = PrivateAttr(None)
    _weights: NDArray[np.float64] | None = PrivateAttr(None)  # outputs x columns of the numbers
    _table: NDArray[np.float64] | None = PrivateAttr(None)  # places x outputs
    _intercept: NDArray[np.float64] | None = PrivateAttr(None)

    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """As of `Model`."""
        encoder = Encoder.fit(self.features.columns, matrix, self.pieces)
        design = self._design(encoder, matrix)
        weights, intercept = self._solve(design, targets)
        if self.classes and len(weights) == 1:  # of the positive class alone
            weights, intercept = np.vstack([-weights / 2, weights / 2]), np.array([-intercept[0] / 2, intercept[0] / 2])
        width = len(encoder.owners)
        self._encoder, self._weights, self._intercept = encoder, weights[:, :width], intercept
        self._table = weights[:, width:].T

    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        """As of `Model`."""
        raw = self._raw(matrix)
        return softmax(raw) if self.classes else raw[:, 0]

    def explain_matrix(self, matrix: Matrix) -> Explanation:
        """Exact: the weight of a feature times its distance to the background (Lundberg and Lee 2017, linear SHAP)."""
        background = self._fitted(self._background)
        parts = self._parts(matrix) - self._parts(background).mean(axis=0)  # n x d x outputs
        base, raw = self._raw(background).mean(axis=0), self._raw(matrix)
        if len(self.classes) == 2:  # the log-odds of the positive class
            parts, base, raw = parts[:, :, 1] - parts[:, :, 0], base[1] - base[0], raw[:, 1] - raw[:, 0]
        elif not self.classes:
            parts, base, raw = parts[:, :, 0], base[0], raw[:, 0]
        return self.explanation(parts, base, raw, "log-odds")

    def get_internal_model(self) -> dict[str, Any]:
        """The weights of the encoded features, and those of the categories."""
        return {"weights": self._fitted(self._weights), "categories": self._table, "intercept": self._intercept}

    def to_onnx(self) -> onnx.ModelProto:
        """As of `Model`."""
        return to_onnx(
            self._fitted(self._encoder),
            len(self.features.columns),
            weights=self._fitted(self._weights),
            table=self._fitted(self._table),
            intercept=self._fitted(self._intercept),
            has_classes=bool(self.classes),
        )

    def _design(self, encoder: Encoder, matrix: Matrix) -> Any:
        """Numbers and indicators side by side; sparse where there are many categories."""
        from scipy import sparse

        numbers, places = encoder.encode_numbers(matrix), encoder.encode_codes(matrix)
        rows = np.repeat(np.arange(len(matrix)), places.shape[1])
        ones = np.ones(places.size, dtype=np.float32)
        flags = sparse.csr_matrix((ones, (rows, places.ravel())), shape=(len(matrix), encoder.places))
        if encoder.places > MAX_DENSE_CODES:
            return sparse.hstack([sparse.csr_matrix(numbers), flags], format="csr")
        return np.concatenate([numbers, flags.toarray()], axis=1)

    def _solve(self, design: Any, targets: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        from sklearn.linear_model import LogisticRegression, Ridge

        if not self.classes:
            ridge = Ridge(alpha=self.alpha, random_state=self.random_state).fit(design, targets)
            return np.atleast_2d(ridge.coef_).astype(np.float64), np.atleast_1d(ridge.intercept_).astype(np.float64)
        weight = None if self.class_weight == "none" else self.class_weight
        logistic = LogisticRegression(C=1 / self.alpha, class_weight=weight, max_iter=ITERATIONS)
        logistic.fit(design.astype(np.float64), targets)
        return logistic.coef_, logistic.intercept_

    def _raw(self, matrix: Matrix) -> NDArray[np.float64]:
        """Predictions, or log-odds up to a constant; n x outputs."""
        encoder = self._fitted(self._encoder)
        of_numbers = encoder.encode_numbers(matrix) @ self._fitted(self._weights).T
        of_codes = self._fitted(self._table)[encoder.encode_codes(matrix)].sum(axis=1)
        raw: NDArray[np.float64] = of_numbers + of_codes + self._fitted(self._intercept)
        return raw

    def _parts(self, matrix: Matrix) -> NDArray[np.float64]:
        """What each feature adds to each output; n x d x outputs."""
        encoder, weights = self._fitted(self._encoder), self._fitted(self._weights)
        parts = np.zeros((len(matrix), len(self.features.columns), len(weights)))
        added = encoder.encode_numbers(matrix)[:, :, None] * weights.T
        for place, owner in enumerate(encoder.owners):
            parts[:, owner] += added[:, place]
        if len(encoder.codes):
            parts[:, encoder.codes] = self._fitted(self._table)[encoder.encode_codes(matrix)]
        return parts


def to_onnx(
    encoder: Encoder,
    features: int,
    *,
    weights: NDArray[np.float64],
    table: NDArray[np.float64],
    intercept: NDArray[np.float64],
    has_classes: bool,
) -> onnx.ModelProto:
    """The graph of a linear model: a product for the numbers, a look-up for the categories."""
    constants: dict[str, NDArray[Any]] = {"intercept": intercept.astype(np.float32)}
    nodes = []
    total = "intercept"
    if len(encoder.numbers):
        constants |= _number_constants(encoder, weights)
        nodes += _number_nodes(has_pieces=bool(encoder.edges.size))
        total = "with_numbers"
    if len(encoder.codes):
        names = ("codes", "sizes", "offsets")
        constants |= {name: getattr(encoder, name) for name in names} | {"table": table.astype(np.float32)}
        constants["second_axis"] = np.array([1], dtype=np.int64)
        nodes += _code_nodes(total)
        total = "with_codes"
    ending = helper.make_node("Softmax", [total], [GRAPH_OUTPUT], axis=1)
    nodes.append(ending if has_classes else helper.make_node("Identity", [total], [GRAPH_OUTPUT]))
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(GRAPH_INPUT, float32, [None, features])],
        [helper.make_tensor_value_info(GRAPH_OUTPUT, float32, [None, len(intercept)])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def _number_constants(encoder: Encoder, weights: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
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


def _number_nodes(*, has_pieces: bool) -> list[onnx.NodeProto]:
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Gather", ["features", "numbers"], "values", {"axis": 1}),
        ("IsNaN", ["values"], "gaps", {}),
        ("Where", ["gaps", "fills", "values"], "filled", {}),
        ("Sub", ["filled", "means"], "centred", {}),
        ("Mul", ["centred", "inverse"], "unclipped", {}),
        ("Clip", ["unclipped", "low", "high"], "scaled", {}),
        ("Cast", ["gaps"], "gap_flags", {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ["gap_flags", "has_gaps"], "told_gaps", {}),
    ]
    if has_pieces:
        steps += [
            ("Unsqueeze", ["filled", "third_axis"], "column", {}),
            ("Sub", ["column", "edges"], "distances", {}),
            ("Mul", ["distances", "steepness"], "slopes", {}),
            ("Clip", ["slopes", "zero", "one"], "parts", {}),
            ("Reshape", ["parts", "flat"], "flat_parts", {}),
        ]
    steps += [
        ("Concat", ["scaled", "told_gaps", *(["flat_parts"] if has_pieces else [])], "encoded", {"axis": 1}),
        ("MatMul", ["encoded", "weights"], "weighed", {}),
        ("Add", ["weighed", "intercept"], "with_numbers", {}),
    ]
    return [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in steps]


def _code_nodes(total: str) -> list[onnx.NodeProto]:
    steps = [
        ("Gather", ["features", "codes"], "raw_codes", {"axis": 1}),
        ("IsNaN", ["raw_codes"], "unknown", {}),
        ("Where", ["unknown", "sizes", "raw_codes"], "known_codes", {}),
        ("Add", ["known_codes", "offsets"], "float_places", {}),
        ("Cast", ["float_places"], "places", {"to": onnx.TensorProto.INT64}),
        ("Gather", ["table", "places"], "looked_up", {"axis": 0}),
        ("ReduceSum", ["looked_up", "second_axis"], "of_codes", {"keepdims": 0}),
        ("Add", ["of_codes", total], "with_codes", {}),
    ]
    return [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in steps]


def _describe(column: NDArray[np.float32], count: int, *, is_seen: bool) -> dict[str, Any]:
    """What the encoder remembers of a number; all zero where it is hidden or never varies."""
    known = column[np.isfinite(column)].astype(np.float64)
    varies = is_seen and len(known) > 0 and np.ptp(known) > SMALLEST
    edges, steepness = pieces(known if varies else known[:0], count)
    return {
        "fills": np.median(known) if len(known) else 0.0,
        "means": known.mean() if len(known) else 0.0,
        "inverse": 1 / known.std() if varies else 0.0,
        "has_gaps": is_seen and 0 < len(known) < len(column),
        "edges": edges,
        "steepness": steepness,
    }
