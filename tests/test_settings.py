import sys

import pytest
import yaml

from model_name.core.models import AutoModel, BoostedTrees
from model_name.errors import ConfigError
from model_name.io.osvariables import env
from model_name.settings import JOBS, build_job, import_plugins, job_class, json_schema, load_job, load_step_config

SCHEMA = {
    "name": "things",
    "target": {"name": "y", "task": "regression"},
    "columns": {"x": {"kind": "numeric"}},
}
SHARED = {"name": "things", "schema": "schema.yaml", "table": {"KIND": "ParquetReader", "path": "t.parquet"}}


@pytest.fixture
def confs(workplace):
    """Write a config folder: schema, project file and one training job."""
    write(schema=SCHEMA, project={"job": SHARED}, training={"job": {"KIND": "TrainingJob", "seed": 1}})
    return workplace


def write(**files):
    for name, document in files.items():
        with open(f"{name}.yaml", "w") as file:  # noqa: PTH123
            yaml.safe_dump(document, file)


def test_a_job_is_built_from_defaults_files_pairs_and_the_environment(confs):
    # given a folder, and a file that sets a seed
    # then unset keys have their defaults; files, pairs and the environment override them in this order
    job = load_job(["training.yaml"], environment={})
    assert type(job) is job_class("TrainingJob")
    assert (job.name, job.seed, job.audit, job.model) == ("things", 1, "audit", AutoModel())
    assert job.schema_.inputs.keys() == {"x"}
    assert load_job(["training.yaml"], ["job.seed=2"], {}).seed == 2
    assert load_job(["training.yaml"], ["job.seed=2"], {"MODEL_NAME__JOB__SEED": "3"}).seed == 3
    tuned = load_job(["training.yaml"], ["job.model={KIND: BoostedTrees, learning_rate: 1e-2}"], {})
    assert tuned.model == BoostedTrees(learning_rate=0.01)


def test_mlflow_uris_come_from_the_environment(confs, monkeypatch):
    for variable, value in (
        ("TRACKING_URI", "http://tracking"),
        ("REGISTRY_URI", "http://registry"),
        ("EXPERIMENT_NAME", "chosen"),
    ):
        monkeypatch.setenv(f"MLFLOW_{variable}", value)
    env.cache_clear()
    mlflow = load_job(["training.yaml"], ["job.mlflow={tracking_uri: sqlite:///x.db, artifacts: here}"], {}).mlflow
    assert (mlflow.tracking_uri, mlflow.registry_uri, mlflow.experiment) == (
        "http://tracking",
        "http://registry",
        "chosen",
    )
    assert mlflow.artifacts == "here"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(
            {"sed": 7}, "training.yaml: job: sed is not a key of TrainingJob; did you mean seed?", id="an unknown key"
        ),
        pytest.param(
            {"seed": "x"},
            "training.yaml: job.seed: Input should be a valid integer, not 'x'",
            id="a value of a wrong type",
        ),
        pytest.param(
            {"splitter": {"KIND": "TimeSplitter", "test_sise": 0.2}},
            "training.yaml: job.splitter: test_sise is not a key of TimeSplitter; did you mean test_size?",
            id="an unknown nested key",
        ),
        pytest.param(
            {"model": {"KIND": "BoostedTree"}},
            "training.yaml: job.model: BoostedTree is not a kind of model; did you mean BoostedTrees?",
            id="an unknown kind of model",
        ),
        pytest.param(
            {"model": {"KIND": "BoostedTrees", "max_iter": 0}},
            "training.yaml: job.model: max_iter: Input should be greater than 0",
            id="a hyperparameter out of bounds",
        ),
        pytest.param(
            {"table": {"KIND": "ParquetReader", "path": "t.parquet", "limit": -1}},
            "training.yaml: job.table.limit: Input should be greater than 0, not -1",
            id="a value out of bounds, below a KIND",
        ),
        pytest.param({"name": "two words"}, "training.yaml: job.name: String should match", id="an invalid name"),
        pytest.param(
            {"KIND": "TrainJob"}, "TrainJob is not a kind of job; did you mean TrainingJob?", id="an unknown job"
        ),
        pytest.param({"KIND": ["TrainingJob"]}, "['TrainingJob'] is not a kind of job", id="a list of jobs"),
        pytest.param({"KIND": None}, "None is not a kind of job", id="no kind"),
        pytest.param({"mlflow": "sqlite:///x.db"}, "training.yaml: job.mlflow: ", id="a text where a mapping belongs"),
        pytest.param({"plugins": ["no_such"]}, "job.plugins: no_such cannot be imported", id="a missing plugin"),
        pytest.param({"plugins": "no_such"}, "job.plugins: no_such cannot be imported", id="a plugin that is no list"),
    ],
)
def test_an_error_names_file_path_value_and_the_nearest_key(confs, change, reason):
    write(training={"job": {"KIND": "TrainingJob"} | change})
    with pytest.raises(ConfigError) as caught:
        load_job(["training.yaml"], environment={})
    assert reason in caught.value.message
    assert caught.value.exit_code == 2


