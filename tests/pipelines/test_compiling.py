"""Compiled pipelines: content of the IR that a Kubeflow backend reads."""

import json

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from model_name.errors import ConfigError
from model_name.settings import build_job
from pipelines.compiling import compile_pipeline
from tests.support import projects


def compiled(confs, name="training", **options):
    path = compile_pipeline(name, str(confs), out=str(confs.parent / f"{name}.yaml"), **options)
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return documents[0], documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture(scope="module")
def confs(tmp_path_factory):
    return projects.make_project(tmp_path_factory.mktemp("compiling"))


def steps(spec):
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


@pytest.mark.parametrize("name", ["training", "inference"])
def test_the_ir_is_valid_for_the_protos_of_the_backend(confs, name):
    spec, platform = compiled(confs, name)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    for executor in platform.values():
        json_format.ParseDict(executor, kubernetes_pb2.KubernetesExecutorConfig())


def test_steps_are_the_jobs_in_order(confs):
    spec, _ = compiled(confs)
    tasks = steps(spec)
    assert set(tasks) == {"preparation", "tuning", "training", "evaluations", "explanations", "promotion", "reports"}
    assert "promotion" in tasks["reports"]["dependentTasks"]
    assert set(spec["root"]["dag"]["tasks"]) == {"exit-handler-1", "notification"}


def test_training_receives_the_result_of_tuning(confs):
    spec, _ = compiled(confs)
    source = steps(spec)["training"]["inputs"]["parameters"]["tuned"]["taskOutputParameter"]
    assert source["producerTask"] == "tuning"


def test_tuning_is_left_out_without_its_config_file(tmp_path):
    confs = projects.make_project(tmp_path)
    (confs / "tuning.yaml").unlink()
    assert "tuning" not in steps(compiled(confs)[0])


def test_steps_install_no_packages(confs):
    spec, _ = compiled(confs)
    for executor in spec["deploymentSpec"]["executors"].values():
        assert "pip" not in " ".join(executor["container"]["command"][:3])
        assert executor["container"]["image"] == "model-name-python:0.1.0"


def test_every_step_contains_its_config(confs):
    spec, _ = compiled(confs, sets=["job.seed=7"])
    for name, step in steps(spec).items():
        job = json.loads(step["inputs"]["parameters"]["config"]["runtimeValue"]["constant"])["job"]
        assert job["schema"]["columns"]["region"]["values"] == ["north", "south", "west"], name
        assert job["seed"] == 7


def test_the_backend_reads_no_parameter_as_a_boolean(confs):
    for name in ("training", "inference"):
        spec, _ = compiled(confs, name)
        assert not {"n", "y"} & set(spec["root"]["inputDefinitions"]["parameters"])


def test_no_step_is_cached(confs):
    spec, _ = compiled(confs)
    assert all(not step["cachingOptions"].get("enableCache") for step in steps(spec).values())


def test_gpu_profiles_are_compiled_into_the_ir(confs):
    spec, platform = compiled(confs, profile="4x2gpu")
    executors = spec["deploymentSpec"]["executors"]
    for name in ("training", "tuning"):
        accelerator = executors[f"exec-{name}"]["container"]["resources"]["accelerator"]
        assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")
        assert platform[f"exec-{name}"]["tolerations"][0]["key"] == "nvidia.com/gpu"
        assert platform[f"exec-{name}"]["nodeSelector"]["labels"] == {"nvidia.com/gpu.present": "true"}
        memory = next(mount for mount in platform[f"exec-{name}"]["emptyDirMounts"] if mount["mountPath"] == "/dev/shm")
        assert memory["medium"] == "Memory"
    assert "accelerator" not in executors["exec-evaluations"]["container"]["resources"]


