"""Fit a model, score it on held-out rows, export it as a bundle, check parity and register it."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import mlflow
from pydantic import Field, ValidationError
from typing_extensions import override

from model_name.core import dataframes, ranks
from model_name.core.decisions.calibration import CalibrationMethod, check_calibration
from model_name.core.decisions.conformal import SplitConformal
from model_name.core.decisions.decision import Costs
from model_name.core.metrics import Scores, score_all
from model_name.core.models import AutoModel, Model, ModelConfig
from model_name.core.models.factory import format_validation_error
from model_name.core.schemas import Outputs
from model_name.core.versions import Ref
from model_name.errors import ConfigError
from model_name.io.progress import progress
from model_name.io.registries import BUNDLE, Version
from model_name.jobs.base import FINGERPRINT_DIGITS, Job, TrainTestSplit
from model_name.results import FIT_SECONDS_METRIC, TUNING_RUN_TAG, TrainingResult, defined_metrics
from model_name.serving.bundle import Bundle
from model_name.training.compression import CompressionConfig, check_prunable, compress
from model_name.training.export import export_bundle
from model_name.training.registration import register_version
from model_name.training.search_log import log_search
from model_name.training.signing import load_signing_key
from model_name.training.trainer import FitResult, Trainer, run_worker
from model_name.utils.search.automl import AutoSearcher
from model_name.utils.search.objective import SearchProblem
from model_name.utils.search.trials import SearchResult
from model_name.utils.signers import SchemaSigner, SignerKind


class TrainingJob(Job):
    """Fit a model on the training part of a table, score it on the held-out rows and register the scored model.

    Under torchrun all processes fit together, and the main process does the rest.

    Attributes:
        model: Kind of model and its hyperparameters.
        params: Hyperparameters from a search; they override those of `model`.
        tuning_run: MLflow run ID of that search, for the report.
        searcher: Search for the members of an `AutoModel` that has none.
        signer: Source of the model signature.
        interval: Prediction intervals of a regression; null for none. Ignored for a classification.
        costs: Costs of the errors of a binary target; the decision threshold minimizes them.
        calibration: Calibration of the predicted probabilities.
        export: Compression of the bundle, its maximum size, and whether it is signed.
        warm_start: Version whose weights the fit starts from: an alias, a number, a semantic version or `latest`.
    """

    KIND: Literal["TrainingJob"] = "TrainingJob"
    model: ModelConfig = Field(default_factory=AutoModel)
    params: dict[str, Any] = {}
    tuning_run: str = ""
    searcher: AutoSearcher = AutoSearcher()
    signer: Annotated[SignerKind, Field(discriminator="KIND")] = SchemaSigner()
    interval: SplitConformal | None = SplitConformal()
    costs: Costs | None = None
    calibration: CalibrationMethod = "none"
    export: CompressionConfig = CompressionConfig()
    warm_start: Ref | None = None

    @override
    def run(self) -> TrainingResult:
        """Train and register a version.

        Raises:
            ConfigError: A metric, a hyperparameter or the version to start from does not fit.
            NotFoundError: The version to start from does not exist.
            DataError: The table does not fit its schema or cannot be split.
            ExportError: The exported graph differs from the model; nothing is registered then.
            PreemptedError: SIGTERM was received; the next run of the same config continues.
        """
        if not ranks.is_main_process():
            run_worker(self._fit_on_worker)
        self._check_config()
        base = self._base_version()
        split = self.read_split()
        model, search = self._choose_members(self.build_unfitted(), split)
        tags = {"job": self.KIND} | ({TUNING_RUN_TAG: self.tuning_run} if self.tuning_run else {})
        with self.mlflow.run(f"train {model.KIND}", experiment=self.name, tags=tags) as run:
            self._log_inputs(split, model, base)
            if search is not None:
                log_search(search)
            fit = self._fit(model, split, base)
            scores = self._score(split, fit.model.outputs(split.test))
            mlflow.log_metrics(defined_metrics(scores) | {FIT_SECONDS_METRIC: fit.seconds})
            with tempfile.TemporaryDirectory(prefix="model-name-") as folder:
                bundle = self._export(fit, split, scores, run.info.run_id, Path(folder))
                version, directory = self._register(fit.model, bundle, split)
        summary = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        self.alerts.notify("trained", f"{version.title} ({model.KIND}): {summary}")
        return TrainingResult(
            version=version.version,
            semver=version.semver,
            run_id=version.run_id,
            kind=model.KIND,
            params=model.get_params(),
            metrics=scores,
            train_rows=len(split.train),
            test_rows=len(split.test),
            bundle=str(directory),
            fit_seconds=fit.seconds,
        )

    @property
    @override
    def needs_mlflow(self) -> bool:
        """Whether MLflow must be reachable; a worker process of torchrun only loads the version to start from."""
        return ranks.is_main_process() or self.warm_start is not None

    def build_unfitted(self) -> Model:
        """Build the unfitted model with the parameters of the search and the job's seed.

        Raises:
            ConfigError: A parameter is unknown or of a wrong type.
        """
        seed = {} if "random_state" in self.model.model_fields_set else {"random_state": self.seed}
        try:
            return self.model.with_params(**seed, **self.params)
        except ValidationError as err:
            reason = format_validation_error(err.errors()[0])
            raise ConfigError(f"job.params do not fit {self.model.KIND}: {reason}") from err

    def _check_config(self) -> None:
        """Check the config as far as possible without the table, before reading the table."""
        _ = self.resolved_metrics
        task = self.schema_.target.task
        check_calibration(self.calibration, task)
        if self.costs is not None and task != "binary":
            raise ConfigError(f"job.costs choose the threshold of a binary target, this one is a {task}")
        check_prunable(self.model, self.export)
        if self.export.sign:
            load_signing_key()

    def _base_version(self) -> Version | None:
        return self.registry.resolve(self.warm_start) if self.warm_start else None

    def _choose_members(self, model: Model, split: TrainTestSplit) -> tuple[Model, SearchResult | None]:
        """Search the members of an `AutoModel` that has none; return any other model as it is."""
        if not isinstance(model, AutoModel) or model.members:
            return model, None
        if ranks.world_size() > 1:
            hint = "search in one process (a TuningJob), then train with its params; or name one kind of model"
            raise ConfigError("the members of an AutoModel cannot be searched by several processes", hint=hint)
        with progress("choosing the members") as report:
            problem = SearchProblem(model, self.schema_, split.train, self.resolved_metrics[0], self.resolved_splitter)
            journal = Path(self.build) / "searches" / f"{self.name}.jsonl"
            search = self.searcher.search(problem, journal=journal, progress=report)
        return model.with_params(**search.best_params), search

    def _fit_on_worker(self) -> None:
        """Take part in the fit of the main process."""
        base = self._base_version()
        split = self.read_split()
        model, _ = self._choose_members(self.build_unfitted(), split)
        self._fit(model, split, base)

    def _fit(self, model: Model, split: TrainTestSplit, base: Version | None) -> FitResult:
        trainer = Trainer(
            self.schema_, self.resolved_splitter, self.interval, self.costs, self.calibration, self.export
        )
        rows = dataframes.fingerprint(split.train)[:FINGERPRINT_DIGITS]
        return trainer.fit(
            model,
            split.train,
            split.test,
            lambda outputs: defined_metrics(self._score(split, outputs)),
            checkpoints=Path(self.build) / "checkpoints" / f"{self.name}-{rows}",
            base_model=self.registry.load(base.version) if base else None,
        )

    def _score(self, split: TrainTestSplit, outputs: Outputs) -> Scores:
        """Compute the metrics of outputs for the held-out rows."""
        return score_all(self.resolved_metrics, split.test[self.schema_.target.name].to_numpy(), outputs)

    def _log_inputs(self, split: TrainTestSplit, model: Model, base: Version | None) -> None:
        target = self.schema_.target.name
        mlflow.log_params({"kind": model.KIND} | model.describe_params())
        if base is not None:
            mlflow.log_param("warm_start", base.semver)
            mlflow.set_tag("warm_start", base.title)
        mlflow.log_input(self.table.lineage("train", split.train, target), context="training")
        mlflow.log_input(self.table.lineage("test", split.test, target), context="testing")
        mlflow.log_dict(self.model_dump(mode="json", by_alias=True), "config.json")

    def _export(self, fit: FitResult, split: TrainTestSplit, scores: Scores, run_id: str, folder: Path) -> Bundle:
        """Export the model as a bundle below `folder`, check its parity, and compress it."""
        directory = folder / BUNDLE
        directory.mkdir()
        bundle = export_bundle(
            fit.model,
            directory,
            split.train,
            split.test,
            name=self.name,
            run_id=run_id,
            metrics=defined_metrics(scores),
        )
        return compress(
            bundle,
            self.export,
            split.test,
            lambda outputs: defined_metrics(self._score(split, outputs)),
            pruning=fit.pruning,
        )

    def _register(self, model: Model, bundle: Bundle, split: TrainTestSplit) -> tuple[Version, Path]:
        return register_version(
            self.registry,
            model,
            bundle,
            split.test,
            signer=self.signer,
            compression=self.export,
            table=self.table.path,
            bundles=Path(self.build) / "bundles" / self.name,
            signing_key=load_signing_key() if self.export.sign else None,
        )
