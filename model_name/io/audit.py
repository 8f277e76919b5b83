"""The audit trail: numbered entries that two writers cannot share, each holding the hash of the one before."""

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
    """One thing that was done.

    Attributes:
        number: Counts from 1.
        time: In ISO 8601 and UTC.
        actor: Who did it.
        event: What was done: promoted, refused, forced.
        subject: To what.
        details: How it came about.
        previous: The hash of the entry before.
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
        """As it is stored."""
        return json.dumps(self.model_dump(), indent=1, sort_keys=True) + "\n"

    @property
    def hash(self) -> str:
        """Of the stored text."""
        return sha256(self.text.encode()).hexdigest()


class AuditTrail:
    """The entries below a folder, local or behind an fsspec URL."""

    def __init__(self, location: str = "audit") -> None:
        """Look at a folder; it need not exist yet."""
        self.filesystem, self.root = resolve_url(location)

    def append(self, *, actor: str, event: str, subject: str, details: Mapping[str, Any]) -> Entry:
        """Add an entry behind the last one.

        Raises:
            AuditError: The entry before it cannot be read.
            StorageError: It cannot be written.
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
                continue  # another writer took this number; stand behind it
            except OSError as err:
                raise storage_error(self.root, err) from err
            return entry
        raise AuditError(f"{self.root}: {MAX_ATTEMPTS} other writers came first", hint="try again")

    def entries(self) -> list[Entry]:
        """All entries, in their order.

        Raises:
            AuditError: One cannot be read.
        """
        return [self._read(number) for number in self._numbers()]

    def verify(self) -> int:
        """Check every hash and return the number of entries.

        Raises:
            AuditError: Naming the first entry that was changed, or that is missing.
        """
        before: Entry | None = None
        for place, number in enumerate(self._numbers(), start=1):
            if number != place:
                raise AuditError(f"entry {place} of {self.root} is missing", hint="restore it from a backup")
            entry = self._read(number)
            if entry.number != number:
                raise AuditError(f"entry {number} of {self.root} was changed after it was written")
            if entry.previous != (before.hash if before else GENESIS_HASH):
                raise AuditError(
                    f"entry {self._culprit(entry, before)} of {self.root} was changed after it was written"
                )
            before = entry
        return before.number if before else 0

    def _culprit(self, entry: Entry, before: Entry | None) -> str:
        """Which of two entries was changed, where the later does not hold the hash of the earlier."""
        if before is None:
            return str(entry.number)
        after = entry.number + 1
        if after not in self._numbers():
            return f"{before.number} or {entry.number}"  # nothing stands behind them that could tell
        is_whole = self._read(after).previous == entry.hash
        return str(before.number if is_whole else entry.number)

    def _create(self, entry: Entry) -> None:
        place = self._place(entry.number)
        if "file" not in self.filesystem.protocol:
            with self.filesystem.open(place, "xb") as file:  # exclusive, where the object store can be
                file.write(entry.text.encode())
            return
        part = f"{place}.{uuid4().hex}.part"  # threads of one process must not share it either
        try:
            with open(part, "x", encoding="utf-8") as file:  # noqa: PTH123  beside os.link, which needs plain paths
                file.write(entry.text)
            os.link(part, place)  # complete and exclusive in one step
        finally:
            Path(part).unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        self.filesystem.invalidate_cache(self.root)  # other writers' entries count
        if not self.filesystem.exists(self.root):
            return []
        files = [str(name).rsplit("/", 1)[-1] for name in self.filesystem.ls(self.root, detail=False)]
        return sorted(int(name.removesuffix(".json")) for name in files if ENTRY_FILE.fullmatch(name))

    def _last(self) -> Entry | None:
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def _read(self, number: int) -> Entry:
        try:
            with self.filesystem.open(self._place(number), "rb") as file:
                text = file.read().decode()
            entry = Entry.model_validate_json(text)
        except (OSError, UnicodeDecodeError, ValidationError) as err:
            raise AuditError(
                f"entry {number} of {self.root} cannot be read: it was changed after it was written"
            ) from err
        if entry.text != text:
            raise AuditError(f"entry {number} of {self.root} was changed after it was written")
        return entry

    def _place(self, number: int) -> str:
        return f"{self.root}/{number:08d}.json"
