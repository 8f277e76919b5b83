"""Reader of the prediction log: one row of a table for each logged row."""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote

import pandas as pd
from loguru import logger

from model_name.core.schemas.strict_models import did_you_mean
from model_name.errors import DataError, NotFoundError
from model_name.io.storage import resolve_url, translate_read_errors

SUFFIX = ".jsonl"
DAY_PREFIX = "date="
VERSION_PREFIX = "version="


def read_predictions(
    url: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    versions: Collection[str] | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read a prediction log file by file; files of other days and versions are not opened.

    Damaged lines, and lines that a killed server did not complete, are skipped and counted in a warning.

    Args:
        url: Folder or URL that the servers log to.
        since: Earliest time of a request; UTC if it has no time zone.
        until: Time before which the request arrived; UTC if it has no time zone.
        versions: Versions of the model; all by default.
        columns: Columns to return, in this order; all by default.

    Returns:
        `time` (UTC), `request_id`, `row`, `protocol`, `slot`, `model`, `version`, `semver`, `latency_ms`,
        `inputs.NAME` for each column (a datetime is text, as in a request), `prediction`, `probability_LABEL`, and
        `lower` and `upper` if intervals were requested. Missing values are NaN or None. Rows are ordered by day, not by
        time.

    Raises:
        NotFoundError: The log holds no such predictions.
        DataError: A column in `columns` is in none of the predictions.
        StorageError: A file cannot be read.
        ConfigError: The scheme of the URL is unknown.
        DependencyError: The package for the scheme is not installed.
    """
    since, until = _in_utc(since), _in_utc(until)
    log = _LogFiles(url)
    frames = []
    known: dict[str, None] = {}
    for path in log.files(since, until, versions):
        records = [_flatten(record) for record in log.records(path) if _is_between(record["time"], since, until)]
        if records:
            frame = pd.DataFrame(records)
            known |= dict.fromkeys(frame.columns)
            frames.append(frame if columns is None else frame[[name for name in columns if name in frame]])
    if not frames:
        raise NotFoundError(
            f"{url}: holds no such predictions",
            hint="check the folder, the versions, and whether a server logged between `since` and `until`",
        )
    for name in columns or ():
        if name not in known:
            raise DataError(f"{url}: {name} is not a column of the predictions{did_you_mean(name, list(known))}")
    # A column that is empty in one file takes its type from the other files.
    table = pd.concat(frames, ignore_index=True).infer_objects()
    return table if columns is None else table[list(columns)]


class _LogFiles:
    """Files of a prediction log, local or behind an fsspec URL."""

    def __init__(self, url: str) -> None:
        self.filesystem, self.root = resolve_url(url)

    def files(self, since: datetime | None, until: datetime | None, versions: Collection[str] | None) -> Iterator[str]:
        """Yield the files of the requested days and versions."""
        self.filesystem.invalidate_cache()  # servers add files
        for day_folder in self._list(self.root):
            day = _day(day_folder)
            if day is None or (since and day < since.date()) or (until and day > until.date()):
                continue
            for folder in self._list(day_folder):
                name = _name(folder)
                if not name.startswith(VERSION_PREFIX):
                    continue
                if versions is None or unquote(name.removeprefix(VERSION_PREFIX)) in versions:
                    yield from (path for path in self._list(folder) if path.endswith(SUFFIX))

    def records(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield the complete records of a file and warn about its other lines."""
        skipped: list[int] = []
        is_truncated = False
        with translate_read_errors(path), self.filesystem.open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                record = _record(line)
                if record is not None:
                    yield record
                elif line.endswith(b"\n"):
                    skipped.append(number)
                else:
                    is_truncated = True
        if skipped:
            logger.warning("{}: skipped {} damaged lines, the first is line {}", path, len(skipped), skipped[0])
        if is_truncated:
            logger.warning("{}: skipped the incomplete last line: its server was killed or is still writing", path)

    def _list(self, folder: str) -> list[str]:
        with translate_read_errors(folder):
            try:
                paths = self.filesystem.ls(folder, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(str(path).rstrip("/") for path in paths)


def _record(line: bytes) -> dict[str, Any] | None:
    """Parse a line; return None if it is no complete record."""
    try:
        record = json.loads(line)
        moment = datetime.fromisoformat(record["time"]).astimezone(UTC)
        is_complete = isinstance(record["inputs"], dict) and "prediction" in record["outputs"]
    except (ValueError, TypeError, KeyError):  # not JSON, not an object, or a key is missing
        return None
    return {**record, "time": moment} if is_complete else None


def _flatten(record: dict[str, Any]) -> dict[str, Any]:
    inputs: dict[str, Any] = record.pop("inputs")
    outputs: dict[str, Any] = record.pop("outputs")
    probabilities = outputs.pop("probabilities", {})
    named = {f"inputs.{name}": value for name, value in inputs.items()}
    return record | named | outputs | {f"probability_{label}": value for label, value in probabilities.items()}


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _day(folder: str) -> date | None:
    name = _name(folder)
    try:
        return date.fromisoformat(name[len(DAY_PREFIX) :]) if name.startswith(DAY_PREFIX) else None
    except ValueError:
        return None


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _is_between(moment: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or moment >= since) and (until is None or moment < until)
