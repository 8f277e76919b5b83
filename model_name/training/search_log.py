"""Logging of a hyperparameter search to the active MLflow run, of a tuning or a training job."""

import mlflow
from loguru import logger

from model_name.results import BEST_FILE, BEST_METRIC_PREFIX, TRIALS_FILE, SelectedParams, defined_metrics
from model_name.utils.search.trials import SearchResult


def log_search(search: SearchResult) -> None:
    """Log the trials and the selected hyperparameters to the active run."""
    if search.reused:
        logger.info("{} of the {} trials are reused from an earlier, equal search", search.reused, len(search.trials))
    mlflow.log_metrics(defined_metrics({f"{BEST_METRIC_PREFIX}{search.metric}": search.best.score}))
    mlflow.log_table(search.to_frame().astype(object).where(lambda frame: frame.notna(), None), TRIALS_FILE)
    best = SelectedParams(params=search.best.params, score=search.best.score, fold_scores=search.best.fold_scores)
    mlflow.log_dict(best.model_dump(mode="json"), BEST_FILE)
