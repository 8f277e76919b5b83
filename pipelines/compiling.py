"""From a config folder to a pipeline that needs nothing else: each step carries its own config."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from kfp import compiler
from loguru import logger

from model_name.errors import ConfigError
from model_name.launchers.profiles import resolve_profile
from model_name.settings import build_job, exists, job_kind, load_raw
from pipelines.graphs import GRAPHS, OPTIONAL, STEPS

PACKAGES_DIR = Path("build") / "pipelines"
RAY_SEARCHER = "RaySearcher"


def compile_pipeline(
    name: str, confs: str, *, profile: str = "cpu", sets: Sequence[str] = (), skip: Sequence[str] = (), out: str = ""
) -> Path:
    """Compile a pipeline into its YAML.

    Args:
        name: One of `GRAPHS`.
        confs: The config folder.
        profile: What it runs on: `cpu`, `4x2gpu` (nodes x GPUs) or a YAML file.
        sets: `a.b=c` pairs for every step that knows the key.
        skip: Steps to leave out.
        out: The file; by default `build/pipelines/NAME.yaml`.

    Raises:
        ConfigError: The name, a config or the profile is wrong.
    """
    if name not in GRAPHS:
        raise ConfigError(f"{name} is not a pipeline; there are {', '.join(GRAPHS)}")
    found = resolve_profile(profile)
    if found.nodes > 1:
        logger.warning("{}: no step spreads over nodes yet; training uses the {} GPUs of one", profile, found.gpus)
    pipeline = GRAPHS[name](step_configs(name, confs, sets, skip, ray_trial_resources=found.ray_trial_resources), found)
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
    """The config of each step in JSON, each one validated as the step will.

    Args:
        name: Of the pipeline.
        confs: The config folder.
        sets: `a.b=c` pairs for every step that knows the key.
        skip: Steps to leave out.
        shares: What each trial of a search by Ray gets, where its config does not say.

    Raises:
        ConfigError: A config is wrong, no step knows a key of `sets`, or a step cannot be left out.
    """
    for step in skip:
        if step not in OPTIONAL:
            raise ConfigError(f"--skip {step}: only {', '.join(OPTIONAL)} can be left out")
    configs = {}
    for step, kind in STEPS[name].items():
        if step in skip or (step in OPTIONAL and not exists(f"{confs.rstrip('/')}/{step}.yaml")):
            continue
        own = [pair for pair in sets if accepts_override(pair, kind)]
        raw, files = load_raw(confs, step, [f"job.KIND={kind}", *own])
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
    """Whether a kind of job has the key that an `a.b=c` pair sets."""
    path = pair.partition("=")[0].strip().split(".")
    names = {field.alias or name for name, field in job_kind(kind).model_fields.items()}
    return len(path) > 1 and path[0] == "job" and path[1] in names
