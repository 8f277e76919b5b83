"""Kubeflow components, one per job: a signature and one call into the package."""

from components.evaluations import evaluations
from components.explanations import explanations
from components.inference import inference
from components.notification import notification
from components.preparation import preparation
from components.promotion import promotion
from components.reports import reports
from components.training import training
from components.tuning import tuning

__all__ = [
    "evaluations",
    "explanations",
    "inference",
    "notification",
    "preparation",
    "promotion",
    "reports",
    "training",
    "tuning",
]
