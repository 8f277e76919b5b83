"""Reader of the prediction log: one row of a table for each logged row."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
from loguru import logger

from model_name.core.schemas.strict_models import did_you_mean
from model_name.errors import DataError, NotFoundError
from model_name.io.storage import resolve_url, translate_read_errors

SUFFIX = ".jsonl"
DAY_PREFIX = "date="
VERSION_PREFIX = "version="
BLOCK_FORMAT = 2
"""Format of a line with an array per column. Older releases wrote an object per row, without a `format`."""


def read_predictions(
    url: str,
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    versions: Collection[str] | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read a prediction log file by file; files of other days and versions are not opened.

    Damaged lines, and lines that a killed server did not complete, are skipped and counted in a warning. Lines of older
    releases are read, too.

    Args:
        url: Folder or URL that the servers log to.
        since: Earliest time of a request, as a datetime or in ISO 8601; UTC if it has no time zone.
        until: Time before which the request arrived; UTC if it has no time zone.
        versions: Versions of the model; all by default.
        columns: Columns to return, in this order; all by default.

    Returns:
        `time` (UTC), `request_id`, `row`, `protocol`, `slot`, `model`, `version`, `semver`, `latency_ms`, `weight`,
        `trace_id` if a request has one, `inputs.NAME` for each column (a datetime is text, as in a request),
        `prediction`, `probability_LABEL`, and `lower` and `upper` if intervals were requested. Missing values are NaN
        or None. Rows are ordered by day, not by time.

        `weight` is the number of rows for which a row stands: the inverse of the probability with which its request was
        sampled. Sums and means that are weighted by it estimate those of all requests. Older releases did not record
        it: it is 1 then.

    Raises:
        NotFoundError: The log holds no such predictions.
        DataError: A column in `columns` is in none of the predictions.
        StorageError: A file cannot be read.
        ConfigError: The scheme of the URL is unknown.
        DependencyError: The package for the scheme is not installed.
    """
    first, end = _in_utc(since), _in_utc(until)
    log = _LogFiles(url)
    frames = []
    known: dict[str, None] = {}
    for path in log.files(first, end, versions):
        for frame in log.frames(path):
            selected = _select_times(frame, first, end)
            if len(selected):
                known |= dict.fromkeys(selected.columns)
                frames.append(selected if columns is None else selected[[name for name in columns if name in selected]])
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

    def frames(self, path: str) -> Iterator[pd.DataFrame]:
        """Yield the rows of a file, and warn about incomplete and damaged lines.

        Raises:
            DataError: A line has a format that this release does not know.
        """
        skipped: list[int] = []
        is_truncated = False
        records: list[dict[str, Any]] = []
        with translate_read_errors(path), self.filesystem.open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                parsed = _parse_line(line, f"{path}, line {number}")
                if isinstance(parsed, pd.DataFrame):
                    yield parsed
                elif parsed is not None:
                    records.append(parsed)
                elif line.endswith(b"\n"):
                    skipped.append(number)
                else:
                    is_truncated = True
        if records:
            yield pd.DataFrame(records)
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


def _parse_line(line: bytes, place: str) -> pd.DataFrame | dict[str, Any] | None:
    """Parse a line.

    Returns:
        A table if the line is a block, an object if it is a row of an older release, None if it is not complete.

    Raises:
        DataError: The line has a format that this release does not know.
    """
    try:
        document = json.loads(line)
        number = document.get("format")
        if number is None:
            return _parse_row(document)
        if number == BLOCK_FORMAT:
            return _parse_block(document)
    # Not JSON, not an object, a key is missing, or arrays differ in length.
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    raise DataError(
        f"{place}: has format {number!r}, this release reads up to {BLOCK_FORMAT}",
        hint="read the log with the release that wrote it, or a newer one",
    )


def _parse_row(record: dict[str, Any]) -> dict[str, Any] | None:
    moment = datetime.fromisoformat(record["time"]).astimezone(UTC)
    inputs, outputs = record.pop("inputs"), record.pop("outputs")
    if not isinstance(inputs, dict) or "prediction" not in outputs:
        return None
    probabilities = outputs.pop("probabilities", {})
    named = {f"inputs.{name}": value for name, value in inputs.items()}
    labelled = {f"probability_{label}": value for label, value in probabilities.items()}
    return {**record, "time": moment, "weight": 1.0, **named, **outputs, **labelled}


def _parse_block(block: Mapping[str, Any]) -> pd.DataFrame | None:
    requests, inputs, outputs = block["requests"], block["inputs"], dict(block["outputs"])
    probabilities = outputs.pop("probabilities", {})
    values = {
        **{f"inputs.{name}": column for name, column in inputs.items()},
        **outputs,
        **{f"probability_{label}": column for label, column in probabilities.items()},
    }
    counts, rows = requests["rows"], len(outputs["prediction"])
    if any(type(count) is not int or count < 0 for count in counts) or sum(counts) != rows:
        return None
    lengths = [*((column, rows) for column in values.values()), *((each, len(counts)) for each in requests.values())]
    if any(type(column) is not list or len(column) != length for column, length in lengths):
        return None
    positions = np.repeat(np.arange(len(counts)), counts)
    starts = np.repeat(np.cumsum([0, *counts[:-1]]) - np.array(requests["first_row"]), counts)

    def repeat(name: str) -> Any:
        return pd.Series(requests[name])[positions].to_numpy()

    times = pd.to_datetime(requests["time"], utc=True, format="ISO8601")
    if times.hasnans:
        return None
    return pd.DataFrame(
        {
            "time": times[positions],
            "request_id": repeat("id"),
            "row": np.arange(rows) - starts,
            "protocol": repeat("protocol"),
            **{name: [block[name]] * rows for name in ("slot", "model", "version", "semver")},
            "latency_ms": repeat("latency_ms"),
            "weight": repeat("weight"),
            **({"trace_id": repeat("trace_id")} if "trace_id" in requests else {}),
            **values,
        }
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _day(folder: str) -> date | None:
    name = _name(folder)
    try:
        return date.fromisoformat(name[len(DAY_PREFIX) :]) if name.startswith(DAY_PREFIX) else None
    except ValueError:
        return None


def _in_utc(moment: datetime | str | None) -> datetime | None:
    if moment is None:
        return None
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _select_times(frame: pd.DataFrame, since: datetime | None, until: datetime | None) -> pd.DataFrame:
    if since is not None:
        frame = frame[frame["time"] >= since]
    return frame if until is None else frame[frame["time"] < until]
