"""Pipeline graphs: order of the jobs, and what they exchange (URIs, a version, small parameters)."""

from collections.abc import Callable, Mapping

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import components
from model_name.launchers.profiles import Profile
from pipelines.placement import configure_task

Configs = Mapping[str, str]
"""Config of each step in JSON; an optional step that is left out has no key."""


def training_pipeline(configs: Configs, profile: Profile) -> BaseComponent:
    """Build the pipeline: prepare, tune (optional), train, evaluate, explain, promote, report; notify at the end."""

    @dsl.pipeline(name="training-pipeline", description="From a table to a version that went through the gate.")
    def training(table: str = "") -> None:
        ending = configure_task(components.notification(config=configs["notification"]), profile)
        with dsl.ExitHandler(ending, name="train-and-promote"):
            prepared = configure_task(components.preparation(config=configs["preparation"], table=table), profile)
            tuned = ""
            if "tuning" in configs:
                search = components.tuning(config=configs["tuning"], table=prepared.output)
                tuned = configure_task(search, profile, heavy=True, resumable=True).output
            trained = components.training(config=configs["training"], table=prepared.output, tuned=tuned)
            version = configure_task(trained, profile, heavy=True, resumable=True).outputs["Output"]
            evaluated = components.evaluations(config=configs["evaluations"], table=prepared.output, version=version)
            configure_task(evaluated, profile)
            explained = components.explanations(config=configs["explanations"], table=prepared.output, version=version)
            configure_task(explained, profile)
            decided = components.promotion(config=configs["promotion"], version=evaluated.outputs["Output"])
            configure_task(decided, profile)
            reported = components.reports(config=configs["reports"], table=prepared.output, version=explained.output)
            configure_task(reported, profile).after(decided)

    return training


def inference_pipeline(configs: Configs, profile: Profile) -> BaseComponent:
    """Build the pipeline that predicts a table with the champion and notifies at the end."""

    @dsl.pipeline(name="inference-pipeline", description="From a table to its predictions.")
    def inference(table: str = "") -> None:
        ending = configure_task(components.notification(config=configs["notification"]), profile)
        with dsl.ExitHandler(ending, name="predict"):
            configure_task(components.inference(config=configs["inference"], table=table), profile, resumable=True)

    return inference


Graph = Callable[[Configs, Profile], BaseComponent]

GRAPHS: dict[str, Graph] = {"training": training_pipeline, "inference": inference_pipeline}

STEPS: dict[str, dict[str, str]] = {
    "training": {
        "preparation": "PreparationJob",
        "tuning": "TuningJob",
        "training": "TrainingJob",
        "evaluations": "EvaluationsJob",
        "explanations": "ExplanationsJob",
        "promotion": "PromotionJob",
        "reports": "ReportJob",
        "notification": "NotificationJob",
    },
    "inference": {"inference": "InferenceJob", "notification": "NotificationJob"},
}
"""KIND of the job of each step by graph; the config file of a step has its name."""

RESULTS = {"training": "ReportJob", "inference": "InferenceJob"}
"""KIND of the job whose result is the result of the pipeline."""

OPTIONAL = frozenset({"tuning"})
"""Steps that run only if the config folder has a file for them."""
