"""Search the hyperparameters of a model on folds of the training part."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import mlflow
from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import override

from model_name.core import ranks
from model_name.core.models import AutoModel, ModelConfig
from model_name.errors import ConfigError
from model_name.io.progress import progress
from model_name.jobs.base import Job
from model_name.results import TuningResult
from model_name.training.search_log import log_search
from model_name.utils.search.objective import SearchProblem
from model_name.utils.searchers import AutoSearcher, GridSearcher, OptunaSearcher, RaySearcher


def _add_default_kind(raw: Any) -> Any:
    """Add the default `KIND: AutoSearcher`, which needs no search space, to a searcher without a kind."""
    return {"KIND": "AutoSearcher"} | raw if isinstance(raw, dict) else raw


AnySearcher = Annotated[
    Annotated[AutoSearcher | GridSearcher | OptunaSearcher | RaySearcher, Field(discriminator="KIND")],
    BeforeValidator(_add_default_kind),
]


class TuningJob(Job):
    """Search hyperparameters; the rows that the splitter holds out are not used.

    Attributes:
        model: Kind of the model, and the hyperparameters that are not searched.
        searcher: Search strategy: an `AutoSearcher` selects the members of an `AutoModel`, the others search a space of
            one kind of model.
    """

    KIND: Literal["TuningJob"] = "TuningJob"
    model: ModelConfig = Field(default_factory=AutoModel)
    searcher: AnySearcher = AutoSearcher()

    @model_validator(mode="after")
    def _check_searcher_fits_model(self) -> Self:
        kind, searcher = self.model.KIND, self.searcher.KIND
        if (kind == "AutoModel") == (searcher == "AutoSearcher"):
            return self
        if kind == "AutoModel":
            raise ValueError(f"{searcher} searches one kind of model; an AutoModel needs searcher.KIND: AutoSearcher")
        raise ValueError(
            f"{searcher} chooses the members of an AutoModel, not of {kind}; set model.KIND: AutoModel, or search "
            f"{kind} with searcher.KIND: OptunaSearcher and a space"
        )

    @override
    def run(self) -> TuningResult:
        """Search the hyperparameters and log the trials.

        Raises:
            ConfigError: The space does not fit the model, or several processes were started by torchrun.
            DataError: The table does not fit its schema, or has too few rows for the folds.
        """
        if ranks.world_size() > 1:
            hint = "run it once, without torchrun; RaySearcher spreads trials over processes"
            raise ConfigError("a search is one process, or each of several would do it", hint=hint)
        metric = self.resolved_metrics[0]
        split = self.read_split()
        with self.mlflow.run(f"tune {self.model.KIND}", experiment=self.name, tags={"job": self.KIND}) as run:
            with progress(f"tuning {self.model.KIND}") as report:
                problem = SearchProblem(self.model, self.schema_, split.train, metric, self.resolved_splitter)
                journal = Path(self.build) / "searches" / f"{self.name}.jsonl"
                search = self.searcher.search(problem, journal=journal, progress=report)
            mlflow.log_params(search.best_params)
            log_search(search)
        params = (
            self.model.with_params(**search.best_params).describe_params() if search.best_params else "the defaults"
        )
        outcome = f"{metric.name} {search.best.score:.4g} with {params}"
        self.alerts.notify("tuned", f"{self.name}, {len(search.trials)} trials: {outcome}")
        return TuningResult(
            run_id=run.info.run_id,
            kind=self.model.KIND,
            metric=metric.name,
            params=search.best_params,
            score=search.best.score,
            default_score=search.trials[0].score,
            trials=len(search.trials),
            failed=sum(bool(trial.reason) for trial in search.trials),
        )
