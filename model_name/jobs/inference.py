"""Predict a table of any size from a bundle: streamed, resumable, in bounded memory."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from loguru import logger
from pydantic import Field

from model_name.core.schemas import CheckReport, Columns, Many
from model_name.core.versions import CHAMPION
from model_name.errors import ConfigError, DataError
from model_name.io.datasets import BATCH_ROWS, replacing, storage_error
from model_name.io.progress import Report, progress
from model_name.jobs.base import Job, Result
from model_name.serving.bundle import MANIFEST, Bundle, file_hash
from model_name.serving.dataplane import DataPlane

STATE = "_job.json"  # what the parts of a folder were made from
DONE = "_SUCCESS"
ROW = "row"


class InferenceResult(Result):
    """What was predicted.

    Attributes:
        outputs: The folder with the parts, Parquet.
        semver: The version that predicted.
        rows: How many rows were read.
        predicted: How many were predicted.
        resumed: How many of them an earlier, interrupted run had done.
        findings: What was dropped or clipped, a sentence each; of this run alone.
    """

    outputs: str
    semver: str
    rows: int
    predicted: int
    resumed: int
    findings: Many[str]


class InferenceJob(Job):
    """Predict every row of the table; a killed run goes on behind its last complete part.

    Attributes:
        ref: Which version: an alias, a number, a semantic version or `latest`.
        bundle: A bundle's folder, instead of a version of the registry.
        outputs: The folder to write to; by default `BUILD/predictions/NAME`.
        keep: Columns to hand through beside the predictions; by default the key, or else the row's number.
        batch_rows: Rows of one forward pass.
        part_rows: Rows of one file.
    """

    KIND: Literal["InferenceJob"] = "InferenceJob"
    ref: str = CHAMPION
    bundle: str = ""
    outputs: str = ""
    keep: Many[str] = ()
    batch_rows: int = Field(BATCH_ROWS, gt=0)
    part_rows: int = Field(1_000_000, gt=0)

    def run(self) -> InferenceResult:
        """As of `Job`.

        Raises:
            DataError: A row does not fit the schema; the complete parts stay.
            NotFoundError: There is no such version or table.
            StorageError: The disk is full.
        """
        plane = DataPlane(Bundle.load(self._bundle()))
        folder = Path(self.outputs or f"{self.build}/predictions/{self.name}")
        resumed = self._resume(folder, plane.bundle)
        report = CheckReport(rows=resumed)
        predicted = resumed
        with progress(f"predicting with {plane.bundle.manifest.semver}") as tell:
            for part in self._parts(plane, folder, report, tell, resumed):
                predicted += part
        (folder / DONE).touch()
        for sentence in report.sentences():
            logger.warning("{}: {}", self.table.path, sentence)
        self.alerts.notify(
            "predicted", f"{predicted:,} rows of {self.table.path} by {self.name} {plane.bundle.manifest.semver}"
        )
        return InferenceResult(
            outputs=str(folder),
            semver=plane.bundle.manifest.semver,
            rows=report.rows,
            predicted=predicted,
            resumed=resumed,
            findings=tuple(report.sentences()),
        )

    def _bundle(self) -> Path:
        return Path(self.bundle) if self.bundle else self.registry.bundle(self.ref)

    def _resume(self, folder: Path, bundle: Bundle) -> int:
        """Rows that complete parts of the same work hold already; parts of other work are removed."""
        state = {
            "table": self.table.model_dump(),
            "rows": self.table.count(),
            "bundle": file_hash(bundle.directory / MANIFEST),
            "part_rows": self.part_rows,
            "keep": list(self._kept()),
        }
        mark = sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        parts = sorted(folder.glob("part-*.parquet"))
        if parts and not (folder / STATE).is_file():
            raise ConfigError(
                f"{folder}: holds Parquet files that this job did not write", hint="set job.outputs to another folder"
            )
        known = json.loads((folder / STATE).read_text(encoding="utf-8")) if (folder / STATE).is_file() else {}
        if known.get("mark") == mark and not (folder / DONE).exists():
            rows = len(parts) * self.part_rows
            logger.info("{}: going on behind {:,} rows", folder, rows) if rows else None
            return rows
        for part in [*parts, folder / DONE]:
            part.unlink(missing_ok=True)
        with replacing(str(folder / STATE)) as file:
            file.write(json.dumps({"mark": mark} | state, indent=1).encode())
        return 0

    def _kept(self) -> tuple[str, ...]:
        unknown = [name for name in self.keep if name not in self.schema_.columns]
        if unknown:
            raise ConfigError(f"job.keep: {unknown[0]} is not a column of the schema {self.schema_.name}")
        return self.keep or self.schema_.key

    def _parts(self, plane: DataPlane, folder: Path, report: CheckReport, tell: Report, start: int) -> Iterator[int]:
        """Write the parts one after the other, yielding the rows predicted in each."""
        total = self.table.count() or 0
        batches = skip(self.table.batches(self.schema_, min(self.batch_rows, self.part_rows)), start)
        row = start
        pending = next(batches, None)
        while pending is not None:
            number = row // self.part_rows
            end = (number + 1) * self.part_rows
            written = 0
            with part_file(folder / f"part-{number:05d}.parquet") as part:
                while pending is not None and row < end:
                    batch, pending = cut(pending, end - row)
                    table = self._predict(plane, batch, row, report)
                    part.write(table)
                    written += table.num_rows
                    row += batch.num_rows
                    tell(row, total, "")
                    pending = pending if pending is not None else next(batches, None)
            yield written

    def _predict(self, plane: DataPlane, batch: pa.RecordBatch, row: int, report: CheckReport) -> pa.Table:
        columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
        names = [*dict.fromkeys([*plane.schema.inputs, *self._kept()])]
        try:
            typed = self.schema_.decode(columns, names=names)
            checked, keep, found = self.schema_.apply(typed, may_drop=True)
        except DataError as err:
            raise DataError(f"{self.table.path}, from row {row} on: {err.message}", hint=err.hint) from err
        report.add(found)
        rows = np.arange(row, row + batch.num_rows)
        if not keep.all():
            checked, rows = {name: values[keep] for name, values in checked.items()}, rows[keep]
        return self._table(plane, checked, rows)

    def _table(self, plane: DataPlane, columns: Columns, rows: np.ndarray) -> pa.Table:
        kept = {name: columns[name] for name in self._kept()} or {ROW: rows}
        outputs = plane.run(plane.features.transform(columns))
        return pa.table({name: pa.array(values) for name, values in (kept | outputs.columns).items()})


class PartFile:
    """A Parquet file that takes its schema from the first table written."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write into an open file."""
        self.file = file
        self.writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table."""
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.file, table.schema, compression="zstd")
        self.writer.write_table(table)


@contextmanager
def part_file(path: Path) -> Generator[PartFile]:
    """A part that is there when it is complete, and not before.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        with replacing(str(path)) as file:
            part = PartFile(file)
            yield part
            if part.writer is not None:
                part.writer.close()
    except OSError as err:
        raise storage_error(str(path), err) from err


def skip(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The batches behind so many rows."""
    for batch in batches:
        if rows >= batch.num_rows:
            rows -= batch.num_rows
            continue
        yield batch.slice(rows)
        rows = 0


def cut(batch: pa.RecordBatch, rows: int) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """The first rows of a batch, and the rest if there is one."""
    return batch.slice(0, rows), batch.slice(rows) if batch.num_rows > rows else None
