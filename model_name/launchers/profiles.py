"""Resource profiles: processors, memory, GPUs, node selection and secrets of the steps of a pipeline."""

import re
from math import floor

from pydantic import Field

from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.errors import ConfigError
from model_name.io.configs import load_document

PROFILE_NAME = re.compile(r"^(?:(?P<nodes>[1-9]\d*)x)?(?P<gpus>[1-9]\d*)?gpu$")
LOCAL = "local"
"""Name of the profile of the local runner, which does not retry failed steps."""

SECRET_KEYS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "MODEL_NAME_ALERTS_URL",
)


class Toleration(FrozenModel):
    """Toleration of a taint, as in Kubernetes."""

    key: str
    operator: str = "Exists"
    value: str | None = None
    effect: str = "NoSchedule"


class Profile(FrozenModel):
    """Resources of the steps of a pipeline.

    Attributes:
        image: Container image of every step.
        cpu: CPU request of a step.
        memory: Memory request and limit of a step.
        nodes: Number of nodes of a training job.
        gpus: Number of GPUs per node, for training and tuning.
        trials_per_gpu: Number of Ray Tune trials that share a GPU.
        gpu_type: Resource name of the GPU device plugin.
        gpu_node_selector: Labels of the nodes with GPUs.
        gpu_tolerations: Tolerations of the taints of these nodes.
        shared_memory: Size of /dev/shm of a step with GPUs; PyTorch's workers exchange data through it.
        secret: Name of the Kubernetes secret with addresses and credentials.
        secret_keys: Keys of the secret, which become environment variables of the same name; absent keys are skipped.
        retries: Maximum number of retries of a resumable step.
    """

    image: str = "model-name-python:0.1.0"
    cpu: str = Field("2", pattern=r"^\d+(\.\d+)?m?$")
    memory: str = "8Gi"
    nodes: int = Field(1, gt=0)
    gpus: int = Field(0, ge=0)
    trials_per_gpu: int = Field(1, gt=0)
    gpu_type: str = "nvidia.com/gpu"
    gpu_node_selector: dict[str, str] = {"nvidia.com/gpu.present": "true"}
    gpu_tolerations: LaxTuple[Toleration] = (Toleration(key="nvidia.com/gpu"),)
    shared_memory: str = "8Gi"
    secret: str = "model-name"  # noqa: S105  the name of a secret, not a secret
    secret_keys: LaxTuple[str] = SECRET_KEYS
    retries: int = Field(2, ge=0)

    @property
    def ray_trial_resources(self) -> dict[str, float]:
        """Resources of a Ray Tune trial, such that all trials that fit on the GPUs of a node run at once."""
        if not self.gpus:
            return {}
        processors = float(self.cpu.removesuffix("m")) / (1000 if self.cpu.endswith("m") else 1)
        cpus_per_trial = processors / (self.gpus * self.trials_per_gpu)
        # Rounded down, so that the shares of all trials fit.
        return {
            "gpus_per_trial": floor(1e4 / self.trials_per_gpu) / 1e4,
            "cpus_per_trial": floor(cpus_per_trial * 1e4) / 1e4,
        }


def resolve_profile(name: str) -> Profile:
    """Return the profile of a name (`cpu`, `gpu`, `1xgpu`, `4x2gpu`: nodes x GPUs per node) or of a YAML file.

    Raises:
        ConfigError: The name is not a profile, or the file is invalid.
    """
    if name.endswith((".yaml", ".yml")):
        return load_document(name, Profile)
    if name == "cpu":
        return Profile()
    if name == LOCAL:
        return Profile(retries=0)
    match = PROFILE_NAME.match(name)
    if match is None:
        raise ConfigError(
            f"--profile {name}: is not a profile", hint="say cpu, 1xgpu, 4x2gpu (nodes x GPUs each) or name a YAML file"
        )
    return Profile(nodes=int(match["nodes"] or 1), gpus=int(match["gpus"] or 1))
