"""Audit trail: numbered entries, each created exclusively and holding the hash of the previous entry."""

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import AuditError
from model_name.io.storage import resolve_url, storage_error, translate_write_errors

GENESIS_HASH = "0" * 64
MAX_ATTEMPTS = 100
ENTRY_FILE = re.compile(r"[0-9]{8,}\.json")


class Entry(FrozenModel):
    """An entry of the audit trail: one event.

    Attributes:
        number: Number of the entry, from 1.
        time: Time of the event, ISO 8601 in UTC.
        actor: Person or system that caused the event.
        event: Kind of event: promoted, refused or forced.
        subject: Model version that the event concerns.
        details: Reason and circumstances.
        previous: Hash of the previous entry.
    """

    number: int
    time: str
    actor: str
    event: str
    subject: str
    details: dict[str, Any]
    previous: str

    @property
    def text(self) -> str:
        """Stored text of the entry."""
        return json.dumps(self.model_dump(), indent=1, sort_keys=True) + "\n"

    @property
    def hash(self) -> str:
        """SHA-256 of the stored text."""
        return sha256(self.text.encode()).hexdigest()


class AuditTrail:
    """Audit trail in a folder, local or behind an fsspec URL."""

    def __init__(self, location: str = "audit") -> None:
        """Open a trail; its folder is created by the first `append`."""
        self.filesystem, self.root = resolve_url(location)

    def append(self, *, actor: str, event: str, subject: str, details: Mapping[str, Any]) -> Entry:
        """Append an entry.

        Raises:
            AuditError: The last entry cannot be read.
            StorageError: The entry cannot be written.
        """
        with translate_write_errors(self.root):
            self.filesystem.makedirs(self.root, exist_ok=True)
        for _ in range(MAX_ATTEMPTS):
            last = self._last()
            entry = Entry(
                number=last.number + 1 if last else 1,
                time=datetime.now(UTC).isoformat(timespec="milliseconds"),
                actor=actor,
                event=event,
                subject=subject,
                details=dict(details),
                previous=last.hash if last else GENESIS_HASH,
            )
            try:
                self._create(entry)
            except FileExistsError:
                continue  # another writer created this number first
            except OSError as err:
                raise storage_error(self.root, err) from err
            return entry
        raise AuditError(f"{self.root}: {MAX_ATTEMPTS} other writers came first", hint="try again")

    def entries(self) -> list[Entry]:
        """Read all entries in order.

        Raises:
            AuditError: An entry cannot be read.
        """
        return [self._read(number) for number in self._numbers()]

    def verify(self) -> int:
        """Verify every hash and return the number of entries.

        Raises:
            AuditError: An entry is missing or was changed; the message names the first.
        """
        previous: Entry | None = None
        for expected, number in enumerate(self._numbers(), start=1):
            if number != expected:
                raise AuditError(f"entry {expected} of {self.root} is missing", hint="restore it from a backup")
            entry = self._read(number)
            if entry.number != number:
                raise AuditError(f"entry {number} of {self.root} was changed after it was written")
            if entry.previous != (previous.hash if previous else GENESIS_HASH):
                raise AuditError(
                    f"entry {self._find_tampered(entry, previous)} of {self.root} was changed after it was written"
                )
            previous = entry
        return previous.number if previous else 0

    def _find_tampered(self, entry: Entry, previous: Entry | None) -> str:
        """Return the number of the changed entry, given two entries whose hashes do not match."""
        if previous is None:
            return str(entry.number)
        after = entry.number + 1
        if after not in self._numbers():
            return f"{previous.number} or {entry.number}"  # there is no later entry to compare with
        is_unchanged = self._read(after).previous == entry.hash
        return str(previous.number if is_unchanged else entry.number)

    def _create(self, entry: Entry) -> None:
        path = self._path(entry.number)
        if "file" not in self.filesystem.protocol:
            with self.filesystem.open(path, "xb") as file:  # exclusive, if the object store supports it
                file.write(entry.text.encode())
            return
        temporary = f"{path}.{uuid4().hex}.part"  # unique among threads as well
        try:
            with open(temporary, "x", encoding="utf-8") as file:  # noqa: PTH123  as for os.link, which needs plain paths
                file.write(entry.text)
            os.link(temporary, path)  # publishes a complete file, and fails if the number exists
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        self.filesystem.invalidate_cache(self.root)  # other writers add entries
        if not self.filesystem.exists(self.root):
            return []
        files = [str(name).rsplit("/", 1)[-1] for name in self.filesystem.ls(self.root, detail=False)]
        return sorted(int(name.removesuffix(".json")) for name in files if ENTRY_FILE.fullmatch(name))

    def _last(self) -> Entry | None:
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def _read(self, number: int) -> Entry:
        try:
            with self.filesystem.open(self._path(number), "rb") as file:
                text = file.read().decode()
            entry = Entry.model_validate_json(text)
        except (OSError, UnicodeDecodeError, ValidationError) as err:
            raise AuditError(
                f"entry {number} of {self.root} cannot be read: it was changed after it was written"
            ) from err
        if entry.text != text:
            raise AuditError(f"entry {number} of {self.root} was changed after it was written")
        return entry

    def _path(self, number: int) -> str:
        return f"{self.root}/{number:08d}.json"
