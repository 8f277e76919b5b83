"""What a step runs on: processors, memory, GPUs, where, and with which secrets."""

import re
from math import floor

from pydantic import Field

from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.errors import ConfigError
from model_name.io.configs import load_document

PROFILE_NAME = re.compile(r"^(?:(?P<nodes>[1-9]\d*)x)?(?P<gpus>[1-9]\d*)?gpu$")
LOCAL = "local"
"""This machine: what fails here is looked at, not tried again."""

SECRET_KEYS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "MODEL_NAME_ALERTS_URL",
)


class Toleration(FrozenModel):
    """A taint that a step puts up with."""

    key: str
    operator: str = "Exists"
    value: str | None = None
    effect: str = "NoSchedule"


class Profile(FrozenModel):
    """What the steps of a pipeline run on.

    Attributes:
        image: The image of every step.
        cpu: Processors of a step.
        memory: Memory of a step.
        nodes: Machines that training spreads over.
        gpus: GPUs of a machine; training and tuning get them.
        trials_per_gpu: Trials of a search by Ray that share a GPU.
        gpu_type: The resource that the device plugin offers.
        gpu_node_selector: Labels of the machines with GPUs.
        gpu_tolerations: Taints of those machines.
        shared_memory: Size of /dev/shm where there are GPUs; PyTorch's workers talk through it.
        secret: The Kubernetes secret that holds addresses and credentials.
        secret_keys: Its keys, which become environment variables of the same name; absent ones are left out.
        retries: How often a step that can go on where it was is tried again.
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
        """What each trial of a search by Ray gets, so that all that fit on the GPUs of a machine run at once."""
        if not self.gpus:
            return {}
        processors = float(self.cpu.removesuffix("m")) / (1000 if self.cpu.endswith("m") else 1)
        each = processors / (self.gpus * self.trials_per_gpu)
        # Rounded down, so that the last trial finds its share.
        return {"gpus_per_trial": floor(1e4 / self.trials_per_gpu) / 1e4, "cpus_per_trial": floor(each * 1e4) / 1e4}


def resolve_profile(name: str) -> Profile:
    """The profile of a name (`cpu`, `gpu`, `1xgpu`, `4x2gpu`: nodes x GPUs each) or of a YAML file.

    Raises:
        ConfigError: It is neither.
    """
    if name.endswith((".yaml", ".yml")):
        return load_document(name, Profile)
    if name == "cpu":
        return Profile()
    if name == LOCAL:
        return Profile(retries=0)
    found = PROFILE_NAME.match(name)
    if found is None:
        raise ConfigError(
            f"--profile {name}: is not a profile", hint="say cpu, 1xgpu, 4x2gpu (nodes x GPUs each) or name a YAML file"
        )
    return Profile(nodes=int(found["nodes"] or 1), gpus=int(found["gpus"] or 1))
