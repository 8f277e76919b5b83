"""The tabular network: quality, export, checkpoints and hyperparameters."""

import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from model_name.core.metrics import default_metrics
from model_name.core.models import ConstantModel, FitContext, TabularNetwork
from model_name.core.models.network.mlp import Dropout
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column
from model_name.errors import ConfigError, NotFittedError, PreemptedError

TASKS = {
    "regression": Target(name="y", task="regression"),
    "binary": Target(name="y", task="binary", classes=(False, True)),
    "multiclass": Target(name="y", task="multiclass", classes=("low", "middle", "high")),
}
EPOCHS = 6
SMALL = {"hidden": 16, "bins": 8, "embedding": 2, "batch_size": 64, "max_epochs": EPOCHS, "patience": EPOCHS}

CHILD = """
import pickle, sys, time
from pathlib import Path
from model_name.core.models import FitContext, TabularNetwork

schema, table, params, folder = pickle.loads(Path(sys.argv[1]).read_bytes())
slow = lambda done, total, message: time.sleep(0.1)  # leaves time for the kill
TabularNetwork(**params).fit(schema, table, FitContext(checkpoints=folder, progress=slow))
"""


def make_schema(task: str = "regression") -> TableSchema:
    columns = {
        "colour": Column(kind="category", nullable=True, values=("red", "green", "blue", "never")),
        "size": Column(kind="numeric", nullable=True),
        "noise": Column(kind="numeric", nullable=True),
        "at": Column(kind="datetime"),
    }
    return TableSchema(name="things", target=TASKS[task], columns=columns)


def make_table(task: str = "regression", rows: int = 600, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    colour = random.choice(np.array(["red", "green", "blue"], dtype=object), rows)
    size = random.normal(100, 20, rows)
    worth = np.abs(size - 100) / 10 + 3 * (colour == "red")
    at = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows) * 4, unit="h")
    table = pd.DataFrame({"colour": colour, "size": size, "noise": random.normal(size=rows), "at": at.as_unit("us")})
    table.loc[table.index % 10 == 3, ["size", "noise"]] = np.nan
    table.loc[table.index % 10 == 4, "colour"] = None
    table["y"] = {
        "regression": worth,
        "binary": (worth > 2).astype(object),
        "multiclass": np.array(["low", "middle", "high"], dtype=object)[np.digitize(worth, [1, 3])],
    }[task]
    return table


def weights_of(model: TabularNetwork) -> dict[str, torch.Tensor]:
    return model.get_internal_model().state_dict()


def are_equal(one: TabularNetwork, other: TabularNetwork) -> bool:
    weights, expected = weights_of(one), weights_of(other)
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in weights)


@pytest.fixture(scope="module", params=TASKS)
def fitted(request: pytest.FixtureRequest) -> tuple[TabularNetwork, pd.DataFrame]:
    table = make_table(request.param)
    model = TabularNetwork(hidden=32, bins=16, batch_size=32, max_epochs=10)
    return model.fit(make_schema(request.param), table), table


@pytest.fixture(scope="module")
def uninterrupted() -> TabularNetwork:
    return TabularNetwork(**SMALL).fit(make_schema(), make_table())


def test_models_are_imported_without_torch() -> None:
    # given a fresh interpreter
    code = "import sys, model_name.core.models; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    # when it imports the models, then torch is not imported
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_network_beats_a_constant(fitted) -> None:
    # given a fitted network and the constant
    model, table = fitted
    metric = default_metrics(model.schema_.target.task)[0]
    constant = ConstantModel().fit(model.schema_, table)
    # when both predict rows that were not trained on
    fresh = make_table(model.schema_.target.task, seed=1)
    score, baseline = (metric.score(fresh["y"], each.outputs(fresh)) for each in (model, constant))
    # then the network is much better
    assert metric.is_better(score, than=baseline)
    assert abs(score - baseline) > 0.3 * abs(baseline)


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_graph_matches_the_model(fitted, rows: int) -> None:
    # given rows with a gap in each column, one that is all gaps, every category, and extreme values
    model, _ = fitted
    matrix = model.matrix(make_table(model.schema_.target.task, rows=1000, seed=2))
    width = matrix.shape[1]
    matrix[:4, 0] = range(4)
    matrix[4 : 4 + width][np.eye(width, dtype=bool)] = np.nan
    matrix[4 + width] = np.nan
    matrix[5 + width, 1:] = 1e30
    matrix[6 + width, 1:] = -np.inf
    # when the graph is run in batches of a size
    session = onnxruntime.InferenceSession(model.to_onnx().SerializeToString())
    batches = [
        session.run(["scores"], {"features": matrix[at : at + rows]})[0] for at in range(0, min(1000, 40 * rows), rows)
    ]
    # then it computes the scores of the model
    served = np.concatenate(batches)
    scores = model.score_matrix(matrix[: len(served)]).reshape(len(served), -1)
    assert served.dtype == np.float32
    assert served.shape == (len(scores), len(model.classes) or 1)
    np.testing.assert_allclose(
        served, scores, rtol=1e-4 if not model.classes else 0, atol=1e-5 if not model.classes else 1e-4
    )


