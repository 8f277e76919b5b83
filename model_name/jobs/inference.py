"""Predict a table of any size from a bundle: streamed, resumable, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
from loguru import logger
from numpy.typing import NDArray
from pydantic import Field

from model_name.core import dataframes
from model_name.core.schemas import Label, TableSchema
from model_name.core.schemas.columns import Columns, Kind, and_more, label_text
from model_name.core.schemas.strict_models import LaxTuple
from model_name.core.schemas.validation import CheckReport
from model_name.core.versions import CHAMPION, Ref
from model_name.errors import ConfigError, DataError
from model_name.io.configs import exists
from model_name.io.datasets import BATCH_ROWS, ParquetReader, ParquetWriter
from model_name.io.partitioned_output import PartitionedOutput
from model_name.io.progress import ProgressCallback, progress
from model_name.io.storage import file_version
from model_name.jobs.base import Job
from model_name.results import InferenceResult
from model_name.serving.bundle import MANIFEST_FILE, Bundle, file_hash
from model_name.serving.dataplane import DataPlane, InferenceBackend

ROW = "row"
UNTOLD_SHARE = 0.5  # of the rows that lack a history, from which on it is said
MAX_THREADS = 8  # beyond which they wait for Python's lock more than they compute
ARROW: dict[Kind, pa.DataType] = {
    "numeric": pa.float64(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
    "category": pa.string(),
    "text-id": pa.string(),
}

T = TypeVar("T")
Answer = TypeVar("Answer")


class InferenceJob(Job):
    """Predict every row of the table; a killed run goes on behind its last complete part.

    Rows are held against the schema like those of a training table, with one exception: that no two share a key is
    not checked, since that would need all keys in memory.

    A run goes on only if table, schema, bundle, `keep` and `part_rows` are those of the killed one; otherwise, and
    after a complete run, it starts anew. `batch_rows` and `threads` may change, such as after a lack of memory.

    Attributes:
        ref: Which version: an alias, a number, a semantic version or `latest`.
        bundle: A bundle's folder or URL, instead of a version of the registry.
        outputs: The folder or URL to write to; by default `BUILD/predictions/NAME`.
        keep: Columns to hand through beside the predictions; by default the key, or else the row's number.
        batch_rows: Rows of one forward pass.
        part_rows: Rows of one file.
        threads: How many forward passes at once; 0 for one a processor.
        interval: The level of the prediction intervals of a regression, for columns `lower` and `upper`.
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
    def needs_mlflow(self) -> bool:
        """Whether the version is to be found in the registry."""
        return not self.bundle

    def run(self) -> InferenceResult:
        """As of `Job`.

        Raises:
            ConfigError: The version was trained on other inputs, or the output folder holds foreign files.
            DataError: The table is empty, or a row does not fit the schema; the complete parts stay.
            NotFoundError: There is no such version or table.
            PreemptedError: SIGTERM; the next run of the same config goes on.
            StorageError: The disk is full; no part is left half-written.
        """
        if self._lacks_histories():
            path = self._with_histories()
            result = self.model_copy(update={"table": ParquetReader(path=path)}).run()
            return result.model_copy(update={"findings": (*self._untold(path), *result.findings)})
        predictor = self._predictor()
        folder = PartitionedOutput(self.outputs or f"{self.build}/predictions/{self.name}")
        report = folder.resume(self._state(predictor.plane.bundle))
        resumed = report.kept
        if report.rows:
            logger.info("{}: going on behind {:,} rows", folder.url, report.rows)
        semver = predictor.plane.bundle.manifest.semver
        with progress(f"predicting with {semver}") as tell:
            self._write(folder, predictor, report, tell)
        if not report.rows:
            raise DataError(f"{self.table.path}: the table is empty: it has no rows", hint="check the path")
        folder.mark_complete()
        for sentence in report.messages():
            logger.warning("{}: {}", self.table.path, sentence)
        self.alerts.notify("predicted", f"{report.kept:,} rows of {self.table.path} by {self.name} {semver}")
        return InferenceResult(
            outputs=folder.url,
            semver=semver,
            rows=report.rows,
            predicted=report.kept,
            resumed=resumed,
            findings=tuple(report.messages()),
        )

    def _lacks_histories(self) -> bool:
        """Whether the table lacks columns that tell of earlier rows, which a stream cannot make."""
        if not self.schema_.lag_columns:
            return False
        first = next(self.table.batches(self.schema_, 1), None)
        return first is not None and not self.schema_.lag_columns.keys() <= set(first.schema.names)

    def _with_histories(self) -> str:
        """The table with these columns, written below `build`, and where; a resumed run finds it there."""
        state = repr((self.table.model_dump(), file_version(self.table.path), self.schema_.model_dump_json()))
        path = f"{self.build.rstrip('/')}/prepared/{self.name}-{sha256(state.encode()).hexdigest()[:16]}.parquet"
        if not exists(path):
            logger.info("{}: making {}, as the schema says", self.table.path, ", ".join(self.schema_.lag_columns))
            ParquetWriter(path=path).write(dataframes.add_lag_columns(self.table.read(self.schema_), self.schema_))
        return path

    def _untold(self, path: str) -> list[str]:
        """Which histories say nothing of most rows: as a rule, the earlier rows were not in the table."""
        told = ParquetReader(path=path).read()[list(self.schema_.lag_columns)]
        words = "earlier rows that the schema asks for are not in the table, and the predictions are the worse for it"
        said = [
            f"{name} is missing in {int(column.isna().sum())} of {len(told)} rows: {words}"
            for name, column in told.items()
            if column.isna().mean() > UNTOLD_SHARE
        ]
        for sentence in said:
            logger.warning("{}: {}", self.table.path, sentence)
        return said

    def _predictor(self) -> "Predictor":
        bundle = Bundle.load(self._bundle(), threads=1)  # its passes run beside each other instead
        title = f"{self.name} {bundle.manifest.semver}"
        if shape(bundle.manifest.table) != shape(self.schema_):
            raise ConfigError(
                f"{title} was trained on other inputs or another target than those of the schema {self.schema_.name}",
                hint="train again, or set job.ref to a version of this schema",
            )
        return Predictor(self, DataPlane(bundle))

    def _bundle(self) -> Path:
        if not self.bundle:
            return self.registry.download_bundle(self.ref)
        from model_name.io.storage import download_bundle

        return Path(download_bundle(self.bundle))

    def _state(self, bundle: InferenceBackend) -> dict[str, Any]:
        """All that decides what the parts hold."""
        return {
            "table": self.table.model_dump(),
            "file": file_version(self.table.path),
            "rows": self.table.count(),
            "schema": sha256(self.schema_.model_dump_json().encode()).hexdigest(),
            "bundle": file_hash(bundle.directory / MANIFEST_FILE),
            "part_rows": self.part_rows,
            "keep": list(self.keep),
            "interval": self.interval,
        }

    def _write(
        self, folder: PartitionedOutput, predictor: "Predictor", report: CheckReport, tell: ProgressCallback
    ) -> None:
        """Write the parts that are missing, one after the other, counting them into the report."""
        total = self.table.count() or 0
        batches = self.table.batches(self.schema_, min(self.batch_rows, self.part_rows))
        pieces = pieces_of(batches, report.rows, self.part_rows)
        with closing(in_order(predictor.predict, pieces, self.threads or processors())) as predictions:
            for table, found in predictions:
                with folder.part(report.rows // self.part_rows, predictor.output) as part:
                    part.write(table, found)
                    # Not one piece more is asked for than the part needs: what is wrong with the next is not its own.
                    while part.report.rows < self.part_rows and (more := next(predictions, None)):
                        tell(report.rows + part.report.rows, total, "")
                        part.write(*more)
                report.add(part.report)
                tell(report.rows, total, "")


@dataclass(frozen=True)
class Piece:
    """Some rows of a table.

    Attributes:
        row: The number of the first of them.
        batch: The rows.
    """

    row: int
    batch: pa.RecordBatch


class Predictor:
    """Turns rows of a table into rows of the output; called by several threads."""

    def __init__(self, job: InferenceJob, plane: DataPlane) -> None:
        """Predict for a job.

        Raises:
            ConfigError: A column that is to be kept is not there, or is called like an output; or there are no
                prediction intervals of the level that is asked for.
        """
        self.plane = plane
        self.interval = job.interval
        self.schema = job.schema_
        self.path = job.table.path
        self.kept = job.keep or job.schema_.key
        self.names = [*dict.fromkeys([*self.schema.inputs, *self.kept])]
        answered = self._answer_types
        for name in self.kept:
            if name not in self.schema.columns:
                raise ConfigError(f"job.keep: {name} is not a column of the schema {self.schema.name}")
            if name in answered:
                raise ConfigError(f"job.keep: {name} is also the name of an output", hint="set job.keep without it")

    @cached_property
    def output(self) -> pa.Schema:
        """The columns of the output; fixed here, because a part may hold nothing to guess them from."""
        kept = {name: ARROW[self.schema.columns[name].kind] for name in self.kept} or {ROW: pa.int64()}
        return pa.schema(kept | self._answer_types)

    @cached_property
    def _answer_types(self) -> dict[str, pa.DataType]:
        nothing = np.empty((0, len(self.plane.features.columns)), dtype=np.float32)
        try:
            names = self.plane.predict_matrix(nothing, interval=self.interval).columns
        except DataError as err:
            raise ConfigError(f"job.interval: {err.message}", hint=err.hint) from err
        types = dict.fromkeys(names, pa.float64())
        return types | ({"prediction": label_type(self.schema.classes)} if self.schema.classes else {})

    def predict(self, piece: Piece) -> tuple[pa.Table, CheckReport]:
        """The output for some rows, and what the check of them found.

        Raises:
            DataError: Naming column, row of the table and reason.
        """
        try:
            ignored = self._extra_columns(piece.batch.schema.names)
            present = [name for name in self.names if name in piece.batch.schema.names]
            raw = {name: to_numpy(piece.batch.column(name)) for name in present}
            typed = self.schema.decode(raw, names=self.names, first_row=piece.row)
            checked, keep, report = self.schema.check_columns(typed, may_drop=True, first_row=piece.row)
        except DataError as err:
            raise DataError(f"{self.path}: {err.message}", hint=err.hint) from err
        report.ignored = ignored
        rows = np.arange(piece.row, piece.row + piece.batch.num_rows)
        if not keep.all():
            checked, rows = {name: values[keep] for name, values in checked.items()}, rows[keep]
        return self._table(checked, rows), report

    def _table(self, columns: Columns, rows: NDArray[np.int_]) -> pa.Table:
        kept = {name: columns[name] for name in self.kept} or {ROW: rows}
        answer = self.plane.predict_matrix(self.plane.features.transform(columns), interval=self.interval).columns
        named = kept | answer
        return pa.table([to_arrow(named[field.name], field.type) for field in self.output], schema=self.output)

    def _extra_columns(self, names: list[str]) -> tuple[str, ...]:
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise DataError(f"{twice[0]}: the table has this column twice")
        extra = tuple(name for name in names if name not in self.schema.columns and name != self.schema.target.name)
        if extra and self.schema.extra == "refuse":
            raise DataError(
                f"{extra[0]}: is not a column of the schema {self.schema.name}{and_more(extra[1:])}",
                hint="add it to the schema, or set `extra: drop` there",
            )
        return extra


def shape(schema: TableSchema) -> Any:
    """What a model depends on; bounds, and what happens beyond them, may have changed since it was trained."""
    inputs = [(name, column.kind, column.nullable) for name, column in schema.inputs.items()]
    return inputs, schema.target.name, schema.target.task, schema.classes


def pieces_of(batches: Iterable[pa.RecordBatch], start: int, part_rows: int) -> Iterator[Piece]:
    """The rows from `start` on, cut where a part ends."""
    row = 0
    for batch in batches:
        done = min(batch.num_rows, max(0, start - row))
        row += done
        while done < batch.num_rows:
            piece = batch.slice(done, part_rows - row % part_rows)
            yield Piece(row, piece)
            row += piece.num_rows
            done += piece.num_rows


def in_order(call: Callable[[T], Answer], items: Iterable[T], threads: int) -> Generator[Answer]:
    """The answers in the order of the items, some threads ahead of whoever asks; memory holds two items more."""
    pending: deque[Future[Answer]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(call, item))
            if len(pending) > threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def processors() -> int:
    """How many processors this process may use, to a limit."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, MAX_THREADS)


def to_numpy(values: Any) -> NDArray[Any]:
    """The values of a column of Arrow; equal texts are one object, which is three times as fast as one each."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8()) if values.null_count else values  # else they would be objects
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = values.dictionary_encode()
    if not pa.types.is_dictionary(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    texts = np.array([*values.dictionary.to_pylist(), None], dtype=object)
    found: NDArray[Any] = texts[values.indices.fill_null(len(values.dictionary)).to_numpy()]
    return found


def to_arrow(values: NDArray[Any], kind: pa.DataType) -> Any:
    """A typed column as Arrow has it: what is missing is null."""
    if pa.types.is_string(kind) and not {*map(type, values)} <= {str, type(None)}:  # labels of several kinds
        values = np.array([label_text(value) for value in values], dtype=object)
    return pa.array(values, from_pandas=True).cast(kind)


def label_type(classes: tuple[Label, ...]) -> pa.DataType:
    """What labels are in Parquet; text if they are of several kinds."""
    kinds = {type(label) for label in classes}
    if kinds == {bool}:
        return pa.bool_()
    return pa.int64() if kinds == {int} else pa.string()
