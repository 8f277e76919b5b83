"""The served graph is smaller than the network and computes the same."""

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from model_name.core.models import TabularNetwork
from model_name.core.models.network.onnx_export import drop_constant_inputs
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column

SCHEMA = TableSchema(
    name="things",
    target=Target(name="y", task="regression"),
    columns={
        "size": Column(kind="numeric", nullable=True),
        "flag": Column(kind="numeric", nullable=True),
        "colour": Column(kind="category", nullable=True),
    },
)


def make_table(rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(0)
    size, flag = random.normal(size=rows), random.integers(0, 2, rows).astype(float)
    colour = random.choice(np.array(["red", "green"], dtype=object), rows)
    return pd.DataFrame({"size": size, "flag": flag, "colour": colour, "y": np.abs(size) + flag})


TABLES = [
    pytest.param(make_table(), id="a flag"),
    pytest.param(make_table().assign(flag=1.0), id="a constant"),
    pytest.param(make_table().assign(flag=np.nan), id="a column of gaps"),
    pytest.param(make_table().assign(size=1.0, flag=[1.0, np.nan] * 200), id="a constant number, and one with gaps"),
    pytest.param(make_table().assign(size=np.nan, flag=np.nan), id="no number"),
    pytest.param(make_table().assign(size=1.0, flag=np.nan, colour=None), id="no informative column"),
]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("table", TABLES)
def test_graph_matches_the_network(table: pd.DataFrame, members: int) -> None:
    # given a network, and rows unlike the training rows
    model = TabularNetwork(hidden=16, bins=8, embedding=2, max_epochs=2, members=members).fit(SCHEMA, table)
    matrix = model.matrix(make_table())
    matrix[0] = np.nan
    matrix[1, : matrix.shape[1] - 1] = 1e30
    # when the graph is run
    session = onnxruntime.InferenceSession(model.to_onnx().SerializeToString())
    served = session.run(None, {"features": matrix})[0][:, 0]
    # then the scores agree
    np.testing.assert_allclose(served, model.score_matrix(matrix), rtol=1e-4, atol=1e-5)


def test_inputs_that_are_always_zero_are_not_exported() -> None:
    network = TabularNetwork(hidden=16, bins=32, max_epochs=2).fit(SCHEMA, make_table()).get_internal_model()
    reduced = drop_constant_inputs(network)
    # the flag uses one of its 32 bins, and no column has gaps
    assert network.encoder.width - reduced.body[0].weight.shape[1] == 31 + 2
    assert network.body[0].weight.shape[1] == network.encoder.width