def test_probabilities_add_up(fitted) -> None:
    model, table = fitted
    scores = model.score_matrix(model.matrix(table))
    if not model.classes:
        assert scores.shape == (len(table),)
    else:
        assert scores.shape == (len(table), len(model.classes))
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=lambda pickler: pickler.__name__)
def test_fitted_network_survives_pickling(fitted, pickler) -> None:
    # given a fitted network, when it is pickled and unpickled
    model, table = fitted
    pickled = pickler.dumps(model)
    copy = pickle.loads(pickled)
    # then it predicts the same, and the pickle has nothing of Lightning
    pd.testing.assert_frame_equal(copy.predict(table), model.predict(table))
    assert b"lightning" not in pickled


def test_explanations_add_up(fitted) -> None:
    # given a fitted network, when rows are explained (which raises if they do not add up)
    model, table = fitted
    importances = model.explain(table[:5]).importances
    # then the relevant features are first, and the hidden one has no importance
    assert set(list(importances)[:2]) == {"size", "colour"}
    assert importances["at.month"] == pytest.approx(0, abs=1e-6)


def test_equal_seeds_and_rows_give_equal_weights(uninterrupted) -> None:
    # given a model of the same seed and one of another
    again, other = TabularNetwork(**SMALL), TabularNetwork(**SMALL, random_state=7)
    # when they are fitted, with other random numbers drawn before
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for model in (again, other):
        model.fit(make_schema(), make_table())
    # then the first is equal, the second is not, and the state of torch is restored
    assert are_equal(again, uninterrupted)
    assert not are_equal(other, uninterrupted)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


def test_feature_without_its_season_is_hidden() -> None:
    # given a network fitted on 100 days
    model = TabularNetwork(**SMALL).fit(make_schema(), make_table())
    matrix = model.matrix(make_table())
    month = model.features.names.index("at.month")
    assert not model.features.columns[month].is_seasonal
    # when the month changes
    later = matrix.copy()
    later[:, month] = 12
    # then its predictions do not
    np.testing.assert_array_equal(model.score_matrix(later), model.score_matrix(matrix))


def test_unseen_gaps_have_no_effect() -> None:
    # given a network trained on a column without gaps
    table = make_table().drop(columns=["colour", "at"]).fillna({"noise": 0.0, "size": 100.0})
    schema = TableSchema(
        name="things",
        target=TASKS["regression"],
        columns={n: Column(kind="numeric", nullable=True) for n in ("size", "noise")},
    )
    model = TabularNetwork(**SMALL).fit(schema, table)
    # when a gap is predicted, then it equals the mean
    gap = np.array([[100, np.nan]], dtype=np.float32)
    mean = np.array([[100, model.get_internal_model().encoder.mean[1]]], dtype=np.float32)
    np.testing.assert_array_equal(model.score_matrix(gap), model.score_matrix(mean))


@pytest.mark.parametrize(
    ("has_time_order", "expected"),
    [
        pytest.param(True, [8, 9], id="the last rows of an ordered table"),
        pytest.param(False, None, id="random rows otherwise"),
    ],
)
def test_validation_rows_are_not_trained_on(has_time_order: bool, expected: list[int] | None) -> None:
    training, validation = TabularNetwork(validation_size=0.2)._split(10, has_time_order=has_time_order)
    assert sorted([*training, *validation]) == list(range(10))
    assert len(validation) == 2
    assert list(validation) == expected or (expected is None and list(validation) != [8, 9])


