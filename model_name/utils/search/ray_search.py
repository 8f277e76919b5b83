"""Search with Ray Tune: parallel trials on all machines of a Ray cluster, with early stopping.

The overhead is about two seconds per trial on a small machine, which pays off for trials of minutes or with many GPUs.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

from loguru import logger
from pydantic import Field
from typing_extensions import override

from model_name import errors
from model_name.core.metrics import Metric
from model_name.errors import ConfigError, DependencyError
from model_name.utils.search.objective import Objective, SearchProblem
from model_name.utils.search.optuna_search import OptunaSearcher
from model_name.utils.search.searcher import ProgressCallback, search_result
from model_name.utils.search.spaces import Params, Space, check_space, default_params
from model_name.utils.search.trials import SearchResult, Trial, progress_message

SCORE = "score"
CHECKPOINT_FILE = "folds.json"
STORAGE_DIRECTORY = "ray"
RAY_ADDRESS = "RAY_ADDRESS"  # environment variable with the address of a cluster; if unset, Ray starts here
TORCHRUN_ID = "TORCHELASTIC_RUN_ID"  # environment variable that torchrun sets


class RaySearcher(OptunaSearcher):
    """Runs trials that Optuna suggests in parallel; ASHA (Li et al. 2020) stops unpromising trials after each fold.

    The first trial is the model's own hyperparameters, evaluated in this process. A killed search is resumed from the
    state that Ray saves every ten seconds; with another budget or number of `trials`, it starts again.

    Attributes:
        concurrent: Maximum number of parallel trials; by default as many as the resources allow.
        cpus_per_trial: Number of processors of a trial.
        gpus_per_trial: Number of GPUs of a trial; a fraction shares one. If not set, a pipeline sets it by its profile.
        storage: Directory or URL of Ray's state, reachable from all machines; beside the journal by default.
    """

    # Not budget and number of trials: Ray stores them, and resumes a search with those it began with.
    UNFINGERPRINTED: ClassVar[frozenset[str]] = frozenset({"concurrent", "cpus_per_trial", "gpus_per_trial", "storage"})

    KIND: Literal["RaySearcher"] = "RaySearcher"  # type: ignore[assignment]  # another kind of the same strategy
    concurrent: int | None = Field(None, ge=1)
    cpus_per_trial: float = Field(1.0, gt=0)
    gpus_per_trial: float = Field(0.0, ge=0)
    storage: str = ""

    @override
    def search(
        self, problem: SearchProblem, *, journal: Path | None = None, progress: ProgressCallback | None = None
    ) -> SearchResult:
        """Search as `Searcher.search` does, with Ray's storage in place of the journal.

        Raises:
            ConfigError: The search is not possible as for `Searcher.search`, or Ray is not installed.
            DependencyError: The environment names the address of a cluster, which cannot be reached.
        """
        check_ray_installed()
        check_space(self.space, problem.model)
        problem.metric.check_task(problem.schema.target.task)
        objective = Objective(problem, problem.folds(self.folds))
        first = objective.evaluate(0, default_params(self.space, problem.model))

        def report(completed: Sequence[Trial]) -> None:
            if progress is not None:
                progress(1 + len(completed), self.trials, progress_message([first, *completed], problem.metric))

        report([])
        with _ray(), _listen(TrialListener(self.space, len(objective.folds), report)):
            trials = [first, *self._run(objective, self._storage(journal))]
        return search_result(trials, problem.metric)

    def _storage(self, journal: Path | None) -> str:
        if self.storage:
            return self.storage
        if journal is None:
            return tempfile.mkdtemp(prefix="model-name-ray-")
        return str((journal.parent / STORAGE_DIRECTORY).resolve())

    def _run(self, objective: Objective, storage: str) -> list[Trial]:
        """Run the trials from 1 on."""
        import optuna
        from ray import tune

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        name = f"search-{self.fingerprint(objective.problem)[:16]}"
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, objective=objective, space=self.space),
            {"cpu": self.cpus_per_trial, "gpu": self.gpus_per_trial},
        )
        folds, path = len(objective.folds), f"{storage.rstrip('/')}/{name}"
        results: list[Any] = []
        if tune.Tuner.can_restore(path):
            logger.info("{}: resuming an earlier search", path)
            results = _fit(tune.Tuner.restore(path, trainable, resume_unfinished=True, resume_errored=True))
        if not results or (self.budget_seconds is None and len(results) < self.trials - 1):
            if results:  # Ray was killed while it saved its state
                logger.warning("{}: holds {} of {} trials; starting again", path, len(results), self.trials - 1)
            run_config = tune.RunConfig(name=name, storage_path=storage, verbose=0, callbacks=[_trial_callback()])
            config = self._tune_config(objective.problem.metric, folds)
            results = _fit(tune.Tuner(trainable, tune_config=config, run_config=run_config))
        # In the order of completion: a restored search returns them in another order.
        results.sort(key=lambda result: (result.metrics or {}).get("timestamp", math.inf))
        return [
            _to_trial(number, self.space, result.config, result.metrics or {}, error=result.error, folds=folds)
            for number, result in enumerate(results, start=1)
        ]

    def _tune_config(self, metric: Metric, folds: int) -> Any:
        from optuna.samplers import TPESampler
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        mode = "max" if metric.greater_is_better else "min"
        sampler = TPESampler(seed=self.seed)
        return tune.TuneConfig(
            search_alg=OptunaSearch(self._distributions, metric=SCORE, mode=mode, sampler=sampler),
            scheduler=ASHAScheduler(metric=SCORE, mode=mode, max_t=folds, grace_period=1, reduction_factor=2)
            if folds > 1
            else None,
            num_samples=self.trials - 1,
            max_concurrent_trials=self.concurrent,
            time_budget_s=self.budget_seconds,
        )


def check_ray_installed() -> None:
    """Check that Ray can be imported.

    Raises:
        ConfigError: Ray is not installed.
    """
    if find_spec("ray") is None:
        raise ConfigError("KIND: RaySearcher needs Ray", hint="pip install 'model-name[tuning]'")


def _fit(tuner: Any) -> list[Any]:
    """Run a search to its end; return the results of trials, without those that the budget left no time for."""
    return [result for result in tuner.fit() if result.config]


def run_trial(config: Params, objective: Objective, space: Space) -> None:
    """Run one trial in a worker process of Ray, with a report and a checkpoint after each fold."""
    from ray import tune

    # A search that was started by torchrun passes its environment on; the trial would wait for the other processes.
    os.environ.pop(TORCHRUN_ID, None)
    params = decode_params(config, space)
    scores = _load_scores(tune.get_checkpoint())
    for fold in range(len(scores), len(objective.folds)):
        scores.append(objective.score(params, fold))
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / CHECKPOINT_FILE).write_text(json.dumps(scores), encoding="utf-8")
            metrics = {SCORE: fmean(scores), "folds": list(scores)}
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(directory))


def decode_params(config: Mapping[str, Any], space: Space) -> Params:
    """Convert sampled values for the model."""
    return {name: dimension.decode(config[name]) for name, dimension in space.items()}


def _load_scores(checkpoint: Any) -> list[float]:
    if checkpoint is None:
        return []
    with checkpoint.as_directory() as directory:
        scores: list[float] = json.loads((Path(directory) / CHECKPOINT_FILE).read_text(encoding="utf-8"))
        return scores


def _to_trial(
    number: int, space: Space, config: Mapping[str, Any], metrics: Mapping[str, Any], *, error: Any, folds: int
) -> Trial:
    """Convert the result of a trial of Ray."""
    scores = tuple(metrics.get("folds", ()))
    reason = ""
    if error is not None:
        reason = f"fold {len(scores) + 1}: {_error_message(error)}"
    elif len(scores) < folds:
        reason = f"stopped after fold {len(scores)}: not promising" if scores else "its first fold was not done in time"
    seconds = round(float(metrics.get("time_total_s", 0.0)), 3)
    return Trial(number, decode_params(config, space), math.nan if reason else fmean(scores), scores, seconds, reason)


def _error_message(error: Exception) -> str:
    """Extract the message of an error in a trial, without the traceback that Ray includes in it."""
    name, _, message = str(error).strip().splitlines()[-1].partition(": ")
    return message if name.startswith(f"{errors.__name__}.") else f"{name}: {message}"


@dataclass
class TrialListener:
    """Collects completed trials in their order.

    Attributes:
        space: Search space.
        folds: Number of folds of a complete trial.
        report: Callback with all completed trials.
        completed: Trials that were completed.
    """

    space: Space
    folds: int
    report: Callable[[Sequence[Trial]], None]
    completed: list[Trial] = field(default_factory=list)

    def on_trial_complete(self, trial: Any) -> None:
        """Add a completed trial of Ray and report."""
        metrics, error = trial.last_result or {}, trial.get_error()
        number = len(self.completed) + 1
        self.completed.append(_to_trial(number, self.space, trial.config, metrics, error=error, folds=self.folds))
        self.report(self.completed)


_LISTENER: ContextVar[TrialListener] = ContextVar("listener")


@contextmanager
def _listen(listener: TrialListener) -> Generator[None]:
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def _trial_callback() -> Any:
    """Create the callback of Ray that calls the current listener.

    Ray pickles it with the search. A process that resumes the search has another listener, hence the context variable.
    """
    from ray import tune

    class TrialCallback(tune.Callback):  # type: ignore[misc]  # Ray has no types
        def __reduce__(self) -> Any:
            return _trial_callback, ()

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            _LISTENER.get().on_trial_complete(trial)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            _LISTENER.get().on_trial_complete(trial)

    return TrialCallback()


@contextmanager
def _ray() -> Generator[None]:
    """Connect to the Ray cluster of the environment, or start and stop one on this machine.

    Raises:
        DependencyError: The cluster of the environment cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The newer output of Ray draws boxes on stdout, which is reserved for the result.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if not os.environ.get(RAY_ADDRESS):
        # Otherwise Ray replaces 127.0.0.1 by the address of the network and listens there. Read when Ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    was_initialized = ray.is_initialized()
    if not was_initialized:
        options = {} if os.environ.get(RAY_ADDRESS) else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(logging_level="ERROR", log_to_driver=False, configure_logging=False, **options)
        except ConnectionError as err:
            hint = f"start it, or unset {RAY_ADDRESS}: then Ray runs on this machine"
            raise DependencyError(f"there is no Ray at {os.environ.get(RAY_ADDRESS)}", hint=hint) from err
    try:
        yield
    finally:
        if not was_initialized:
            ray.shutdown()
