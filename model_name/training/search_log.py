"""Log of a hyperparameter search in the MLflow run that it belongs to: that of a tuning, or of a training."""

import mlflow
from loguru import logger

from model_name.results import BEST_FILE, BEST_METRIC_PREFIX, TRIALS_FILE, SelectedParams, defined_metrics
from model_name.utils.search.trials import SearchResult


def log_search(found: SearchResult) -> None:
    """Log the trials and the selected hyperparameters to the active run."""
    if found.reused:
        logger.info("{} of the {} trials are reused from an earlier, equal search", found.reused, len(found.trials))
    mlflow.log_metrics(defined_metrics({f"{BEST_METRIC_PREFIX}{found.metric}": found.best.score}))
    mlflow.log_table(found.to_frame().astype(object).where(lambda frame: frame.notna(), None), TRIALS_FILE)
    best = SelectedParams(params=found.best.params, score=found.best.score, fold_scores=found.best.fold_scores)
    mlflow.log_dict(best.model_dump(mode="json"), BEST_FILE)