def test_fit_ends_with_the_best_weights_and_reports_progress() -> None:
    # given so many epochs on so few rows that the network overfits
    messages: list[tuple[int, int, str]] = []
    table = make_table(rows=80)
    params = SMALL | {"learning_rate": 0.05, "dropout": 0.0, "batch_size": 8, "max_epochs": 20, "patience": 5}
    model = TabularNetwork(**params)
    # when it is fitted
    model.fit(make_schema(), table, FitContext(progress=lambda *report: messages.append(report), has_time_order=True))
    losses = [float(message.removeprefix("validation loss ")) for _, _, message in messages]
    # then it stopped early, and its loss on the validation rows is the smallest reported one
    assert [(done, total) for done, total, _ in messages] == [(epoch + 1, 20) for epoch in range(len(messages))]
    assert len(messages) == int(np.argmin(losses)) + 1 + params["patience"] < 20
    errors = (model.predict(table)["prediction"] - table["y"])[-8:] / weights_of(model)["target_deviation"].item()
    assert (errors**2).mean() == pytest.approx(min(losses), rel=1e-3)


def test_fit_is_silent_and_leaves_no_files_or_handlers(tmp_path, monkeypatch, capfd, recwarn) -> None:
    monkeypatch.chdir(tmp_path)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    model = TabularNetwork(**SMALL).fit(make_schema(), make_table())
    model.to_onnx()
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert list(tmp_path.iterdir()) == []
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_killed_and_resumed_fit_ends_with_the_same_weights(tmp_path, uninterrupted, logs) -> None:
    # given a process that is killed after the checkpoint of its second epoch
    task, folder = tmp_path / "task.pkl", tmp_path / "checkpoints"
    task.write_bytes(pickle.dumps((make_schema(), make_table(), SMALL, folder)))
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(task)])
    wait_for(folder, "*-000002.ckpt", child)
    child.kill()
    assert child.wait(timeout=30) == -signal.SIGKILL
    assert not list(folder.glob(f"*-{EPOCHS:06d}.ckpt"))
    # when the fit is run again
    messages: list[str] = []
    context = FitContext(checkpoints=folder, progress=lambda done, total, message: messages.append(message))
    resumed = TabularNetwork(**SMALL).fit(make_schema(), make_table(), context)
    # then it resumes and ends with the same weights, and old checkpoints are deleted
    assert "INFO resumed from" in logs[0]
    assert len(messages) <= EPOCHS - 2
    assert are_equal(resumed, uninterrupted)
    assert len(list(folder.glob("*.ckpt"))) == 2


def wait_for(folder: Path, pattern: str, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 180  # a busy machine takes half a minute to import Lightning
    while not list(folder.glob(pattern)):
        assert child.poll() is None, "the child ended before its second epoch"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("stopped_after", "hint"),
    [
        pytest.param(2, "after epoch 2", id="in the middle"),
        pytest.param(EPOCHS, f"after epoch {EPOCHS}", id="at the end"),
    ],
)
def test_preempted_fit_resumes(tmp_path, uninterrupted, stopped_after: int, hint: str) -> None:
    # given a SIGTERM after an epoch
    received: list[int] = []

    def stop(done: int, total: int, message: str) -> None:
        if done == stopped_after and message.startswith("validation"):
            signal.raise_signal(signal.SIGTERM)

    handler = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with pytest.raises(PreemptedError, match=hint) as caught:
            TabularNetwork(**SMALL).fit(make_schema(), make_table(), FitContext(checkpoints=tmp_path, progress=stop))
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert caught.value.exit_code == 143
    assert received == [signal.SIGTERM]
    # when the fit is run again, then it ends with the same weights
    again = TabularNetwork(**SMALL).fit(make_schema(), make_table(), FitContext(checkpoints=tmp_path))
    assert are_equal(again, uninterrupted)


