"""Compression of bundles: pruning, quantization, size limits, and their cost."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
from pydantic import ValidationError

from model_name.core.models import BoostedTrees, LinearModel
from model_name.errors import ConfigError, NotFoundError
from model_name.serving.bundle import GRAPH_FILE, Bundle
from model_name.serving.dataplane import DataPlane
from model_name.settings import load_job
from model_name.training.compression import CompressionConfig, check_prunable, prune_model, quantize_weights
from tests.support import projects, tables

TREES = {"KIND": "BoostedTrees", "max_iter": 20}
FOREST = {"KIND": "RandomForest", "n_estimators": 8, "n_jobs": 1}
NETWORK = {"KIND": "TabularNetwork", "hidden": 64, "bins": 8, "max_epochs": 3}
LINE = {"KIND": "LinearModel"}
BLEND = {"KIND": "AutoModel", "members": [TREES, LINE, NETWORK], "weights": [0.4, 0.3, 0.3]}


def train(confs, step="training", **changes):
    if step == "training":
        projects.write_yaml(confs / "training.yaml", {"job": {"KIND": "TrainingJob"} | changes})
    with load_job([confs / f"{step}.yaml"]) as job:
        return job.run()


def predict_both(confs, bundle, rows):
    """Predict rows with the bundle and with the registered model."""
    with load_job([confs / "training.yaml"]) as job:
        version = job.registry.resolve("latest").version
        expected = mlflow.pyfunc.load_model(f"models:/orders/{version}").predict(rows)
    served = DataPlane(bundle).predict({name: rows[name].to_numpy() for name in rows})
    return served, expected


@pytest.fixture(scope="module")
def confs(tmp_path_factory):
    """Project shared by the tests, because an MLflow store takes seconds to create."""
    return projects.make_project(tmp_path_factory.mktemp("smaller"))


@pytest.fixture
def rows():
    return tables.order_table(seed=9).drop(columns="amount").head(50)


@pytest.mark.parametrize(
    ("model", "min_saving"),
    [
        pytest.param(TREES, 0.4, id="boosted trees"),
        pytest.param(FOREST, 0.4, id="forest"),
        pytest.param(NETWORK, 0.4, id="network"),
        pytest.param(BLEND, 0.3, id="blend"),
    ],
)
def test_pruned_bundle_is_smaller_matches_its_model_and_reports_the_cost(confs, rows, model, min_saving):
    # when half of a model is pruned
    confs = projects.make_project(confs)
    result = train(confs, model=model, export={"prune": 0.5})
    # then the graph is smaller, and the manifest reports size and cost
    bundle = Bundle.load(Path(result.bundle))
    (report,) = bundle.manifest.shrunk
    assert report.bytes_after == (bundle.directory / GRAPH_FILE).stat().st_size < (1 - min_saving) * report.bytes_before
    assert report.how == "50% of the trees or units left out"
    assert report.metrics_after == pytest.approx(result.metrics)
    assert report.metrics_before["rmse"] != report.metrics_after["rmse"]
    # and the registered model is the pruned one
    served, expected = predict_both(confs, bundle, rows)
    np.testing.assert_allclose(served.prediction, expected["prediction"], rtol=1e-4)


def test_cost_of_pruning_is_measured_with_each_models_own_decision(tmp_path):
    # given costs, which give pruned and full trees different thresholds
    confs = projects.make_project(tmp_path, "binary", metrics=[{"name": "f1"}])
    costs = {"false_positive": 1.0, "false_negative": 20.0}
    full = train(confs, model=TREES, costs=costs)
    pruned = train(confs, model=TREES, costs=costs, export={"prune": 0.9})
    # then the metrics before pruning are those of a training without it, and the thresholds differ
    manifests = [Bundle.load(Path(result.bundle)).manifest for result in (full, pruned)]
    assert manifests[1].shrunk[0].metrics_before == pytest.approx(full.metrics)
    assert manifests[0].decision.threshold != manifests[1].decision.threshold
    # and compression makes another recipe
    assert (full.semver, pruned.semver) == ("1.0.0", "1.1.0")


def test_kind_that_cannot_be_pruned_is_refused_before_the_table_is_read(tmp_path):
    confs = projects.make_project(tmp_path)
    (tmp_path / "orders.parquet").unlink()
    with pytest.raises(ConfigError, match=r"job\.export\.prune: LinearModel has no units"):
        train(confs, model=LINE, export={"prune": 0.5})


@pytest.mark.parametrize(
    ("model", "share"),
    [
        pytest.param(NETWORK, 0.85, id="network"),
        pytest.param(BLEND, 0.95, id="blend, mostly trees"),
    ],
)
def test_quantized_network_is_smaller_and_hardly_worse(confs, rows, model, share):
    confs = projects.make_project(confs)
    result = train(confs, model=model, export={"quantize": True})
    # then the graph is smaller, and the cost was measured
    bundle = Bundle.load(Path(result.bundle))
    (report,) = bundle.manifest.shrunk
    assert report.bytes_after == (bundle.directory / GRAPH_FILE).stat().st_size < share * report.bytes_before
    assert report.metrics_before == pytest.approx(result.metrics, rel=1e-4)
    assert report.metrics_after["rmse"] == pytest.approx(result.metrics["rmse"], rel=0.02)
    assert report.metrics_after != report.metrics_before
    # and the registered model keeps its full weights
    served, expected = predict_both(confs, bundle, rows)
    np.testing.assert_allclose(served.prediction, expected["prediction"], atol=0.1)
    assert not np.allclose(served.prediction, expected["prediction"], rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [pytest.param(TREES, id="boosted trees"), pytest.param(FOREST, id="forest"), pytest.param(LINE, id="linear model")],
)
def test_graph_is_not_quantized_if_that_saves_no_bytes(confs, rows, model):
    confs = projects.make_project(confs)
    result = train(confs, model=model, export={"quantize": True})
    bundle = Bundle.load(Path(result.bundle))
    (report,) = bundle.manifest.shrunk
    assert report.how == "weights in eight bits would save nothing, left as they were"
    assert (report.bytes_before, report.metrics_before) == (report.bytes_after, report.metrics_after)
    served, expected = predict_both(confs, bundle, rows)
    np.testing.assert_allclose(served.prediction, expected["prediction"], rtol=1e-4)


def test_quantization_does_not_change_the_log_of_the_process(fitted, caplog):
    assert quantize_weights(fitted("LinearModel", "regression").to_onnx()) is not None
    assert not caplog.records


def test_bundle_that_is_too_large_is_not_registered(tmp_path):
    confs = projects.make_project(tmp_path)
    with pytest.raises(ConfigError, match=r"bundle has [\d,]+ bytes, job.export.max_bytes allows 9,000"):
        train(confs, model=TREES, export={"max_bytes": 9000})
    with load_job([confs / "training.yaml"]) as job, pytest.raises(NotFoundError):
        job.registry.resolve("latest")
    assert not (tmp_path / "build/bundles").exists()


def test_pruned_bundle_can_be_small_enough(confs):
    result = train(confs, model=TREES, export={"prune": 0.9, "max_bytes": 9000})
    assert sum(file.stat().st_size for file in Path(result.bundle).iterdir()) <= 9000


def test_report_shows_the_cost_of_compression(confs):
    # given a network that was pruned and quantized
    result = train(confs, model=NETWORK, export={"prune": 0.25, "quantize": True})
    train(confs, "evaluations")
    # when its report is written
    page = Path(train(confs, "reports").report).read_text(encoding="utf-8")
    # then it shows both steps in order
    first, second = Bundle.load(Path(result.bundle)).manifest.shrunk
    assert first.bytes_after == second.bytes_before
    section = page[page.index('<h2 id="smaller">') : page.index('<h2 id="data">')]
    assert "25% of the trees or units left out" in section
    assert "Weights in eight bits" in section
    assert f"{second.metrics_after['rmse']:.4g}" in section


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"prune": 0}, id="nothing"),
        pytest.param({"prune": 1}, id="all"),
        pytest.param({"max_bytes": 0}, id="no bytes"),
        pytest.param({"prun": 0.5}, id="misspelt key"),
    ],
)
def test_invalid_compression_config_is_refused(wrong):
    with pytest.raises(ValidationError):
        CompressionConfig.model_validate(wrong)


def test_without_compression_the_model_is_returned_unchanged():
    model = BoostedTrees()
    assert prune_model(model, CompressionConfig()) is model
    assert CompressionConfig(max_bytes=1).recipe == ()


def test_kinds_are_checked_before_the_fit():
    check_prunable(BoostedTrees(), CompressionConfig(prune=0.5))
    check_prunable(LinearModel(), CompressionConfig())
    with pytest.raises(ConfigError, match="LinearModel"):
        check_prunable(LinearModel(), CompressionConfig(prune=0.5))
