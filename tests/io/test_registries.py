import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import mlflow
import numpy as np
import pandas as pd
import pytest

import model_name
from model_name.core import dataframes
from model_name.core.models import AutoModel, BoostedTrees, ConstantModel
from model_name.core.versions import SEMVER
from model_name.errors import DataError, NotFoundError
from model_name.io.registries import Registry, list_model_names, load_model
from model_name.io.services import MlflowService
from model_name.utils.signers import InferSigner, SchemaSigner

NAME = "things"


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory, empty_store, make_schema, make_table):
    """Create a store with three versions of a model, shared by tests that only read it."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    service = MlflowService(tracking_uri=f"sqlite:///{folder}/mlflow.db", artifacts=str(folder / "artifacts"))
    service.start()
    for rows in (120, 150, 180):
        register(service, fit(make_schema, make_table, "binary", rows=rows))
    registry = Registry(NAME)
    registry.set_alias("champion", registry.resolve("2"))
    registry.set_alias("challenger", registry.resolve("3"))
    return service


@pytest.fixture
def registry(workplace, shared_store):
    """Open the registry of the shared store."""
    shared_store.start()
    yield Registry(NAME)
    shared_store.stop()


def fit(make_schema, make_table, task, *, kind=BoostedTrees, rows=120, schema=None, **params):
    schema = schema or make_schema(task)
    params = params or ({"max_iter": 4, "min_samples_leaf": 5} if kind is BoostedTrees else {})
    return kind(**params).fit(schema, dataframes.check_frame(make_table(task, rows=rows), schema).frame)


def save(service, model, signer=None, name=NAME):
    """Save a model in its own run, as training does."""
    schema = model.schema_
    raw = {"size": 1, "gap": None, "group": "a", "mark": None, "flag": True, "maybe": None, "moment": "2024-01-01"}
    raw = {key: [value] * 2 for key, value in raw.items() if key in schema.inputs}
    sample = dataframes.from_columns(schema.check_request(raw), schema)
    with service.run("train", experiment=name) as run:
        uri = Registry(name).save(model, (signer or SchemaSigner()).sign(schema, sample, model.predict(sample)), sample)
        mlflow.log_text("words", "bundle/words.txt")
    return uri, run.info.run_id


def register(service, model, name=NAME, **tags):
    uri, run_id = save(service, model, name=name)
    return Registry(name).register(model, uri, run_id, tags)


@pytest.mark.parametrize(
    ("ref", "version"),
    [
        pytest.param("1", "1", id="a number"),
        pytest.param("1.0.1", "2", id="a semantic version"),
        pytest.param("latest", "3", id="the latest"),
        pytest.param("champion", "2", id="an alias"),
        pytest.param("challenger", "3", id="another alias"),
    ],
)
def test_a_version_is_resolved_by_alias_number_and_semver(registry, ref, version):
    result = registry.resolve(ref)
    assert result.version == version
    assert registry.find_version(ref) == result
    assert result.title == f"things 1.0.{int(version) - 1} (version {version})"
    assert result.kind == "BoostedTrees"


@pytest.mark.parametrize("ref", ["4", "1.0.9", "nobody", "", "Latest"])
def test_an_unknown_version_is_reported_with_the_known_ones(registry, ref):
    with pytest.raises(NotFoundError, match=f"things: no version is called '{ref}'") as caught:
        registry.resolve(ref)
    assert caught.value.hint == "try one of challenger, champion, 1.0.2, or a number"
    assert registry.find_version(ref) is None


def test_an_empty_registry_is_reported(registry):
    with pytest.raises(NotFoundError, match="nothing: the registry holds no version of it"):
        Registry("nothing").resolve("latest")
    assert Registry("nothing").versions() == []
    assert list_model_names() == ["things"]


def test_versions_are_listed_newest_first_with_their_aliases(registry):
    assert [(version.version, version.aliases) for version in registry.versions()] == [
        ("3", ("challenger",)),
        ("2", ("champion",)),
        ("1", ()),
    ]


def test_a_loaded_model_predicts_like_the_saved_one(registry, make_schema, make_table):
    rows = make_table("binary", seed=4)
    expected = fit(make_schema, make_table, "binary", rows=150).predict(rows)
    pd.testing.assert_frame_equal(registry.load("champion").predict(rows), expected)


def test_artifacts_of_a_run_are_downloaded(registry, workplace):
    folder = registry.download_bundle("champion", workplace / "here")
    assert (folder / "words.txt").read_text() == "words"
    assert folder.is_relative_to(workplace / "here")
    assert (registry.download_bundle("latest") / "words.txt").read_text() == "words"
    with pytest.raises(NotFoundError, match=r"things 1.0.1 \(version 2\) has no nope.json"):
        registry.download_artifact(registry.resolve("2"), "nope.json")


def test_tags_are_stored_with_a_version(registry):
    version = registry.resolve("1")
    registry.set_tags(version, gate="passed", who="me")
    tags = registry.get_tags(version)
    assert (tags["gate"], tags["who"], tags["semver"], tags["kind"]) == ("passed", "me", "1.0.0", "BoostedTrees")
    assert tags["contract"] == version.recipe.contract


def raw_frames(make_table):
    """Return unvalidated rows, as clients send them."""
    table = make_table("binary", rows=30, seed=8).drop(columns=["outcome", "code"])
    frame = table.assign(size=table["size"].astype(float))
    return {
        "as read from a file": frame,
        "with small integers": table.assign(size=table["size"].astype("int32")),
        "with moments as texts": frame.assign(moment=[moment.isoformat() for moment in frame["moment"]]),
        "with gaps": frame.assign(gap=None, mark=None, maybe=None),
        "with NaN": frame.assign(gap=np.nan),
        "with an unseen category": frame.assign(group="unseen", mark="unseen"),
        "with extra columns": frame.assign(code="x", more=1),
        "one row": frame.head(1),
        "in another order": frame[sorted(frame.columns)],
    }


def test_the_saved_model_predicts_raw_frames(registry, make_table):
    # given the model loaded by MLflow
    version = registry.resolve("champion")
    loaded_model = mlflow.pyfunc.load_model("models:/things@champion")
    original = registry.load("champion")
    # then it predicts any raw frame as the original model does
    for title, rows in raw_frames(make_table).items():
        expected = original.predict(rows.drop(columns="more", errors="ignore"))
        pd.testing.assert_frame_equal(loaded_model.predict(rows), expected, obj=title)
    # and its metadata names its inputs
    assert loaded_model.metadata.get_input_schema().input_names() == list(original.schema_.inputs)
    assert version.run_id == loaded_model.metadata.run_id


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        pytest.param(
            {"size": 7}, mlflow.MlflowException, "Can not safely convert int64 to float64", id="long integers"
        ),
        pytest.param({"size": "warm"}, mlflow.MlflowException, "Failed to convert column size", id="a text"),
        pytest.param({"flag": 1}, mlflow.MlflowException, "Can not safely convert int64 to bool", id="1 for true"),
        pytest.param({"size": np.inf}, DataError, "size, row 0: inf is not finite", id="infinity"),
        pytest.param({"group": None}, DataError, "group, row 0: is missing", id="missing in a required column"),
    ],
)
def test_the_saved_model_refuses_invalid_rows(registry, make_table, change, error, reason):
    loaded_model = mlflow.pyfunc.load_model("models:/things/2")
    rows = raw_frames(make_table)["as read from a file"].assign(**change)
    with pytest.raises(error, match=reason):
        loaded_model.predict(rows)


def test_the_saved_model_predicts_without_the_package_installed(registry, workplace, make_table):
    # given a process that can import the package only from the saved model
    rows = make_table("binary", rows=3).drop(columns=["outcome", "code"]).assign(size=1.5)
    rows.to_parquet("rows.parquet")
    uri = mlflow.artifacts.download_artifacts("models:/things/1", dst_path=str(workplace / "model"))
    code = f"""
