"""Predict a table of any size from a bundle: streamed, resumable, in bounded memory."""

from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from loguru import logger
from pydantic import Field
from typing_extensions import override

from model_name.batch_inference.chunks import default_threads, map_ordered, split_into_chunks
from model_name.batch_inference.predictor import BatchPredictor
from model_name.core import dataframes
from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import LaxTuple
from model_name.core.schemas.validation import CheckReport
from model_name.core.versions import CHAMPION, Ref
from model_name.errors import ConfigError, DataError
from model_name.io.configs import exists
from model_name.io.datasets import BATCH_ROWS, ParquetReader, ParquetWriter
from model_name.io.partitioned_output import PartitionedOutput
from model_name.io.progress import ProgressCallback, progress
from model_name.io.storage import download_bundle, file_version
from model_name.jobs.base import FINGERPRINT_DIGITS, Job
from model_name.results import InferenceResult
from model_name.serving.bundle import Bundle
from model_name.serving.bundle_signature import make_verifier
from model_name.serving.dataplane import DataPlane

WARN_MISSING_SHARE = 0.5  # share of null values of a lag column above which a warning is logged


class InferenceJob(Job):
    """Predict every row of the table. A killed run resumes after its last complete part.

    Rows are validated against the schema like those of a training table, with one exception: duplicate keys are not
    detected, because that would need all keys in memory.

    A run resumes only if table, schema, bundle, `keep`, `interval` and `part_rows` are those of the killed run.
    Otherwise, and after a complete run, it starts from the first row. `batch_rows` and `threads` may change, for
    example after a run that was out of memory.

    Attributes:
        ref: Version to predict with: an alias, a number, a semantic version or `latest`.
        bundle: Folder or URL of a bundle to use instead of a version of the registry.
        outputs: Folder or URL to write to; `BUILD/predictions/NAME` by default.
        keep: Columns to copy to the output beside the predictions; the key by default, or else the row number.
        batch_rows: Number of rows of one forward pass.
        part_rows: Number of rows of one output file.
        threads: Number of concurrent forward passes; 0 for one per CPU.
        interval: Level of the prediction intervals of a regression, for columns `lower` and `upper`.
    """

    KIND: Literal["InferenceJob"] = "InferenceJob"
    ref: Ref = CHAMPION
    bundle: str = ""
    outputs: str = ""
    keep: LaxTuple[str] = ()
    batch_rows: int = Field(BATCH_ROWS, gt=0)
    part_rows: int = Field(1_000_000, gt=0)
    threads: int = Field(0, ge=0)
    interval: float | None = Field(None, gt=0, lt=1)

    @property
    @override
    def needs_mlflow(self) -> bool:
        return not self.bundle

    @override
    def run(self) -> InferenceResult:
        """Predict the rows that are not predicted yet.

        Raises:
            ConfigError: The version was trained on other inputs, or the output folder holds foreign files.
            DataError: The table is empty, or a row does not fit the schema; complete parts are kept.
            NotFoundError: The version or the table does not exist.
            PreemptedError: SIGTERM was received; the next run of the same config resumes.
            StorageError: The disk is full; no half-written part is left.
        """
        if self._needs_lags():
            path = self._write_table_with_lags()
            result = self.model_copy(update={"table": ParquetReader(path=path)}).run()
            return result.model_copy(update={"findings": (*self._lag_warnings(path), *result.findings)})
        # A forward pass has one thread, because several of them run concurrently instead.
        bundle = Bundle.load(self._bundle_folder(), threads=1, verifier=make_verifier())
        predictor = self._build_predictor(bundle)
        output = PartitionedOutput(self.outputs or f"{self.build}/predictions/{self.name}")
        report = output.resume(self._resume_state(bundle))
        resumed = report.kept
        if report.rows:
            logger.info("{}: resuming after {:,} rows", output.url, report.rows)
        semver = bundle.manifest.semver
        with progress(f"predicting with {semver}") as on_progress:
            self._write_parts(output, predictor, report, on_progress)
        if not report.rows:
            raise DataError(f"{self.table.path}: the table is empty: it has no rows", hint="check the path")
        output.mark_complete()
        for message in report.messages():
            logger.warning("{}: {}", self.table.path, message)
        self.alerts.notify("predicted", f"{report.kept:,} rows of {self.table.path} by {self.name} {semver}")
        return InferenceResult(
            outputs=output.url,
            semver=semver,
            rows=report.rows,
            predicted=report.kept,
            resumed=resumed,
            findings=tuple(report.messages()),
        )

    def _needs_lags(self) -> bool:
        """Report whether the table lacks lag columns; a stream cannot compute them, because they need earlier rows."""
        if not self.schema_.lag_columns:
            return False
        first = next(self.table.batches(self.schema_, 1), None)
        return first is not None and not self.schema_.lag_columns.keys() <= set(first.schema.names)

    def _write_table_with_lags(self) -> str:
        """Write the table with lag columns below `build` and return its path; a resumed run uses the same file."""
        state = repr((self.table.model_dump(), file_version(self.table.path), self.schema_.model_dump_json()))
        digest = sha256(state.encode()).hexdigest()[:FINGERPRINT_DIGITS]
        path = f"{self.build.rstrip('/')}/prepared/{self.name}-{digest}.parquet"
        if not exists(path):
            logger.info("{}: computing the lag columns {}", self.table.path, ", ".join(self.schema_.lag_columns))
            ParquetWriter(path=path).write(dataframes.add_lag_columns(self.table.read(self.schema_), self.schema_))
        return path

    def _lag_warnings(self, path: str) -> list[str]:
        """Log and return a warning for each lag column that is mostly null, usually for lack of earlier rows."""
        lags = ParquetReader(path=path).read()[list(self.schema_.lag_columns)]
        warnings = [
            f"{name} is missing in {int(column.isna().sum())} of {len(lags)} rows: the earlier rows that it is "
            "computed from are not in the table, which makes the predictions less accurate"
            for name, column in lags.items()
            if column.isna().mean() > WARN_MISSING_SHARE
        ]
        for warning in warnings:
            logger.warning("{}: {}", self.table.path, warning)
        return warnings

    def _build_predictor(self, bundle: Bundle) -> BatchPredictor:
        title = f"{self.name} {bundle.manifest.semver}"
        if input_signature(bundle.manifest.table) != input_signature(self.schema_):
            raise ConfigError(
                f"{title} was trained on other inputs or another target than those of the schema {self.schema_.name}",
                hint="train again, or set job.ref to a version of this schema",
            )
        return BatchPredictor(
            DataPlane(bundle), self.schema_, path=self.table.path, keep=self.keep, interval=self.interval
        )

    def _bundle_folder(self) -> Path:
        return Path(download_bundle(self.bundle)) if self.bundle else self.registry.download_bundle(self.ref)

    def _resume_state(self, bundle: Bundle) -> dict[str, Any]:
        """Return everything that determines the contents of the parts; a run resumes only if it is unchanged."""
        return {
            "table": self.table.model_dump(),
            "file": file_version(self.table.path),
            "rows": self.table.count(),
            "schema": sha256(self.schema_.model_dump_json().encode()).hexdigest(),
            "bundle": bundle.manifest_hash,
            "part_rows": self.part_rows,
            "keep": list(self.keep),
            "interval": self.interval,
        }

    def _write_parts(
        self, output: PartitionedOutput, predictor: BatchPredictor, report: CheckReport, on_progress: ProgressCallback
    ) -> None:
        """Write the missing parts one after the other, and add their rows to the report."""
        total = self.table.count() or 0
        batches = self.table.batches(self.schema_, min(self.batch_rows, self.part_rows))
        chunks = split_into_chunks(batches, report.rows, self.part_rows)
        with closing(map_ordered(predictor.predict, chunks, self.threads or default_threads())) as predictions:
            for table, chunk_report in predictions:
                with output.part(report.rows // self.part_rows, predictor.output_schema) as part:
                    part.write(table, chunk_report)
                    # A full part requests no further chunk: an error there must not discard this part.
                    while part.report.rows < self.part_rows and (following := next(predictions, None)):
                        on_progress(report.rows + part.report.rows, total, "")
                        part.write(*following)
                report.add(part.report)
                on_progress(report.rows, total, "")


def input_signature(schema: TableSchema) -> Any:
    """Return the part of a schema that a model depends on; bounds and their handling may change after training."""
    inputs = [(name, column.kind, column.nullable) for name, column in schema.inputs.items()]
    return inputs, schema.target.name, schema.target.task, schema.classes
