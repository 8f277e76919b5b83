"""Pruned networks."""

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from torch import nn

from model_name.core.models import ConstantModel, TabularNetwork
from model_name.core.models.network.pruning import input_norms, output_norms
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column
from model_name.errors import ConfigError, NotFittedError

SCHEMA = TableSchema(
    name="things",
    target=Target(name="y", task="regression"),
    columns={"size": Column(kind="numeric", nullable=True), "colour": Column(kind="category")},
)


def make_table(rows: int = 1500, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    colour = random.choice(np.array(["red", "green"], dtype=object), rows)
    size = random.normal(size=rows)
    return pd.DataFrame({"size": size, "colour": colour, "y": np.abs(size) + (colour == "red")})


@pytest.fixture(scope="module", params=[1, 3], ids=["one member", "three members"])
def fitted(request: pytest.FixtureRequest) -> TabularNetwork:
    return TabularNetwork(hidden=32, bins=8, max_epochs=8, members=request.param).fit(SCHEMA, make_table())


@pytest.mark.parametrize(("share", "hidden"), [(0.5, 16), (0.25, 24), (0.999, 1), (0.001, 32)])
def test_pruned_graph_is_smaller_and_matches_the_model(fitted, share: float, hidden: int) -> None:
    # when a share of the units is pruned
    smaller = fitted.prune(share)
    # then its graph has fewer weights and matches the model
    graphs = [model.to_onnx().SerializeToString() for model in (fitted, smaller)]
    assert smaller.hidden == hidden
    assert (len(graphs[1]) < len(graphs[0])) is (hidden < 32)
    matrix = smaller.matrix(make_table(seed=1))
    matrix[0] = np.nan
    served = onnxruntime.InferenceSession(graphs[1]).run(None, {"features": matrix})[0][:, 0]
    np.testing.assert_allclose(served, smaller.score_matrix(matrix), rtol=1e-4, atol=1e-4)


def test_pruning_returns_a_fitted_copy_and_keeps_the_original(fitted) -> None:
    # given the predictions of a network
    table = make_table(seed=2)
    before = fitted.predict(table)
    # when a part of it is pruned
    smaller = fitted.prune(0.2)
    # then the copy is fitted, can be explained and predicts similarly; the original is unchanged
    pd.testing.assert_frame_equal(fitted.predict(table), before)
    assert fitted.hidden == 32
    assert smaller.schema_ == fitted.schema_
    assert smaller.explain(table[:20]).features == ["size", "colour"]
    assert smaller.predict(table)["prediction"].corr(table["y"]) > 0.5


def test_units_with_the_smallest_norms_are_pruned() -> None:
    # given a network with units without outgoing weights, and some without incoming ones
    model = TabularNetwork(hidden=8, bins=4, layers=1, max_epochs=2).fit(SCHEMA, make_table(300))
    first, last = model.get_internal_model().body[0], model.get_internal_model().body[-1]
    last.weight[:, [1, 4]] = 0.0
    first.weight[[2, 7]] = 0.0
    first.bias[[2, 7]] = 0.0
    # when as many are pruned, then the scores stay the same
    smaller = model.prune(0.5)
    np.testing.assert_allclose(
        smaller.predict(make_table())["prediction"], model.predict(make_table())["prediction"], atol=1e-5
    )
    assert torch.equal(smaller.get_internal_model().body[0].bias, first.bias[[0, 3, 5, 6]])


def test_unit_norms_are_summed_over_members() -> None:
    # given three members of a layer with shared weights
    model = TabularNetwork(hidden=4, bins=4, layers=2, members=3, max_epochs=1).fit(SCHEMA, make_table(300))
    first, second, _ = (layer for layer in model.get_internal_model().body if hasattr(layer, "weight"))
    # then the norm of a unit is the sum over the members
    incoming = [
        nn.functional.linear(scale_in.abs(), first.weight.abs()) * scale_out.abs() + bias.abs()
        for scale_in, scale_out, bias in zip(first.scale_in, first.scale_out, first.bias, strict=True)
    ]
    torch.testing.assert_close(input_norms(first), sum(incoming))
    outgoing = [
        (scale_out[:, None] * second.weight * scale_in).abs().sum(dim=0)
        for scale_in, scale_out in zip(second.scale_in, second.scale_out, strict=True)
    ]
    torch.testing.assert_close(output_norms(second), sum(outgoing))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_pruned_share_has_bounds(fitted, share: float) -> None:
    with pytest.raises(ConfigError, match="cannot be taken out"):
        fitted.prune(share)


def test_kinds_without_units_cannot_be_pruned() -> None:
    with pytest.raises(NotImplementedError, match="ConstantModel has no units"):
        ConstantModel().prune(0.5)
    with pytest.raises(NotFittedError):
        TabularNetwork().prune(0.5)