import sys, json
sys.path = [path for path in sys.path if path != {str(Path(model_name.__file__).parents[1])!r}]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import mlflow, pandas as pd
predictions = mlflow.pyfunc.load_model({uri!r}).predict(pd.read_parquet("rows.parquet"))
import model_name
print(json.dumps([model_name.__file__, predictions["probability_true"].tolist()]))
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=workplace)
    # then it predicts with the package that was saved with the model
    assert finished.returncode == 0, finished.stderr
    file, probabilities = json.loads(finished.stdout.strip().splitlines()[-1])
    assert file.startswith(str(workplace / "model"))
    np.testing.assert_allclose(probabilities, registry.load("1").predict(rows)["probability_true"])


class Plugin(ConstantModel):
    """Model kind of a plugin."""

    KIND: Literal["Plugin"] = "Plugin"


def test_plugin_modules_are_saved_with_a_blend(mlflow_service, workplace, make_schema, make_table):
    members = [{"KIND": "Plugin"}, {"KIND": "ConstantModel"}]
    model = fit(make_schema, make_table, "regression", kind=AutoModel, members=members, weights=[0.5, 0.5])
    register(mlflow_service, model)
    folder = Registry(NAME).download_model("latest", workplace / "fetched")
    assert {path.name for path in (folder / "code").iterdir()} >= {"model_name", Path(__file__).name}


def test_the_manifest_is_attached_to_the_model_folder(mlflow_service, workplace, make_schema, make_table):
    # given a registered model
    uri, run_id = save(mlflow_service, model := fit(make_schema, make_table, "regression", kind=ConstantModel))
    version = Registry(NAME).register(model, uri, run_id, {})
    # when its manifest is attached
    (workplace / "bundle.json").write_text("words")
    Registry(NAME).attach_file(uri, workplace / "bundle.json")
    # then the folder holds it, and still loads as a model of that run
    folder = Registry(NAME).download_model(version.semver, workplace / "fetched")
    assert (folder / "bundle.json").read_text() == "words"
    loaded, loaded_run_id = load_model(str(folder), "it")
    assert (loaded.KIND, loaded_run_id) == ("ConstantModel", run_id)


