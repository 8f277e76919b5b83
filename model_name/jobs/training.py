"""Fit a model, measure it on held-out rows, prove its export and register it."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import mlflow
import pandas as pd
from loguru import logger
from pydantic import Field, ValidationError

from model_name.core import dataframes, ranks
from model_name.core.decisions.calibration import Calibration, require
from model_name.core.decisions.conformal import Conformal
from model_name.core.decisions.decision import Costs
from model_name.core.metrics import Scores, score_all
from model_name.core.models import AutoModel, Model, ModelConfig
from model_name.core.models.model_kinds import sentence
from model_name.core.schemas import Outputs
from model_name.core.versions import Ref
from model_name.errors import ConfigError
from model_name.io.progress import progress
from model_name.io.registries import BUNDLE, Version
from model_name.jobs.base import FIT_SECONDS, SHOWN_HASH, Job, Parts, Result, loggable
from model_name.jobs.searches import TUNING_RUN, log_search
from model_name.serving.bundle import MANIFEST, Bundle
from model_name.training.compression import Export
from model_name.training.export import export_bundle, stamp
from model_name.training.trainer import Fitter, Learnt
from model_name.utils.search.automl import AutoSearcher
from model_name.utils.search.trials import SearchResult
from model_name.utils.signers import SchemaSigner, SignerKind


class TrainingResult(Result):
    """What was trained.

    Attributes:
        version: Its number in MLflow.
        semver: Its semantic version.
        run_id: Its run.
        kind: The kind of model.
        params: Its hyperparameters.
        metrics: What it scored on the held-out rows.
        train_rows: How many rows it was fitted on.
        test_rows: How many were held out.
        bundle: The folder of its bundle.
        fit_seconds: How long the fit took.
    """

    version: str
    semver: str
    run_id: str
    kind: str
    params: dict[str, Any]
    metrics: dict[str, float]
    train_rows: int
    test_rows: int
    bundle: str
    fit_seconds: float


class TrainingJob(Job):
    """Fit a model on the training part of a table, measure it on the rest and register what was measured.

    Started by torchrun, all processes fit together, and the first one does the rest.

    Attributes:
        model: The kind and its hyperparameters.
        params: Hyperparameters that a search found; they win over those of `model`.
        tuning_run: The run of that search, for the report.
        searcher: Chooses the members of an `AutoModel` for which no search has done so yet.
        signer: Where the signature comes from.
        interval: Which prediction intervals a regression is given; null for none. Ignored where there are classes.
        costs: What wrong answers of a binary target cost; it is answered so that they cost least.
        calibration: How probabilities are made to mean what they say.
        export: How small the bundle is made, and may be.
        warm_start: The version whose weights the fit begins from: an alias, a number, a semantic version or `latest`.
    """

    KIND: Literal["TrainingJob"] = "TrainingJob"
    model: ModelConfig = Field(default_factory=AutoModel)
    params: dict[str, Any] = {}
    tuning_run: str = ""
    searcher: AutoSearcher = AutoSearcher()
    signer: Annotated[SignerKind, Field(discriminator="KIND")] = SchemaSigner()
    interval: Conformal | None = Conformal()
    costs: Costs | None = None
    calibration: Calibration = "none"
    export: Export = Export()
    warm_start: Ref | None = None

    def run(self) -> TrainingResult:
        """As of `Job`.

        Raises:
            ConfigError: A metric or a hyperparameter does not fit, or the version to begin from.
            NotFoundError: There is no version to begin from.
            DataError: The table does not fit its schema or cannot be split.
            ExportError: The exported graph does not answer like the model; nothing is registered then.
            PreemptedError: SIGTERM; the next run of the same config goes on.
        """
        if not ranks.is_first():
            self._follow()
        _ = self.measures  # one that does not fit is cheaper to learn of before a table is read
        self._check_decision()
        self.export.require(self.model)
        earlier = self._earlier()
        parts = self.read_parts()
        model, search = self._chosen(self.configured(), parts)
        tags = {"job": self.KIND} | ({TUNING_RUN: self.tuning_run} if self.tuning_run else {})
        with self.mlflow.run(f"train {model.KIND}", experiment=self.name, tags=tags) as run:
            self._log_inputs(parts, model, earlier)
            if search is not None:
                log_search(search)
            learnt = self._learn(model, parts.train, earlier)
            scores = self._scores(parts, learnt.model.outputs(parts.test))
            mlflow.log_metrics(loggable(scores) | {FIT_SECONDS: learnt.seconds})
            version, bundle = self._register(learnt, parts, scores, run.info.run_id)
        words = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        self.alerts.notify("trained", f"{version.title} ({model.KIND}): {words}")
        return TrainingResult(
            version=version.version,
            semver=version.semver,
            run_id=version.run_id,
            kind=model.KIND,
            params=model.get_params(),
            metrics=scores,
            train_rows=len(parts.train),
            test_rows=len(parts.test),
            bundle=str(bundle),
            fit_seconds=learnt.seconds,
        )

    @property
    def needs_mlflow(self) -> bool:
        """As of `Job`; of processes that fit together only the first one records."""
        return ranks.is_first() or self.warm_start is not None

    def configured(self) -> Model:
        """The unfitted model, with the parameters of the search and the job's seed.

        Raises:
            ConfigError: A parameter is unknown or of a wrong type.
        """
        given = self.model.model_fields_set
        seed = {} if "random_state" in given else {"random_state": self.seed}
        try:
            return self.model.with_params(**seed, **self.params)
        except ValidationError as err:
            raise ConfigError(f"job.params do not fit {self.model.KIND}: {sentence(err.errors()[0])}") from err

    def _chosen(self, model: Model, parts: Parts) -> tuple[Model, SearchResult | None]:
        """The model; the members of an `AutoModel` are searched, if that was not done before."""
        if not isinstance(model, AutoModel) or model.members:
            return model, None
        if ranks.world() > 1:
            hint = "search in one process (a TuningJob), then train with its params; or name one kind of model"
            raise ConfigError("the members of an AutoModel cannot be searched by several processes", hint=hint)
        with progress("choosing the members") as report:
            found = self.searcher.search(
                model,
                self.schema_,
                parts.train,
                metric=self.measures[0],
                splitter=self.split_by,
                journal=Path(self.build) / "searches" / f"{self.name}.jsonl",
                progress=report,
            )
        return model.with_params(**found.best_params), found

    def _check_decision(self) -> None:
        task = self.schema_.target.task
        require(self.calibration, task)
        if self.costs is not None and task != "binary":
            raise ConfigError(f"job.costs choose the threshold of a binary target, this one is a {task}")

    def _follow(self) -> NoReturn:
        """Take part in the fits of the first process and leave quietly: it tells what came of them."""
        logger.disable("model_name")
        earlier = self._earlier()
        parts = self.read_parts()
        self._learn(self._chosen(self.configured(), parts)[0], parts.train, earlier)
        raise SystemExit(0)

    def _earlier(self) -> Version | None:
        return self.registry.resolve(self.warm_start) if self.warm_start else None

    def _log_inputs(self, parts: Parts, model: Model, earlier: Version | None) -> None:
        target = self.schema_.target.name
        mlflow.log_params({"kind": model.KIND} | model.described())
        if earlier is not None:
            mlflow.log_param("warm_start", earlier.semver)
            mlflow.set_tag("warm_start", earlier.title)
        mlflow.log_input(self.table.lineage("train", parts.train, target), context="training")
        mlflow.log_input(self.table.lineage("test", parts.test, target), context="testing")
        mlflow.log_dict(self.model_dump(mode="json", by_alias=True), "config.json")

    def _learn(self, model: Model, train: pd.DataFrame, earlier: Version | None) -> Learnt:
        fitter = Fitter(self.schema_, self.split_by, self.interval, self.costs, self.calibration, self.export)
        checkpoints = Path(self.build) / "checkpoints" / f"{self.name}-{dataframes.fingerprint(train)[:SHOWN_HASH]}"
        return fitter.learn(model, train, checkpoints, self.registry.load(earlier.version) if earlier else None)

    def _scores(self, parts: Parts, outputs: Outputs) -> Scores:
        """What outputs for the held-out rows score."""
        return score_all(self.measures, parts.test[self.schema_.target.name].to_numpy(), outputs)

    def _register(self, learnt: Learnt, parts: Parts, scores: Scores, run_id: str) -> tuple[Version, Path]:
        """Export and prove the bundle, then register; a version whose files cannot be stored is withdrawn."""
        model = learnt.model
        with tempfile.TemporaryDirectory(prefix="model-name-") as folder:
            draft = Path(folder) / BUNDLE
            draft.mkdir()
            bundle = export_bundle(
                model, draft, parts.train, parts.test, name=self.name, run_id=run_id, metrics=loggable(scores)
            )
            bundle = self.export.shrink(
                bundle, model, learnt.whole, parts.test, lambda found: loggable(self._scores(parts, found))
            )
            sample = parts.test.head(5)
            signature = self.signer.sign(self.schema_, sample, model.predict(sample))
            uri = self.registry.save(model, signature, sample[list(self.schema_.inputs)])
            tags = {"table": self.table.path}
            version = self.registry.register(model, uri, run_id, tags=tags, export=self.export.recipe)
            try:
                place = self._store(bundle, version)
                self.registry.attach_manifest(uri, place / MANIFEST)
                return version, place
            except BaseException:
                self.registry.delete_version(version)
                raise

    def _store(self, bundle: Bundle, version: Version) -> Path:
        """Give the bundle its version, and keep it in the run and below `build`."""
        stamp(bundle, semver=version.semver, version=version.version)
        mlflow.log_artifacts(str(bundle.directory), BUNDLE)
        place = Path(self.build) / "bundles" / self.name / version.version
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(bundle.directory, place)
        logger.info("registered {}", version.title)
        return place
