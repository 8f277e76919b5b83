"""What servers logged, as a table: one row for each row that was answered."""

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

ENDING = ".jsonl"
DAY = "date="
VERSION = "version="


def read_predictions(
    url: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    versions: Collection[str] | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read a prediction log, file by file; other days and versions are not touched.

    Lines that a killed server has cut, or that are damaged, are skipped, and a warning counts them.

    Args:
        url: The folder or URL that servers log to.
        since: The earliest moment that a request came at; UTC where it has no zone.
        until: The moment before which it came.
        versions: The versions of the model that answered; all by default.
        columns: The columns to return, in this order; all by default.

    Returns:
        `time` (UTC), `request_id`, `row`, `protocol`, `slot`, `model`, `version`, `semver`, `latency_ms`,
        `inputs.NAME` for each column (a datetime is text, as in a request), `prediction`, `probability_LABEL`, and
        `lower` and `upper` where intervals were asked for. Missing values are NaN or None. Rows are in the order of
        the days, not of the moments.

    Raises:
        NotFoundError: There are no such predictions.
        DataError: None of them has a column that was named.
        StorageError: A file cannot be read.
        ConfigError: The URL is of no known kind.
        DependencyError: The package for its kind is not installed.
    """
    since, until = _in_utc(since), _in_utc(until)
    log = _Log(url)
    frames = []
    known: dict[str, None] = {}
    for place in log.files(since, until, versions):
        records = [_flat(record) for record in log.records(place) if _is_between(record["time"], since, until)]
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
    # What one file holds nothing of is of no type there, and of the type of the others in the end.
    table = pd.concat(frames, ignore_index=True).infer_objects()
    return table if columns is None else table[list(columns)]


class _Log:
    """The files below a folder, local or behind an fsspec URL."""

    def __init__(self, url: str) -> None:
        self.filesystem, self.root = resolve_url(url)

    def files(self, since: datetime | None, until: datetime | None, versions: Collection[str] | None) -> Iterator[str]:
        """Those that may hold what is asked for, by day and version."""
        self.filesystem.invalidate_cache()  # servers go on writing
        for day_folder in self._below(self.root):
            day = _day(day_folder)
            if day is None or (since and day < since.date()) or (until and day > until.date()):
                continue
            for folder in self._below(day_folder):
                name = _name(folder)
                if name.startswith(VERSION) and (versions is None or unquote(name[len(VERSION) :]) in versions):
                    yield from (place for place in self._below(folder) if place.endswith(ENDING))

    def records(self, place: str) -> Iterator[dict[str, Any]]:
        """The whole records of a file; the other lines are named in a warning."""
        skipped: list[int] = []
        is_cut = False
        with translate_read_errors(place), self.filesystem.open(place, "rb") as file:
            for number, line in enumerate(file, start=1):
                record = _record(line)
                if record is not None:
                    yield record
                elif line.endswith(b"\n"):
                    skipped.append(number)
                else:
                    is_cut = True
        if skipped:
            logger.warning("{}: {} damaged lines were skipped, the first is line {}", place, len(skipped), skipped[0])
        if is_cut:
            logger.warning("{}: 1 line was skipped: the last is cut; its server was killed, or still writes", place)

    def _below(self, folder: str) -> list[str]:
        with translate_read_errors(folder):
            try:
                found = self.filesystem.ls(folder, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(str(place).rstrip("/") for place in found)


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None where it holds none."""
    try:
        record = json.loads(line)
        moment = datetime.fromisoformat(record["time"]).astimezone(UTC)
        is_whole = isinstance(record["inputs"], dict) and "prediction" in record["outputs"]
    except (ValueError, TypeError, KeyError):  # of what is not JSON, no object, or lacks a part
        return None
    return {**record, "time": moment} if is_whole else None


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    inputs: dict[str, Any] = record.pop("inputs")
    outputs: dict[str, Any] = record.pop("outputs")
    probabilities = outputs.pop("probabilities", {})
    named = {f"inputs.{name}": value for name, value in inputs.items()}
    return record | named | outputs | {f"probability_{label}": p for label, p in probabilities.items()}


def _name(place: str) -> str:
    return place.rpartition("/")[2]


def _day(folder: str) -> date | None:
    name = _name(folder)
    try:
        return date.fromisoformat(name[len(DAY) :]) if name.startswith(DAY) else None
    except ValueError:
        return None


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _is_between(moment: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or moment >= since) and (until is None or moment < until)