@pytest.mark.parametrize(
    ("profile", "searcher_keys", "resources"),
    [
        pytest.param({"gpus": 1, "cpu": "8"}, {}, (1.0, 8.0), id="one GPU per trial"),
        pytest.param({"gpus": 2, "cpu": "8", "trials_per_gpu": 2}, {}, (0.5, 2.0), id="half a GPU per trial"),
        pytest.param({"gpus": 1, "cpu": "1500m", "trials_per_gpu": 3}, {}, (0.3333, 0.5), id="half a CPU per trial"),
        pytest.param({"gpus": 2, "cpu": "8"}, {"cpus_per_trial": 1}, (1.0, 1), id="CPUs set in the config"),
        pytest.param({"gpus": 2, "cpu": "8"}, {"gpus_per_trial": 0.25}, (0.25, None), id="GPUs set in the config"),
        pytest.param({"gpus": 0, "cpu": "8", "trials_per_gpu": 2}, {}, (None, None), id="no GPUs"),
    ],
)
def test_ray_trials_share_the_gpus_of_the_profile(tmp_path, profile, searcher_keys, resources):
    # given a search with Ray Tune
    confs = projects.make_project(tmp_path)
    searcher = {"KIND": "RaySearcher", "space": {"max_iter": [10, 30]}} | searcher_keys
    projects.write_yaml(confs / "tuning.yaml", {"job": {"model": {"KIND": "BoostedTrees"}, "searcher": searcher}})
    projects.write_yaml(tmp_path / "profile.yaml", profile)
    # when the pipeline is compiled for a profile
    spec, _ = compiled(confs, profile=str(tmp_path / "profile.yaml"))
    config = json.loads(steps(spec)["tuning"]["inputs"]["parameters"]["config"]["runtimeValue"]["constant"])
    # then each trial has its resources, and the config is still valid
    compiled_searcher = config["job"]["searcher"]
    assert (compiled_searcher.get("gpus_per_trial"), compiled_searcher.get("cpus_per_trial")) == resources
    assert build_job(config).searcher.KIND == "RaySearcher"


def test_other_searchers_get_no_ray_trial_resources(confs):
    spec, _ = compiled(confs, profile="1xgpu")
    config = json.loads(steps(spec)["tuning"]["inputs"]["parameters"]["config"]["runtimeValue"]["constant"])
    assert "gpus_per_trial" not in config["job"]["searcher"]


def test_secrets_come_from_a_kubernetes_secret_by_name(confs):
    spec, platform = compiled(confs)
    for name in spec["deploymentSpec"]["executors"]:
        (secret,) = platform[name]["secretAsEnv"]
        assert (secret["secretName"], secret["optional"]) == ("model-name", True)
        assert {"MLFLOW_TRACKING_URI"} <= {key["envVar"] for key in secret["keyToEnv"]}


def test_only_resumable_steps_are_retried(confs):
    spec, _ = compiled(confs)
    assert {name for name, step in steps(spec).items() if "retryPolicy" in step} == {"training", "tuning"}


def test_a_custom_profile_is_loaded_from_a_file(confs, tmp_path):
    projects.write_yaml(
        tmp_path / "big.yaml", {"image": "mine-python:1", "gpus": 1, "gpu_type": "amd.com/gpu", "memory": "64Gi"}
    )
    spec, _ = compiled(confs, profile=str(tmp_path / "big.yaml"))
    training = spec["deploymentSpec"]["executors"]["exec-training"]["container"]
    assert training["image"] == "mine-python:1"
    assert training["resources"]["accelerator"]["resourceType"] == "amd.com/gpu"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        pytest.param("trainin", {}, "trainin is not a pipeline", id="unknown pipeline"),
        pytest.param("training", {"profile": "4gpu2"}, "--profile 4gpu2", id="unknown profile"),
        pytest.param(
            "training", {"sets": ["job.modle=1"]}, "no step of the training pipeline has this key", id="unknown key"
        ),
        pytest.param("training", {"sets": ["job.seed=x"]}, "job.seed", id="wrong value"),
    ],
)
def test_invalid_input_is_reported_at_compile_time(confs, name, options, message):
    with pytest.raises(ConfigError, match=message):
        compile_pipeline(name, str(confs), out=str(confs.parent / "wrong.yaml"), **options)


def test_a_folder_without_a_project_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"project\.yaml: there is no such file"):
        compile_pipeline("training", str(tmp_path))