def test_ctrl_c_raises_keyboard_interrupt() -> None:
    def stop(done: int, total: int, message: str) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        TabularNetwork(**SMALL).fit(make_schema(), make_table(), FitContext(progress=stop))
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    "corrupt",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"no checkpoint at all", id="no checkpoint"),
        pytest.param(lambda data: data[:2000] + bytes(200) + data[2200:], id="zeros in the middle"),
    ],
)
def test_unreadable_checkpoint_is_skipped(tmp_path, uninterrupted, corrupt, logs) -> None:
    # given a finished fit whose last checkpoint is corrupt
    context = FitContext(checkpoints=tmp_path)
    TabularNetwork(**SMALL).fit(make_schema(), make_table(), context)
    last = max(tmp_path.glob("*.ckpt"))
    last.write_bytes(corrupt(last.read_bytes()))
    # when it is fitted again
    again = TabularNetwork(**SMALL).fit(make_schema(), make_table(), context)
    # then it resumes from the one before
    warning, message = logs
    assert warning.startswith(f"WARNING {last.name} cannot be read")
    assert message.startswith("INFO resumed from")
    assert f"-{EPOCHS - 1:06d}.ckpt" in message
    assert are_equal(again, uninterrupted)


ENCODER_WEIGHTS = [
    *("numbers", "codes", "mean", "low", "high", "deviation", "inverse_deviation", "has_gaps", "missing", "offsets"),
]
LINEAR = ["weight", "bias"]
BATCH_ENSEMBLE = ["weight", "scale_in", "scale_out", "bias"]


@pytest.mark.parametrize(
    ("options", "embedding", "hidden"),
    [
        pytest.param({}, ["edges", "steepness"], LINEAR, id="piecewise"),
        pytest.param(
            {"numbers": "periodic", "members": 3}, ["frequencies", "weight", "bias"], BATCH_ENSEMBLE, id="members"
        ),
    ],
)
def test_names_in_checkpoints_are_stable(tmp_path, options: dict, embedding: list[str], hidden: list[str]) -> None:
    # given a checkpoint of a fit
    params = SMALL | {"max_epochs": 1} | options
    model = TabularNetwork(**params).fit(make_schema(), make_table(), FitContext(checkpoints=tmp_path))
    (path,) = tmp_path.glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    # then its names are those of earlier releases, whose checkpoints and versions a fit resumes from
    names = ["target_mean", "target_deviation"]
    names += [f"encoder.{name}" for name in ENCODER_WEIGHTS]
    names += [f"encoder.expand.{name}" for name in embedding] + ["encoder.embeddings.weight"]
    names += [f"body.{layer}.{name}" for layer in (0, 3) for name in hidden] + [f"body.6.{name}" for name in LINEAR]
    assert list(weights_of(model)) == names
    assert [*checkpoint["state_dict"]] == [f"network.{name}" for name in names]
    assert {*checkpoint["callbacks"]["Keeper"]} == {"epochs_done", "best_epoch", "best_loss", "best_weights"}


def test_finished_fit_is_not_trained_further(tmp_path, uninterrupted) -> None:
    # given the checkpoints of a finished fit
    messages: list[str] = []
    context = FitContext(checkpoints=tmp_path / "new", progress=lambda done, total, message: messages.append(message))
    TabularNetwork(**SMALL).fit(make_schema(), make_table(), context)
    messages.clear()
    # when it is fitted again, then it only loads them
    again = TabularNetwork(**SMALL).fit(make_schema(), make_table(), context)
    assert messages == []
    assert are_equal(again, uninterrupted)


