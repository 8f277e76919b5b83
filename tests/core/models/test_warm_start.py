"""Warm starts of networks: compatible models, and the state that is kept."""

import numpy as np
import pandas as pd
import pytest
import torch

from model_name.core.metrics import default_metrics
from model_name.core.models import BoostedTrees, FitContext, TabularNetwork
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column
from model_name.errors import ConfigError

SMALL = {"hidden": 16, "bins": 8, "embedding": 2, "batch_size": 64, "max_epochs": 6}


def make_schema(**columns: Column | None) -> TableSchema:
    default = {"colour": Column(kind="category"), "size": Column(kind="numeric"), "weight": Column(kind="numeric")}
    return TableSchema(
        name="things",
        target=Target(name="y", task="regression"),
        columns={name: column for name, column in (default | columns).items() if column},
    )


def make_table(rows: int = 600, seed: int = 0, size: float = 100.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "colour": random.choice(np.array(["red", "green", "blue"], dtype=object), rows),
            "size": random.normal(size, 20, rows),
            "weight": random.normal(size=rows),
        }
    )
    return table.assign(y=np.abs(table["size"] - 100) / 10 + 3 * (table["colour"] == "red"))


@pytest.fixture(scope="module")
def earlier() -> TabularNetwork:
    return TabularNetwork(**SMALL | {"max_epochs": 12}).fit(make_schema(), make_table(3000))


def test_warm_start_begins_with_the_earlier_loss(earlier) -> None:
    # given few rows of the same distribution, when one network is warm-started and one is not, for an epoch
    few, fresh = make_table(100, seed=1), make_table(1000, seed=2)
    warm, cold = (
        TabularNetwork(**SMALL | {"max_epochs": 1, "learning_rate": 1e-4}).fit(make_schema(), few, context)
        for context in (FitContext(warm_start=earlier), FitContext())
    )
    # then the first has the smaller loss
    metric = default_metrics("regression")[0]
    errors = {name: metric.score(fresh["y"], model.outputs(fresh)) for name, model in (("warm", warm), ("cold", cold))}
    assert errors["warm"] < 0.5 * errors["cold"]


def test_warm_start_keeps_the_encoder_and_the_scale_of_the_target(earlier) -> None:
    # given rows with another distribution, when a network is warm-started
    shifted = make_table(size=140.0)
    before = earlier.get_internal_model().state_dict()
    model = TabularNetwork(**SMALL | {"dropout": 0.3}).fit(make_schema(), shifted, FitContext(warm_start=earlier))
    network = model.get_internal_model()
    # then it encodes them as the earlier one does, with its own dropout
    for name in ("encoder.mean", "encoder.expand.edges", "target_mean", "target_deviation"):
        assert torch.equal(network.state_dict()[name], before[name])
    assert not torch.equal(network.body[0].weight, before["body.0.weight"])
    assert network.body[2].dropped == round(0.3 * 256)


@pytest.mark.parametrize(
    ("model", "schema", "table", "message"),
    [
        pytest.param(
            BoostedTrees(), {}, {}, "BoostedTrees cannot begin from an earlier", id="a kind fitted as a whole"
        ),
        pytest.param(TabularNetwork(**SMALL | {"hidden": 8}), {}, {}, "hidden is 8, but 16", id="another width"),
        pytest.param(
            TabularNetwork(**SMALL, numbers="periodic"),
            {},
            {},
            "numbers is periodic",
            id="another embedding of numbers",
        ),
        pytest.param(None, {"size": None}, {}, "the feature weight is size", id="a missing column"),
        pytest.param(
            None,
            {"weight": None},
            {},
            "only the version to begin from has the feature weight",
            id="the last column missing",
        ),
        pytest.param(
            None,
            {"more": Column(kind="numeric")},
            {"more": 1.0},
            "only this table has the feature more",
            id="an additional column",
        ),
        pytest.param(
            None,
            {"size": Column(kind="category")},
            {"size": "large"},
            "size is a category here, a number",
            id="another kind of column",
        ),
        pytest.param(None, {}, {"colour": "pink"}, "colour: its categories differ.*'blue'", id="other categories"),
    ],
)
def test_incompatible_warm_start_names_the_first_difference(earlier, model, schema, table, message) -> None:
    other_schema = make_schema(**schema)
    rows = make_table().assign(**table)[[*other_schema.columns, "y"]]
    with pytest.raises(ConfigError, match=message) as caught:
        (model or TabularNetwork(**SMALL)).fit(other_schema, rows, FitContext(warm_start=earlier))
    assert "leave warm_start out" in caught.value.hint


def test_warm_start_for_another_target_is_refused(earlier) -> None:
    schema = make_schema().model_copy(update={"target": Target(name="y", task="binary", classes=(False, True))})
    table = make_table()
    with pytest.raises(ConfigError, match="the task of the target: binary here, regression"):
        TabularNetwork(**SMALL).fit(schema, table.assign(y=table["y"] > 3), FitContext(warm_start=earlier))


def test_warm_start_from_another_kind_is_refused(earlier) -> None:
    trees = BoostedTrees().fit(make_schema(), make_table())
    with pytest.raises(ConfigError, match="a TabularNetwork cannot begin from a BoostedTrees"):
        TabularNetwork(**SMALL).fit(make_schema(), make_table(), FitContext(warm_start=trees))


def test_checkpoint_of_a_fit_from_other_weights_is_not_resumed(earlier, tmp_path) -> None:
    # given the checkpoints of a fit from scratch
    messages: list[str] = []
    TabularNetwork(**SMALL).fit(make_schema(), make_table(), FitContext(checkpoints=tmp_path))
    # when the same fit is warm-started
    context = FitContext(
        checkpoints=tmp_path, progress=lambda done, total, message: messages.append(message), warm_start=earlier
    )
    TabularNetwork(**SMALL).fit(make_schema(), make_table(), context)
    # then it does not resume from them
    assert len(messages) == SMALL["max_epochs"]
    assert not messages[0].startswith("resumed")
