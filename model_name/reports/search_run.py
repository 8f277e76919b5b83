"""Hyperparameter search of a training run, loaded from MLflow."""

from dataclasses import dataclass

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from model_name.results import BEST_FILE, BEST_METRIC_PREFIX, TRIALS_FILE, TUNING_RUN_TAG, SelectedParams


@dataclass(frozen=True)
class SearchRun:
    """A hyperparameter search.

    Attributes:
        run_id: ID of the MLflow run that holds the search.
        metric: Name of the metric that decides.
        trials: Table with one row per trial, as `SearchResult.frame` has them; the first row is the model with its own
            hyperparameters.
        best: Selected hyperparameters; None for a search by an older release.
    """

    run_id: str
    metric: str
    trials: pd.DataFrame
    best: SelectedParams | None = None

    @property
    def is_over_kinds(self) -> bool:
        """Whether the trials were of several kinds of model, the default trees first."""
        return "param_KIND" in self.trials


def load_search(run: Run) -> SearchRun | None:
    """Load the search that a training run took its hyperparameters from, or return None.

    That is the search that the run's tag names, or one inside the run itself. Without either, it is the newest earlier
    search of the same kind of model, if the run uses the best hyperparameters of that search.
    """
    if TUNING_RUN_TAG in run.data.tags:
        return _load_from(_find_run(run.data.tags[TUNING_RUN_TAG]))
    return _load_from(run) or _load_from(_find_matching_run(run))


def _load_from(run: Run | None) -> SearchRun | None:
    metrics = [name for name in run.data.metrics if name.startswith(BEST_METRIC_PREFIX)] if run else []
    if run is None or not metrics:
        return None
    trials = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{TRIALS_FILE}")
    frame = pd.DataFrame(trials["data"], columns=trials["columns"])
    return SearchRun(run.info.run_id, metrics[0].removeprefix(BEST_METRIC_PREFIX), frame, _load_best(run))


def _load_best(run: Run) -> SelectedParams | None:
    if not any(file.path == BEST_FILE for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)):
        return None  # an older release did not write the file
    return SelectedParams.model_validate(mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{BEST_FILE}"))


def _find_run(run_id: str) -> Run | None:
    try:
        return mlflow.get_run(run_id)
    except MlflowException as err:
        if err.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # the run was deleted


def _find_matching_run(run: Run) -> Run | None:
    kind = run.data.params.get("kind", "")
    searches = mlflow.search_runs(
        experiment_ids=[run.info.experiment_id],
        filter_string=(
            f"tags.job = 'TuningJob' and attributes.status = 'FINISHED' and attributes.run_name = 'tune {kind}' "
            f"and attributes.start_time <= {run.info.start_time}"
        ),
        order_by=["attributes.start_time DESC"],
        max_results=1,
        output_format="list",
    )
    return searches[0] if searches and searches[0].data.params.items() <= run.data.params.items() else None
