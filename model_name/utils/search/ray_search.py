"""Search by Ray Tune: many trials at once, on as many machines as Ray has, the hopeless ones stopped early.

Costs about two seconds a trial on a small machine, so that it is worth it where a trial takes minutes or GPUs are many.
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

import pandas as pd
from loguru import logger
from pydantic import Field

from model_name import errors
from model_name.core.metrics import Metric
from model_name.core.models import Model
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, DataError, DependencyError
from model_name.utils.search.spaces import Params, Space, default_params, check_space
from model_name.utils.search.trials import Objective, SearchResult, Trial, best_trial
from model_name.utils.searchers import OptunaSearcher, ProgressCallback, progress_message
from model_name.utils.splitters import Splitter

SCORE = "score"
STATE = "folds.json"
STORAGE = "ray"
ADDRESS = "RAY_ADDRESS"  # of a cluster; without it Ray starts on this machine
TORCHRUN = "TORCHELASTIC_RUN_ID"


class RaySearcher(OptunaSearcher):
    """Proposals by Optuna, in parallel; ASHA (Li et al. 2020) stops after each fold the trials that are not promising.

    The first trial is the model's own hyperparameters, judged in this process. A killed search goes on with what Ray
    had written down, as it does every ten seconds; with another budget or `trials` it begins anew.

    Attributes:
        concurrent: Trials at once; as many as there is room for by default.
        cpus_per_trial: Processors of a trial.
        gpus_per_trial: GPUs of a trial; a fraction shares one. Where it is not set, a pipeline sets it by its profile.
        storage: Where Ray keeps its state, a folder or a URL that all machines reach; beside the journal by default.
    """

    # Ray keeps budget and number of trials itself, and goes on with those that a search began with.
    EXTENT: ClassVar[frozenset[str]] = frozenset({"concurrent", "cpus_per_trial", "gpus_per_trial", "storage"})

    KIND: Literal["RaySearcher"] = "RaySearcher"  # type: ignore[assignment]  # it is another kind of the same strategy
    concurrent: int | None = Field(None, ge=1)
    cpus_per_trial: float = Field(1.0, gt=0)
    gpus_per_trial: float = Field(0.0, ge=0)
    storage: str = ""

    def search(
        self,
        model: Model,
        schema: TableSchema,
        table: pd.DataFrame,
        *,
        metric: Metric,
        splitter: Splitter,
        journal: Path | None = None,
        progress: ProgressCallback | None = None,
    ) -> SearchResult:
        """As of `Searcher`; what the journal is to the others, Ray's own storage is to it.

        Raises:
            ConfigError: Also where Ray is not installed.
            DependencyError: There is no Ray at the address of the environment.
        """
        check_ray_installed()
        check_space(self.space, model)
        metric.check_task(schema.target.task)
        bench = Objective(model, schema, table, metric, tuple(splitter.folds(table, schema, self.folds)))
        first = bench.evaluate(0, default_params(self.space, model))

        def tell(ended: Sequence[Trial]) -> None:
            if progress is not None:
                progress(1 + len(ended), self.trials, progress_message([first, *ended], metric))

        tell([])
        with _ray(), _listening(TrialListener(self.space, len(bench.splits), tell)):
            trials = [first, *self._run(bench, self._place(journal), self.fingerprint(bench, splitter))]
        best = best_trial(trials, metric)
        if best is None:
            raise DataError(f"all {len(trials)} trials failed; the first one: {trials[0].reason}")
        return SearchResult(tuple(trials), best, metric.name)

    def _place(self, journal: Path | None) -> str:
        if self.storage:
            return self.storage
        if journal is None:
            return tempfile.mkdtemp(prefix="model-name-ray-")
        return str((journal.parent / STORAGE).resolve())

    def _run(self, bench: Objective, storage: str, fingerprint: str) -> list[Trial]:
        """The trials from 1 on."""
        import optuna
        from ray import tune

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        name = f"search-{fingerprint[:16]}"
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, bench=bench, space=self.space),
            {"cpu": self.cpus_per_trial, "gpu": self.gpus_per_trial},
        )
        folds, path = len(bench.splits), f"{storage.rstrip('/')}/{name}"
        begun: list[Any] = []
        if tune.Tuner.can_restore(path):
            logger.info("{}: an earlier search was interrupted, or done; going on with it", path)
            begun = _begun(tune.Tuner.restore(path, trainable, resume_unfinished=True, resume_errored=True))
        if not begun or (self.budget_seconds is None and len(begun) < self.trials - 1):
            if begun:  # Ray was killed while it wrote its state down
                logger.warning("{}: holds {} of {} trials; beginning anew", path, len(begun), self.trials - 1)
            run_config = tune.RunConfig(name=name, storage_path=storage, verbose=0, callbacks=[_teller()])
            config = self._tune_config(bench.metric, folds)
            begun = _begun(tune.Tuner(trainable, tune_config=config, run_config=run_config))
        # In the order of their ends: a restored search shuffles them.
        begun.sort(key=lambda found: (found.metrics or {}).get("timestamp", math.inf))
        return [
            _as_trial(number, self.space, found.config, found.metrics or {}, error=found.error, folds=folds)
            for number, found in enumerate(begun, start=1)
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
    """Say how to get Ray where it is not.

    Raises:
        ConfigError: It is not installed.
    """
    if find_spec("ray") is None:
        raise ConfigError("KIND: RaySearcher needs Ray", hint="pip install 'model-name[tuning]'")


def _begun(tuner: Any) -> list[Any]:
    """The trials of a search that is run to its end; those that the budget left no time for are not among them."""
    return [found for found in tuner.fit() if found.config]


def run_trial(config: Params, bench: Objective, space: Space) -> None:
    """One trial, in a process of Ray's: fold after fold, each one reported and kept."""
    from ray import tune

    # Where the search was started by torchrun, a trial is none of its processes: it would wait for the others.
    os.environ.pop(TORCHRUN, None)
    params = decode_params(config, space)
    scores = _scores_so_far(tune.get_checkpoint())
    for fold in range(len(scores), len(bench.splits)):
        scores.append(bench.score(params, fold))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / STATE).write_text(json.dumps(scores), encoding="utf-8")
            report = {SCORE: fmean(scores), "folds": list(scores)}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