@pytest.mark.parametrize("signer", [SchemaSigner(), InferSigner()])
def test_a_model_of_every_task_can_be_saved(mlflow_service, make_schema, make_table, task, signer):
    model = fit(make_schema, make_table, task, kind=ConstantModel)
    uri, _ = save(mlflow_service, model, signer)
    info = mlflow.models.get_model_info(uri)
    assert info.signature.inputs.input_names() == list(model.schema_.inputs)
    assert mlflow.pyfunc.load_model(uri).unwrap_python_model().model.KIND == "ConstantModel"


def test_the_change_determines_the_next_semver(mlflow_service, make_schema, make_table):
    # given a registry with one version
    schema = make_schema("regression")
    raw = schema.model_dump(mode="json")
    del raw["columns"]["maybe"]
    narrow = type(schema).model_validate(raw | {"extra": "drop"})
    constant = {"kind": ConstantModel}
    steps = [
        (constant, "1.0.0"),
        (constant | {"rows": 200}, "1.0.1"),  # new data
        (constant | {"random_state": 7}, "1.0.2"),  # another seed is the same recipe
        ({}, "1.1.0"),  # another kind
        (constant | {"schema": narrow}, "2.0.0"),  # another contract
        (constant | {"schema": narrow, "rows": 130}, "2.0.1"),
    ]
    # when models are registered in sequence, then each gets the semver that its change requires
    for number, (changes, semver) in enumerate(steps, start=1):
        version = register(mlflow_service, fit(make_schema, make_table, "regression", **changes), table="t.parquet")
        assert (version.semver, version.version) == (semver, str(number))
    assert Registry(NAME).get_tags(version)["table"] == "t.parquet"
    # and a deleted version leaves its semver to the next one
    Registry(NAME).delete_version(version)
    assert Registry(NAME).find_version("2.0.1") is None
    assert register(mlflow_service, fit(make_schema, make_table, "regression", **steps[-1][0])).semver == "2.0.1"
    # and an alias moves
    registry = Registry(NAME)
    registry.set_alias("champion", registry.resolve("1"))
    registry.set_alias("champion", registry.resolve("1.1.0"))
    assert registry.resolve("champion").semver == "1.1.0"
    assert registry.resolve("1").aliases == ()


class Foreign(mlflow.pyfunc.PythonModel):
    """Model of another project."""

    def predict(self, context, model_input):
        return model_input


def test_versions_of_other_projects_are_ignored(mlflow_service, make_schema, make_table):
    # given a registered model that another project saved
    with mlflow_service.run("x", experiment="foreign") as run:
        uri = mlflow.pyfunc.log_model(name="model", python_model=Foreign(), pip_requirements=["mlflow"]).model_uri
    registry = Registry("foreign")
    registry.client.create_registered_model("foreign")
    foreign = registry.client.create_model_version("foreign", uri, run_id=run.info.run_id)
    # then it is not listed as a version
    with pytest.raises(NotFoundError, match="holds no version"):
        registry.resolve("latest")
    # and a version of this project can be registered beside it
    own = register(mlflow_service, fit(make_schema, make_table, "regression", kind=ConstantModel), name="foreign")
    assert (own.semver, own.version) == ("1.0.0", "2")
    # and a foreign model with the tags of this project is refused
    recipe = {"semver": "9.9.9", "kind": "x", "contract": "c", "recipe": "r"}
    for key, value in recipe.items():
        registry.client.set_model_version_tag("foreign", foreign.version, key, value)
    with pytest.raises(DataError, match=r"foreign 9.9.9 .* is not a model of this project but Foreign"):
        registry.load("9.9.9")


def test_version_of_another_release_is_reported_with_a_hint(mlflow_service, workplace, make_schema, make_table):
    register(mlflow_service, fit(make_schema, make_table, "regression", kind=ConstantModel))
    (file,) = (workplace / "mlartifacts").rglob("python_model.pkl")
    file.write_bytes(file.read_bytes().replace(b"model_name.core.models.baseline", b"model_name.core.models.previous"))
    with pytest.raises(NotFoundError, match=r"No module named 'model_name.core.models.previous'") as raised:
        Registry(NAME).load("1.0.0")
    assert "train it again" in raised.value.hint


def test_a_version_without_files_is_not_found(mlflow_service, workplace, make_schema, make_table):
    register(mlflow_service, fit(make_schema, make_table, "regression", kind=ConstantModel))
    shutil.rmtree(workplace / "mlartifacts")
    with pytest.raises(NotFoundError, match=r"things 1.0.0 \(version 1\) cannot be loaded from models:/things/1"):
        Registry(NAME).load("1")
    with pytest.raises(NotFoundError, match="has no bundle"):
        Registry(NAME).download_bundle("1")
    with pytest.raises(NotFoundError, match="has no model"):
        Registry(NAME).download_model("1")


@pytest.mark.parametrize(
    ("ref", "is_semver"), [("1.2.3", True), ("12", False), ("champion", False), ("1.2.3\n", False)]
)
def test_semantic_versions_are_recognized(ref, is_semver):
    assert (SEMVER.match(ref) is not None) == is_semver
