"""A folder of Parquet parts that a killed run can go on with: a part is there complete, or not at all."""

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

STATE_FILE = "_job.json"  # what the parts were made from
SUCCESS_FILE = "_SUCCESS"
REPORT_KEY = "model_name.report"  # in the footer of a part, so that what was dropped is still known after a kill
PART_FILE = re.compile(r"part-(\d{5,})\.parquet")
TEMPORARY_FILE = re.compile(
    rf"({PART_FILE.pattern}|{STATE_FILE}|{SUCCESS_FILE})\.\d+\.part"
)  # as `atomic_write` calls them; a kill leaves one


class OutputPart:
    """One file that is being written."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        """Write into an open file."""
        self.report = CheckReport()
        # Numbers rarely come twice. (The type stubs know a bool alone.)
        texts: Any = [field.name for field in schema if pa.types.is_string(field.type)]
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=texts)

    def write(self, table: pa.Table, report: CheckReport) -> None:
        """Append rows, and what the check of them found."""
        self._writer.write_table(table)
        self.report.add(report)

    def close(self) -> None:
        """Write the footer."""
        self._writer.add_key_value_metadata(
            {REPORT_KEY: json.dumps(asdict(self.report))}
        )  # in the footer, thus with it
        self._writer.close()

    def discard(self) -> None:
        """Close what will be thrown away; left open, the writer would do so itself, later and into a closed file."""
        with suppress(OSError, ValueError):
            self._writer.close()


class PartitionedOutput:
    """The output of one job, local or behind an fsspec URL."""

    def __init__(self, url: str) -> None:
        """Look at a folder; it need not exist yet.

        Raises:
            ConfigError: The URL is of no known kind.
            DependencyError: The package for its kind is not installed.
        """
        self.url = url.rstrip("/")
        self.filesystem, self.root = resolve_url(self.url)

    def resume(self, state: dict[str, Any]) -> CheckReport:
        """What complete parts of the same work hold already; all else that a job of ours left is removed.

        Args:
            state: All that decides what the parts hold.

        Raises:
            ConfigError: The folder holds files that no job of ours wrote.
            StorageError: It cannot be read or written.
        """
        mark = sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        names = self._names()
        drafts = [name for name in names if TEMPORARY_FILE.fullmatch(name)]
        parts = sorted((name for name in names if PART_FILE.fullmatch(name)), key=lambda name: (len(name), name))
        is_same = self._load_fingerprint(names) == mark and SUCCESS_FILE not in names
        reports = list(self._complete_reports(parts)) if is_same else []
        # `_SUCCESS` goes first and `_job.json` last: killed in between, the folder never looks whole nor foreign.
        self._remove([SUCCESS_FILE] * (SUCCESS_FILE in names) + drafts + parts[len(reports) :])
        if not is_same:
            self._write_file(STATE_FILE, json.dumps({"mark": mark} | state, indent=1))
        total = CheckReport()
        for report in reports:
            total.add(report)
        return total

    @contextmanager
    def part(self, number: int, schema: pa.Schema) -> Generator[OutputPart]:
        """A part to write; it is there once the block has ended well, and not before.

        Raises:
            StorageError: It cannot be written.
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
        """Say that all parts are there.

        Raises:
            StorageError: It cannot be written.
        """
        self._write_file(SUCCESS_FILE, "")

    def _write_file(self, name: str, text: str) -> None:
        with atomic_write(f"{self.url}/{name}") as file:
            file.write(text.encode())

    def _names(self) -> list[str]:
        """The files of the folder, all of them ours."""
        with translate_write_errors(self.url):
            self.filesystem.invalidate_cache(self.root)
            if self.filesystem.isfile(self.root):
                raise ConfigError(f"{self.url}: is a file", hint="set job.outputs to a folder")
            if not self.filesystem.isdir(self.root):
                return []
            paths = self.filesystem.ls(self.root, detail=False)
        names = sorted({path.rstrip("/").rpartition("/")[2] for path in paths if path.rstrip("/") != self.root})
        for name in names:
            is_ours = name == STATE_FILE or (
                STATE_FILE in names and (name == SUCCESS_FILE or PART_FILE.fullmatch(name))
            )
            if not (is_ours or TEMPORARY_FILE.fullmatch(name) or name.startswith(".")):
                raise self._foreign_file_error(name)
        return names

    def _load_fingerprint(self, names: Sequence[str]) -> str:
        """The mark of the work that the parts belong to."""
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
        """The reports of the first parts, up to the first one that is missing or cannot be read."""
        for number, name in enumerate(parts):
            report = self._report(name) if name == part_name(number) else None
            if report is None:
                logger.warning("{}: {} is not complete and will be made again", self.url, part_name(number))
                return
            yield report

    def _report(self, name: str) -> CheckReport | None:
        try:
            with self.filesystem.open(f"{self.root}/{name}", "rb") as file:
                footer = pq.read_metadata(file).metadata or {}
            found = json.loads(footer[REPORT_KEY.encode()])
            return CheckReport(**found | {"ignored": tuple(found["ignored"])})
        except ModelNameError:  # such as a preemption, which is an OSError too
            raise
        except (OSError, ValueError, KeyError, TypeError):  # a crash of the machine can leave anything
            return None

    def _remove(self, names: Sequence[str]) -> None:
        with translate_write_errors(self.url):
            for name in names:
                self.filesystem.rm(f"{self.root}/{name}")


def part_name(number: int) -> str:
    """The file of a part."""
    return f"part-{number:05d}.parquet"