def decode_params(config: Mapping[str, Any], space: Space) -> Params:
    """What a sampler proposed, as the model gets it."""
    return {name: dimension.decode(config[name]) for name, dimension in space.items()}


def _scores_so_far(checkpoint: Any) -> list[float]:
    if checkpoint is None:
        return []
    with checkpoint.as_directory() as folder:
        scores: list[float] = json.loads((Path(folder) / STATE).read_text(encoding="utf-8"))
        return scores


def _as_trial(
    number: int, space: Space, config: Mapping[str, Any], metrics: Mapping[str, Any], *, error: Any, folds: int
) -> Trial:
    """What Ray tells of a trial."""
    scores = tuple(metrics.get("folds", ()))
    reason = ""
    if error is not None:
        reason = f"fold {len(scores) + 1}: {_words_of(error)}"
    elif len(scores) < folds:
        reason = f"stopped after fold {len(scores)}: not promising" if scores else "its first fold was not done in time"
    seconds = round(float(metrics.get("time_total_s", 0.0)), 3)
    return Trial(number, decode_params(config, space), math.nan if reason else fmean(scores), scores, seconds, reason)


def _words_of(error: Exception) -> str:
    """What went wrong in a trial, without the traceback that Ray makes part of the message."""
    name, _, words = str(error).strip().splitlines()[-1].partition(": ")
    return words if name.startswith(f"{errors.__name__}.") else f"{name}: {words}"


@dataclass
class TrialListener:
    """Hears of each trial that ended, in their order.

    Attributes:
        space: Of the search.
        folds: How many a whole trial has.
        tell: Called with all that ended so far.
        ended: These.
    """

    space: Space
    folds: int
    tell: Callable[[Sequence[Trial]], None]
    ended: list[Trial] = field(default_factory=list)

    def hear(self, trial: Any) -> None:
        """Take note of a trial of Ray's."""
        found, error = trial.last_result or {}, trial.get_error()
        number = len(self.ended) + 1
        self.ended.append(_as_trial(number, self.space, trial.config, found, error=error, folds=self.folds))
        self.tell(self.ended)


_LISTENER: ContextVar[TrialListener] = ContextVar("listener")


@contextmanager
def _listening(listener: TrialListener) -> Generator[None]:
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def _teller() -> Any:
    """Tells the listener. Ray keeps it with the search, which knows the listener of a later process no more."""
    from ray import tune

    class Teller(tune.Callback):  # type: ignore[misc]  # Ray has no types
        def __reduce__(self) -> Any:
            return _teller, ()

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            _LISTENER.get().hear(trial)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            _LISTENER.get().hear(trial)

    return Teller()


@contextmanager
def _ray() -> Generator[None]:
    """Ray, started here unless an address says where it is, and stopped again.

    Raises:
        DependencyError: There is none at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The newer output draws boxes on stdout, which holds the result alone.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if not os.environ.get(ADDRESS):
        # Else it takes the address of the network for 127.0.0.1, and listens there. It is read when Ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    was_up = ray.is_initialized()
    if not was_up:
        options = {} if os.environ.get(ADDRESS) else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(logging_level="ERROR", log_to_driver=False, configure_logging=False, **options)
        except ConnectionError as err:
            hint = f"start it, or unset {ADDRESS}: then Ray runs on this machine"
            raise DependencyError(f"there is no Ray at {os.environ.get(ADDRESS)}", hint=hint) from err
    try:
        yield
    finally:
        if not was_up:
            ray.shutdown()