@pytest.mark.parametrize(
    ("params", "seed"),
    [
        pytest.param(SMALL | {"dropout": 0.2}, 0, id="other hyperparameters"),
        pytest.param(SMALL | {"random_state": 1}, 0, id="another seed"),
        pytest.param(SMALL, 1, id="other rows"),
    ],
)
def test_checkpoint_of_another_fit_is_not_resumed(tmp_path, params: dict, seed: int) -> None:
    # given the checkpoints of one fit
    messages: list[int] = []
    context = FitContext(checkpoints=tmp_path, progress=lambda done, total, message: messages.append(done))
    TabularNetwork(**SMALL).fit(make_schema(), make_table(), context)
    messages.clear()
    # when another fit uses the same folder, then it starts from scratch
    TabularNetwork(**params).fit(make_schema(), make_table(seed=seed), context)
    assert messages == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(make_table(rows=2), id="two rows"),
        pytest.param(make_table(rows=20), id="twenty rows"),
        pytest.param(make_table().assign(size=np.nan), id="a column of gaps"),
        pytest.param(make_table().assign(size=0.1), id="a constant column"),
        pytest.param(make_table().assign(size=np.linspace(-1e38, 1e38, 600)), id="the largest numbers"),
        pytest.param(make_table().assign(size=np.linspace(0, 1e-42, 600)), id="the smallest numbers"),
        pytest.param(make_table().assign(colour="red"), id="one category"),
        pytest.param(make_table().assign(size=1.0, noise=np.nan, colour=None), id="no information"),
        pytest.param(make_table(rows=65 * 10 // 9), id="a last batch of one row"),
    ],
)
def test_degenerate_tables_are_fitted(table: pd.DataFrame) -> None:
    model = TabularNetwork(**SMALL | {"max_epochs": 2}).fit(make_schema(), table)
    assert np.isfinite(model.predict(make_table())["prediction"]).all()
    assert model.to_onnx().graph.input


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param({"colour": Column(kind="category", nullable=True)}, id="only categories"),
        pytest.param({"size": Column(kind="numeric", nullable=True)}, id="only numbers"),
    ],
)
def test_table_with_one_kind_of_features_is_fitted(kinds: dict[str, Column]) -> None:
    schema = TableSchema(name="things", target=TASKS["regression"], columns=kinds)
    table = make_table()[[*kinds, "y"]]
    model = TabularNetwork(**SMALL).fit(schema, table)
    session = onnxruntime.InferenceSession(model.to_onnx().SerializeToString())
    matrix = model.matrix(table)
    np.testing.assert_allclose(
        session.run(None, {"features": matrix})[0][:, 0], model.score_matrix(matrix), rtol=1e-4, atol=1e-5
    )


