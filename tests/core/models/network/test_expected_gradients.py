"""Expected gradients: agreement with SHAP's DeepExplainer, and cases without sampling error."""

import time

import numpy as np
import pandas as pd
import pytest
import shap
import torch
from torch import nn

from model_name.core.models import TabularNetwork
from model_name.core.models.explanation import ADDITIVITY_TOLERANCE
from model_name.core.models.network.expected_gradients import expected_gradients, rescale_to_total
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column

TASKS = {
    "regression": Target(name="y", task="regression"),
    "binary": Target(name="y", task="binary", classes=(False, True)),
    "multiclass": Target(name="y", task="multiclass", classes=("low", "middle", "high")),
}
COLUMNS = {
    "colour": Column(kind="category", nullable=True, values=("red", "green", "blue")),
    "size": Column(kind="numeric", nullable=True),
    "weight": Column(kind="numeric"),
    "nothing": Column(kind="numeric"),
}


class Positive(nn.Module):
    """Probability of the positive class, by a layer that DeepLIFT supports."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.difference = nn.Linear(2, 1, bias=False)
        self.difference.weight.data = torch.tensor([[-1.0, 1.0]])
        self.sigmoid = nn.Sigmoid()

    def forward(self, encoded: torch.Tensor) -> torch.Tensor:
        return self.sigmoid(self.difference(self.body(encoded)))


def make_table(task: str, rows: int = 3000, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "colour": random.choice(np.array(["red", "green", "blue", None], dtype=object), rows),
            "size": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows)),
            "weight": random.normal(size=rows),
            "nothing": 1.0,
        }
    )
    worth = (
        3 * table["size"].fillna(2.0).abs()
        + 2 * (table["colour"] == "red")
        + 2 * table["weight"]
        + random.normal(size=rows)
    )
    table["y"] = {
        "regression": worth,
        "binary": (worth > worth.median()).astype(object),
        "multiclass": np.array(["low", "middle", "high"], dtype=object)[np.digitize(worth, worth.quantile([0.3, 0.6]))],
    }[task]
    return table


@pytest.fixture(scope="module", params=TASKS)
def fitted(request: pytest.FixtureRequest) -> TabularNetwork:
    schema = TableSchema(name="things", target=TASKS[request.param], columns=COLUMNS)
    return TabularNetwork(hidden=64, bins=16, max_epochs=8).fit(schema, make_table(request.param))


def tensors_of(model: TabularNetwork, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    matrix = model.matrix(make_table(model.schema_.target.task, rows=rows, seed=1))
    return torch.from_numpy(matrix), torch.from_numpy(model._background)


@pytest.mark.parametrize("fitted", ["regression", "binary"], indirect=True)
def test_contributions_agree_with_deep_explainer(fitted) -> None:
    # given SHAP's explainer on the body, over the encoded rows, with the same background
    rows, background = tensors_of(fitted, 300)
    network = fitted.get_internal_model()
    reference, unit = (Positive(network.body), 1.0) if network.classes else (network.body, network.target_deviation)
    explainer = shap.DeepExplainer(reference, network.encoder(background))
    expected = torch.tensor(explainer.shap_values(network.encoder(rows), check_additivity=False))[:, :, 0] * unit
    expected = torch.zeros(rows.shape).index_add_(1, network.encoder.source_features, expected.float()).numpy()
    # when the model explains the same rows
    values = fitted.explain_matrix(rows.numpy()).values
    # then both agree, over all features and for each relevant one
    assert np.corrcoef(values.ravel(), expected.ravel())[0, 1] > 0.99
    for feature in range(3):
        assert np.corrcoef(values[:, feature], expected[:, feature])[0, 1] > 0.98


def test_contributions_add_up_for_every_task(fitted) -> None:
    # when rows are explained
    table = make_table(fitted.schema_.target.task, rows=200, seed=2)
    explanation = fitted.explain(table)
    # then the contributions add up to the predictions
    outputs = fitted.outputs(table)
    classes = len(fitted.classes)
    assert explanation.values.shape == ((200, 4, 3) if classes == 3 else (200, 4))
    assert explanation.scale == ("probability" if classes else "prediction")
    expected = {0: lambda: outputs.prediction, 2: lambda: outputs.probabilities[:, 1], 3: lambda: outputs.probabilities}
    np.testing.assert_allclose(explanation.scores, expected[classes](), atol=1e-5)
    assert explanation.additivity_error < ADDITIVITY_TOLERANCE
    # and a constant feature contributes nothing
    assert explanation.importances["nothing"] == pytest.approx(0, abs=1e-6)


def test_sampling_error_is_small(fitted) -> None:
    # given contributions before rescaling
    rows, background = tensors_of(fitted, 300)
    network = fitted.get_internal_model()
    outputs = list(range(network.classes or 1))
    contributions = expected_gradients(network, rows, background, outputs=outputs, seed=0)
    # then they miss the scores by a small part of the spread
    scores = network(rows)
    error = (scores - network(background).mean(dim=0) - contributions.sum(dim=1)).abs()
    assert error.mean() < 0.04 * (scores.max() - scores.min())


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"members": 4}, id="members"),
        pytest.param({"members": 3, "layers": 0}, id="linear members"),
        pytest.param({"layers": 0}, id="linear"),
        pytest.param({"numbers": "periodic", "layers": 1}, id="periodic"),
    ],
)
def test_contributions_match_gradients_through_the_whole_network(options) -> None:
    # given a network of another shape
    schema = TableSchema(name="things", target=TASKS["multiclass"], columns=COLUMNS)
    model = TabularNetwork(hidden=16, bins=4, max_epochs=2, **options).fit(schema, make_table("multiclass", 600))
    rows, background = tensors_of(model, 5)
    network = model.get_internal_model()
    # when it is explained against one row, so that the line is sampled in its middle
    contributions = expected_gradients(network, rows, background[:1], outputs=[2], seed=0)[:, :, 0]
    # then the result is gradient times difference, through all layers
    encoded, origin = network.encoder(rows), network.encoder(background[:1])
    middle = ((encoded + origin) / 2).requires_grad_()
    (gradient,) = torch.autograd.grad(network.to_scores(network.logits(middle))[:, 2].sum(), middle)
    by_input = gradient * (encoded - origin)
    expected = torch.zeros_like(contributions).index_add_(1, network.encoder.source_features, by_input)
    torch.testing.assert_close(contributions, expected)


def test_row_equal_to_the_background_has_no_contributions(fitted) -> None:
    rows = torch.from_numpy(fitted._background[:1])
    contributions = expected_gradients(fitted.get_internal_model(), rows, rows, outputs=[0], seed=0)
    torch.testing.assert_close(contributions, torch.zeros_like(contributions), atol=1e-5, rtol=0)
    assert not rescale_to_total(torch.zeros_like(contributions), torch.zeros(1, 1)).any()


def test_equal_seeds_give_equal_contributions(fitted) -> None:
    table = make_table(fitted.schema_.target.task, rows=20)
    np.testing.assert_array_equal(fitted.explain(table).values, fitted.explain(table).values)


def test_thousand_rows_are_explained_within_seconds(fitted) -> None:
    table = make_table(fitted.schema_.target.task, rows=1000)
    start = time.process_time()
    fitted.explain(table)
    assert time.process_time() - start < 10  # a tenth of that on an idle machine; SHAP's takes more