def test_an_error_in_the_shared_file_names_that_file(confs):
    write(project={"job": SHARED | {"seed": "x"}}, training={"job": {"KIND": "TrainingJob"}})
    with pytest.raises(ConfigError, match=r"^project.yaml: job.seed: "):
        load_job(["training.yaml"], environment={})


def test_an_error_lists_every_wrong_value(confs):
    write(training={"job": {"KIND": "TrainingJob", "seed": "x", "build": 1, "metrics": [{"name": "nope"}]}})
    with pytest.raises(ConfigError) as caught:
        load_job(["training.yaml"], environment={})
    lines = caught.value.message.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["job.metrics.0.name", "job.seed", "job.build"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param({}, "the config: has no `job:`", id="an empty config"),
        pytest.param({"job": [1]}, "the config: has no `job:`", id="a list"),
        pytest.param({"job": {}}, "the config: job.KIND is missing", id="no kind"),
        pytest.param(
            {"job": {"KIND": "TrainingJob"}, "jobs": {}}, "the config: jobs is not a key", id="a second top-level key"
        ),
    ],
)
def test_a_config_without_a_job_is_refused(workplace, raw, reason):
    with pytest.raises(ConfigError) as caught:
        build_job(raw)
    assert caught.value.message.startswith(reason)


PLUGIN = """
from typing import Literal
from model_name.core.models import ConstantModel

class Mine(ConstantModel):
    KIND: Literal["MineOfTheSettings"] = "MineOfTheSettings"
"""


def test_a_kind_of_model_of_a_plugin_is_found(confs, monkeypatch):
    # given a module in the folder of the config
    (confs / "models_of_the_settings_test.py").write_text(PLUGIN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = {"KIND": "MineOfTheSettings", "random_state": 3}
    write(training={"job": {"KIND": "TrainingJob", "plugins": ["models_of_the_settings_test"], "model": model}})
    # when the job names the module, then its kind of model is found
    job = load_job(["training.yaml"], environment={})
    assert (type(job.model).__name__, job.model.random_state) == ("Mine", 3)
    # and survives as plain data
    plain = job.model_dump(mode="json", by_alias=True)
    assert build_job({"job": plain}).model_dump(mode="json", by_alias=True) == plain


def test_a_missing_plugin_is_refused(workplace, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigError, match=r"job.plugins: no_such_module cannot be imported"):
        import_plugins(["no_such_module"])


def test_a_step_without_a_file_has_its_defaults(confs):
    raw, files = load_step_config(".", "training", ["job.seed=9"])
    assert (raw["job"]["KIND"], raw["job"]["seed"], files) == ("TrainingJob", 9, ["./project.yaml", "./training.yaml"])
    raw, files = load_step_config("./", "reports")
    assert ("KIND" in raw["job"], files) == (False, ["./project.yaml"])
    with pytest.raises(ConfigError, match=r"nowhere/project.yaml: there is no such file"):
        load_step_config("nowhere", "training")


@pytest.mark.parametrize("kind", [*JOBS, "BoostedTrees", "TableSchema"])
def test_every_kind_has_a_json_schema(kind):
    schema = json_schema(kind)
    assert schema["type"] == "object"
    assert ("KIND" in schema["properties"]) == (kind != "TableSchema")
    assert schema["additionalProperties"] is False


def test_the_json_schema_of_a_config_has_every_job():
    schema = json_schema()
    titles = {job["title"] for job in schema["properties"]["job"]["anyOf"]}
    assert titles == set(JOBS)
    assert {kind["title"] for kind in schema["$defs"]["Model"]["anyOf"]} >= {"BoostedTrees", "RandomForest"}


def test_an_unknown_kind_has_no_json_schema():
    with pytest.raises(ConfigError, match=r"TrainingJobs is not a kind; did you mean TrainingJob?"):
        json_schema("TrainingJobs")
