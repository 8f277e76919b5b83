"""What a search leaves in the run that it belongs to: of a tuning job, or of a training that searched by itself."""

import mlflow
from loguru import logger

from model_name.jobs.base import loggable
from model_name.utils.search.trials import SearchResult

TRIALS = "trials.json"
BEST = "best.json"
BEST_METRIC = "best_"  # followed by the name of the metric
TUNING_RUN = "tuning_run"  # the tag of a training run that names the run of its search


def log_search(found: SearchResult) -> None:
    """Put the trials, and what was made of them, into the active run; say which were done before."""
    if found.taken_over:
        logger.info("{} of the {} trials are those of an earlier, equal search", found.taken_over, len(found.trials))
    mlflow.log_metrics(loggable({f"{BEST_METRIC}{found.metric}": found.best.score}))
    mlflow.log_table(found.frame().astype(object).where(lambda frame: frame.notna(), None), TRIALS)
    best = {"params": found.best.params, "score": found.best.score, "fold_scores": list(found.best.fold_scores)}
    mlflow.log_dict(best, BEST)
