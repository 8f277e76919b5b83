"""Fit a model, measure it on held-out rows, prove its export and register it."""

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import mlflow
import pandas as pd
from loguru import logger
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError

from model_name.core import ranks
from model_name.core.documents import did_you_mean
from model_name.core.metrics import Scores, score_all
from model_name.core.models import FitContext, Model, model_kinds
from model_name.errors import ConfigError
from model_name.io.progress import progress
from model_name.io.registries import BUNDLE, Version
from model_name.jobs.base import Job, Parts, Result, loggable, table_hash
from model_name.jobs.exports import export_bundle, stamp
from model_name.serving.bundle import Bundle
from model_name.utils.signers import SchemaSigner, SignerKind


def build_model(raw: Any) -> Any:
    """Turn the config of a model into one, by its KIND; kinds of plugins count."""
    if not isinstance(raw, dict):
        return raw
    kinds = model_kinds()
    kind = kinds.get(str(raw.get("KIND")))
    if kind is None:
        raise ValueError(f"{raw.get('KIND')} is not a kind of model{did_you_mean(str(raw.get('KIND')), list(kinds))}")
    try:
        return kind.model_validate(raw)
    except ValidationError as err:  # a validator inside a validator would print its whole report
        raise ValueError("; ".join(sentence(found) for found in err.errors())) from err


def sentence(found: Mapping[str, Any]) -> str:
    """One finding of pydantic in a line."""
    place = ".".join(str(key) for key in found["loc"])
    return f"{place}: {found['msg']}".removeprefix(": ").replace("Value error, ", "")


ModelConfig = SerializeAsAny[Annotated[Model, BeforeValidator(build_model)]]


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
        signer: Where the signature comes from.
        warm_start: The version whose weights the fit begins from: an alias, a number, a semantic version or `latest`.
    """

    KIND: Literal["TrainingJob"] = "TrainingJob"
    model: ModelConfig = Field(default_factory=lambda: build_model({"KIND": "BoostedTrees"}))
    params: dict[str, Any] = {}
    signer: Annotated[SignerKind, Field(discriminator="KIND")] = SchemaSigner()
    warm_start: str | None = None

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
        metrics = self.measures
        earlier = self._earlier()
        parts = self.read_parts()
        model = self.configured()
        with self.mlflow.run(f"train {model.KIND}", experiment=self.name, tags={"job": self.KIND}) as run:
            self._log_inputs(parts, model, earlier)
            seconds = self._fit(model, parts, earlier)
            scores = score_all(metrics, parts.test[self.schema_.target.name].to_numpy(), model.outputs(parts.test))
            mlflow.log_metrics(loggable(scores))
            version, bundle = self._register(model, parts, scores, run.info.run_id)
        words = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        self.alerts.notify("trained", f"{version.title}, a {model.KIND}: {words}")
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
            fit_seconds=seconds,
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

    def _follow(self) -> NoReturn:
        """Take part in the fit of the first process and leave quietly: it tells what came of it."""
        logger.disable("model_name")
        earlier = self._earlier()
        parts = self.read_parts()
        self.configured().fit(self.schema_, parts.train, self._context(parts, earlier))
        raise SystemExit(0)

    def _earlier(self) -> Version | None:
        return self.registry.resolve(self.warm_start) if self.warm_start else None

    def _log_inputs(self, parts: Parts, model: Model, earlier: Version | None) -> None:
        target = self.schema_.target.name
        mlflow.log_params({"kind": model.KIND} | model.get_params())
        if earlier is not None:
            mlflow.log_param("warm_start", earlier.semver)
            mlflow.set_tag("warm_start", earlier.title)
        mlflow.log_input(self.table.lineage("train", parts.train, target), context="training")
        mlflow.log_input(self.table.lineage("test", parts.test, target), context="testing")
        mlflow.log_dict(self.model_dump(mode="json", by_alias=True), "config.json")

    def _fit(self, model: Model, parts: Parts, earlier: Version | None) -> float:
        """Fit with checkpoints that a run of the same recipe on the same rows will find."""
        context = self._context(parts, earlier)
        if context.checkpoints and context.checkpoints.is_dir() and any(context.checkpoints.iterdir()):
            words = "an earlier fit was interrupted; going on behind its last whole checkpoint"
            logger.info("{}: {}", context.checkpoints, words)
        logger.info("training {} on {:,} rows", model.KIND, len(parts.train))
        start = time.monotonic()
        with progress(f"training {model.KIND}") as report:
            model.fit(self.schema_, parts.train, replace(context, progress=report))
        if context.checkpoints:
            shutil.rmtree(context.checkpoints, ignore_errors=True)
        seconds = time.monotonic() - start
        logger.info("fitted {} on {:,} rows in {:.1f} s", model.KIND, len(parts.train), seconds)
        return round(seconds, 3)

    def _context(self, parts: Parts, earlier: Version | None) -> FitContext:
        return FitContext(
            checkpoints=Path(self.build) / "checkpoints" / f"{self.name}-{table_hash(parts.train)}",
            has_time_order=self._is_in_order(parts.train),
            warm_start=self.registry.load(earlier.version) if earlier else None,
        )

    def _is_in_order(self, table: pd.DataFrame) -> bool:
        """Whether the rows come in the order of time."""
        return self.schema_.time is not None and bool(table[self.schema_.time].is_monotonic_increasing)

    def _register(self, model: Model, parts: Parts, scores: Scores, run_id: str) -> tuple[Version, Path]:
        """Export and prove the bundle, then register; a version whose files cannot be stored is withdrawn."""
        with tempfile.TemporaryDirectory(prefix="model-name-") as folder:
            draft = Path(folder) / BUNDLE
            draft.mkdir()
            bundle = export_bundle(
                model, draft, parts.train, parts.test, name=self.name, run_id=run_id, metrics=loggable(scores)
            )
            sample = parts.test.head(5)
            signature = self.signer.sign(self.schema_, sample, model.predict(sample))
            uri = self.registry.save(model, signature, sample[list(self.schema_.inputs)])
            version = self.registry.register(model, uri, run_id, tags={"table": self.table.path})
            try:
                return version, self._store(bundle, version)
            except BaseException:
                self.registry.withdraw(version)
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
