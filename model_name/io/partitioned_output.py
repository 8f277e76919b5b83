"""Folder of Parquet parts that a killed run can resume, because each part is complete or absent."""

import json
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import sha256
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from loguru import logger

from model_name.core.schemas.validation import CheckReport
from model_name.errors import ConfigError, ModelNameError
from model_name.io.storage import atomic_write, resolve_url, translate_write_errors

STATE_FILE = "_job.json"  # settings and inputs that determine the content of the parts
SUCCESS_FILE = "_SUCCESS"
REPORT_KEY = "model_name.report"  # metadata key in the footer of a part, from which a resumed run restores the counts
PART_FILE = re.compile(r"part-(\d{5,})\.parquet")
TEMPORARY_FILE = re.compile(rf"({PART_FILE.pattern}|{STATE_FILE}|{SUCCESS_FILE})\.\d+\.part")
"""Name that `atomic_write` uses; a killed run leaves such a file."""


class OutputPart:
    """Parquet file of the output that is being written."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        """Start a Parquet file in an open file."""
        self.report = CheckReport()
        # Numbers rarely repeat, so that only texts get a dictionary. (The type stubs accept only a bool.)
        texts: Any = [field.name for field in schema if pa.types.is_string(field.type)]
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=texts)

    def write(self, table: pa.Table, report: CheckReport) -> None:
        """Append rows, and the report of their validation."""
        self._writer.write_table(table)
        self.report.add(report)

    def close(self) -> None:
        """Write the footer."""
        self._writer.add_key_value_metadata({REPORT_KEY: json.dumps(asdict(self.report))})
        self._writer.close()

    def discard(self) -> None:
        """Close the writer of a part that is not kept; otherwise its finalizer would write to the closed file."""
        with suppress(OSError, ValueError):
            self._writer.close()


class PartitionedOutput:
    """Output folder of one job, local or behind an fsspec URL."""

    def __init__(self, url: str) -> None:
        """Open an output folder; it is created by the first write.

        Raises:
            ConfigError: The scheme of the URL is unknown.
            DependencyError: The package for the scheme is not installed.
        """
        self.url = url.rstrip("/")
        self.filesystem, self.root = resolve_url(self.url)

    def resume(self, state: dict[str, Any]) -> CheckReport:
        """Return the report of the complete parts of an equal run; remove all other files of earlier runs.

        Args:
            state: Settings and inputs that determine the content of the parts.

        Raises:
            ConfigError: The folder holds files that no inference job wrote.
            StorageError: The folder cannot be read or written.
        """
        fingerprint = sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        names = self._names()
        temporary = [name for name in names if TEMPORARY_FILE.fullmatch(name)]
        parts = sorted((name for name in names if PART_FILE.fullmatch(name)), key=lambda name: (len(name), name))
        is_same = self._load_fingerprint(names) == fingerprint and SUCCESS_FILE not in names
        reports = list(self._complete_reports(parts)) if is_same else []
        # `_SUCCESS` is removed first and `_job.json` replaced last: after a kill in between, the next run
        # considers the folder neither complete nor foreign.
        self._remove([SUCCESS_FILE] * (SUCCESS_FILE in names) + temporary + parts[len(reports) :])
        if not is_same:
            self._write_file(STATE_FILE, json.dumps({"mark": fingerprint} | state, indent=1))
        total = CheckReport()
        for report in reports:
            total.add(report)
        return total

    @contextmanager
    def part(self, number: int, schema: pa.Schema) -> Generator[OutputPart]:
        """Open a part for writing; it appears in the folder when the block ends without an error.

        Raises:
            StorageError: The file cannot be written.
        """
        with atomic_write(f"{self.url}/{part_name(number)}") as file:
            part = OutputPart(file, schema)
            try:
                yield part
                part.close()
            except BaseException:
                part.discard()
                raise

    def mark_complete(self) -> None:
        """Write the marker file of a complete output.

        Raises:
            StorageError: The file cannot be written.
        """
        self._write_file(SUCCESS_FILE, "")

    def _write_file(self, name: str, text: str) -> None:
        with atomic_write(f"{self.url}/{name}") as file:
            file.write(text.encode())

    def _names(self) -> list[str]:
        """List the files of the folder.

        Raises:
            ConfigError: The folder is a file, or holds files that no inference job wrote.
        """
        with translate_write_errors(self.url):
            self.filesystem.invalidate_cache(self.root)
            if self.filesystem.isfile(self.root):
                raise ConfigError(f"{self.url}: is a file", hint="set job.outputs to a folder")
            if not self.filesystem.isdir(self.root):
                return []
            paths = self.filesystem.ls(self.root, detail=False)
        names = sorted({path.rstrip("/").rpartition("/")[2] for path in paths if path.rstrip("/") != self.root})
        for name in names:
            is_own = name == STATE_FILE or (STATE_FILE in names and (name == SUCCESS_FILE or PART_FILE.fullmatch(name)))
            if not (is_own or TEMPORARY_FILE.fullmatch(name) or name.startswith(".")):
                raise self._foreign_file_error(name)
        return names

    def _load_fingerprint(self, names: Sequence[str]) -> str:
        """Load the fingerprint of the state that the parts were written for; empty if there is none."""
        if STATE_FILE not in names:
            return ""
        with translate_write_errors(self.url):
            text = self.filesystem.cat_file(f"{self.root}/{STATE_FILE}")
        try:
            return str(json.loads(text)["mark"])
        except (ValueError, KeyError, TypeError) as err:
            raise self._foreign_file_error(STATE_FILE) from err

    def _foreign_file_error(self, name: str) -> ConfigError:
        return ConfigError(f"{self.url}: holds {name}, which no such job wrote", hint="set job.outputs to a new folder")

    def _complete_reports(self, parts: Sequence[str]) -> Iterator[CheckReport]:
        """Yield the reports of the parts up to the first one that is missing or unreadable."""
        for number, name in enumerate(parts):
            report = self._report(name) if name == part_name(number) else None
            if report is None:
                logger.warning("{}: {} is incomplete and will be written again", self.url, part_name(number))
                return
            yield report

    def _report(self, name: str) -> CheckReport | None:
        try:
            with self.filesystem.open(f"{self.root}/{name}", "rb") as file:
                footer = pq.read_metadata(file).metadata or {}
            report = json.loads(footer[REPORT_KEY.encode()])
            return CheckReport(**report | {"ignored": tuple(report["ignored"])})
        except ModelNameError:  # PreemptedError, which a signal raises, is an OSError as well
            raise
        except (OSError, ValueError, KeyError, TypeError):  # a crash of the machine can leave any content
            return None

    def _remove(self, names: Sequence[str]) -> None:
        with translate_write_errors(self.url):
            for name in names:
                self.filesystem.rm(f"{self.root}/{name}")


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"part-{number:05d}.parquet"
