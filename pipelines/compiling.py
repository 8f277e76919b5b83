"""Compile a config folder into a self-contained pipeline: each step contains its config."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from kfp import compiler
from loguru import logger

from model_name.errors import ConfigError
from model_name.launchers.profiles import resolve_profile
from model_name.settings import build_job, exists, job_class, load_step_config
from pipelines.graphs import GRAPHS, OPTIONAL, STEPS

PACKAGES_DIR = Path("build") / "pipelines"
RAY_SEARCHER = "RaySearcher"


def compile_pipeline(
    name: str, confs: str, *, profile: str = "cpu", sets: Sequence[str] = (), skip: Sequence[str] = (), out: str = ""
) -> Path:
    """Compile a pipeline to YAML and return the path of the file.

    Args:
        name: Name of the pipeline, a key of `GRAPHS`.
        confs: Config folder.
        profile: Resource profile: `cpu`, `4x2gpu` (nodes x GPUs per node) or a YAML file.
        sets: Overrides `a.b=c`, for every step whose job has the key.
        skip: Steps to leave out.
        out: File to write; by default `build/pipelines/NAME.yaml`.

    Raises:
        ConfigError: The name, a config or the profile is invalid.
    """
    if name not in GRAPHS:
        raise ConfigError(f"{name} is not a pipeline; there are {', '.join(GRAPHS)}")
    resources = resolve_profile(profile)
    if resources.nodes > 1:
        logger.warning(
            "{}: no step runs on several nodes yet; training uses the {} GPUs of one", profile, resources.gpus
        )
    pipeline = GRAPHS[name](
        step_configs(name, confs, sets, skip, ray_trial_resources=resources.ray_trial_resources), resources
    )
    path = Path(out) if out else PACKAGES_DIR / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path))
    return path


def step_configs(
    name: str,
    confs: str,
    sets: Sequence[str] = (),
    skip: Sequence[str] = (),
    ray_trial_resources: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the config of each step in JSON, validated as the step will validate it.

    Args:
        name: Name of the pipeline.
        confs: Config folder.
        sets: Overrides `a.b=c`, for every step whose job has the key.
        skip: Steps to leave out.
        ray_trial_resources: Resources of a Ray Tune trial, if the config does not set them.

    Raises:
        ConfigError: A config is invalid, no step has a key of `sets`, or a step cannot be left out.
    """
    for step in skip:
        if step not in OPTIONAL:
            raise ConfigError(f"--skip {step}: only {', '.join(OPTIONAL)} can be left out")
    configs = {}
    for step, kind in STEPS[name].items():
        if step in skip or (step in OPTIONAL and not exists(f"{confs.rstrip('/')}/{step}.yaml")):
            continue
        overrides = [pair for pair in sets if accepts_override(pair, kind)]
        raw, files = load_step_config(confs, step, [f"job.KIND={kind}", *overrides])
        build_job(raw, files=files)
        searcher = raw["job"].get("searcher", {})
        if searcher.get("KIND") == RAY_SEARCHER and "gpus_per_trial" not in searcher:
            raw["job"]["searcher"] = {**ray_trial_resources, **searcher}
        configs[step] = json.dumps(raw, separators=(",", ":"))
    for pair in sets:
        if not any(accepts_override(pair, kind) for kind in STEPS[name].values()):
            raise ConfigError(f"--set {pair}: no step of the {name} pipeline has this key", hint="keys begin with job.")
    return configs


def accepts_override(pair: str, kind: str) -> bool:
    """Return whether a kind of job has the key that an override `a.b=c` sets."""
    path = pair.partition("=")[0].strip().split(".")
    names = {field.alias or name for name, field in job_class(kind).model_fields.items()}
    return len(path) > 1 and path[0] == "job" and path[1] in names