OPTIONS = [
    pytest.param({"numbers": "periodic"}, id="periodic"),
    pytest.param({"numbers": "periodic", "frequency_scale": 10.0}, id="high frequencies"),
    pytest.param({"members": 4}, id="members"),
    pytest.param({"members": 64, "layers": 1, "numbers": "periodic"}, id="many periodic members"),
    pytest.param({"layers": 0}, id="a linear model"),
    pytest.param({"layers": 0, "members": 3}, id="linear members"),
    pytest.param({"layers": 5}, id="deep"),
    pytest.param({"mixup": 0.4, "noise": 0.1, "members": 2}, id="augmented members"),
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("options", OPTIONS)
def test_graph_matches_the_model_for_every_option(options: dict, task: str) -> None:
    # given a network of another shape
    table = make_table(task)
    model = TabularNetwork(**SMALL | options | {"max_epochs": 2}).fit(make_schema(task), table)
    session = onnxruntime.InferenceSession(model.to_onnx().SerializeToString())
    # when both score rows with gaps, unseen categories and extreme values
    matrix = model.matrix(make_table(task, seed=2))
    matrix[0] = np.nan
    matrix[1, 1:] = 1e30
    matrix[2, :] = np.nan_to_num(matrix[2])
    scores = model.score_matrix(matrix).reshape(len(matrix), -1)
    # then they agree
    for rows in (1, len(matrix)):
        served = session.run(None, {"features": matrix[:rows]})[0]
        np.testing.assert_allclose(served, scores[:rows], rtol=0 if model.classes else 1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "has_another_end"),
    [
        pytest.param({"mixup": 0.4}, True, id="mixup"),
        pytest.param({"noise": 0.2}, True, id="noise"),
        pytest.param({"warmup": 0.5}, True, id="warm-up"),
        pytest.param({"members": 3}, True, id="members"),
        pytest.param({"mixup": 0.4, "noise": 0.2, "members": 2, "numbers": "periodic"}, True, id="all of them"),
        pytest.param({}, False, id="none"),
    ],
)
def test_every_option_resumes_to_the_same_weights(
    tmp_path, uninterrupted, options: dict, has_another_end: bool
) -> None:
    # given a fit with an option, and the same fit stopped after its third epoch
    def stop(done: int, total: int, message: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = TabularNetwork(**SMALL | options).fit(make_schema(), make_table())
    stopped = FitContext(checkpoints=tmp_path, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        TabularNetwork(**SMALL | options).fit(make_schema(), make_table(), stopped)
    # when it resumes, then its weights are the same, and not those of a fit without the option
    resumed = TabularNetwork(**SMALL | options).fit(make_schema(), make_table(), FitContext(checkpoints=tmp_path))
    assert are_equal(resumed, whole)
    assert are_equal(whole, uninterrupted) is not has_another_end


def test_noise_and_dropout_are_off_in_evaluation_mode() -> None:
    table = make_table()
    model = TabularNetwork(**SMALL | {"noise": 1.0, "dropout": 0.9}).fit(make_schema(), table)
    pd.testing.assert_frame_equal(model.predict(table), model.predict(table))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_dropout_drops_its_share_and_keeps_the_expected_sum(share: float) -> None:
    values = torch.ones(3, 100_001)
    left = Dropout(share).train()(values)
    assert (left == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert left.mean().item() == pytest.approx(1, abs=0.05)


def test_balanced_class_weights_detect_the_rare_class() -> None:
    # given a table whose positives are rare
    table = make_table("binary", rows=2000)
    rare = table[~table["y"].astype(bool) | (table.index % 12 == 0)]
    fresh = make_table("binary", rows=1000, seed=1)
    positives = fresh["y"].astype(bool)
    # when one network balances the classes and one does not
    predictions = {
        weight: TabularNetwork(**SMALL, class_weight=weight).fit(make_schema("binary"), rare).predict(fresh)
        for weight in ("none", "balanced")
    }
    # then the first detects more of them
    recalls = {weight: (frame["prediction"][positives] == True).mean() for weight, frame in predictions.items()}  # noqa: E712
    assert recalls["balanced"] > recalls["none"] + 0.1


def test_balanced_class_weights_are_refused_for_a_regression() -> None:
    with pytest.raises(ConfigError, match="y has no classes"):
        TabularNetwork(**SMALL, class_weight="balanced").fit(make_schema(), make_table())


def test_wide_tables_and_many_categories_are_fitted() -> None:
    # given 500 columns and 10 000 categories
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(300, 500)), columns=[f"n{number}" for number in range(500)])
    table["many"] = [f"c{code}" for code in random.integers(0, 10_000, 300)]
    table["y"] = table["n0"]
    columns = {name: Column(kind="numeric") for name in table.columns[:500]}
    columns["many"] = Column(kind="category", values=tuple(f"c{code}" for code in range(10_000)))
    schema = TableSchema(name="wide", target=TASKS["regression"], columns=columns)
    # when it is fitted, then its graph runs
    model = TabularNetwork(**SMALL | {"max_epochs": 2}).fit(schema, table)
    session = onnxruntime.InferenceSession(model.to_onnx().SerializeToString())
    matrix = model.matrix(table)
    served = session.run(None, {"features": matrix})[0][:, 0]
    np.testing.assert_allclose(served, model.score_matrix(matrix), rtol=1e-4, atol=1e-4)


def test_loss_that_is_never_finite_is_an_error() -> None:
    with pytest.raises(ConfigError, match="not finite"):
        TabularNetwork(**SMALL).fit(make_schema(), make_table().assign(y=np.linspace(0, 1e100, 600)))


@pytest.mark.parametrize(
    "params",
    [
        {"hidden": 0},
        {"dropout": 1.0},
        {"learning_rate": 0.0},
        {"validation_size": 1.0},
        {"max_epochs": 0},
        {"members": 65},
        {"numbers": "wavelets"},
        {"warmup": 1.0},
        {"mixup": -0.1},
        {"class_weight": "auto"},
        {"width": 3},
    ],
    ids=str,
)
def test_hyperparameters_have_bounds(params: dict) -> None:
    with pytest.raises(ValidationError):
        TabularNetwork(**params)


def test_unfitted_network_raises_not_fitted_error() -> None:
    with pytest.raises(NotFittedError, match="TabularNetwork is not fitted"):
        TabularNetwork().get_internal_model()
