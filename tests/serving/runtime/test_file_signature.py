"""Files that are changed while they are read are read again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from model_name.errors import DataError
from model_name.serving.runtime.file_signature import READ_ATTEMPTS, read_unchanged

NAMES = ("one", "two")


class ReplacedFiles:
    """Two files that belong together, which `replace` writes one by one.

    Attributes:
        reads: Number of reads.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reads = 0
        for name in NAMES:
            (directory / name).write_text("1", encoding="utf-8")

    def read(self, during: Callable[[], object]) -> str:
        """Read both files, between which something else happens."""
        self.reads += 1
        one = (self.directory / "one").read_text(encoding="utf-8")
        during()
        two = (self.directory / "two").read_text(encoding="utf-8")
        if one != two:
            raise DataError(f"{one} and {two} do not belong together")
        return one

    def read_unchanged(self, during: Callable[[], object]) -> str:
        return read_unchanged(self.directory, lambda: NAMES, lambda: self.read(during))

    def replace(self, content: str, names: tuple[str, ...] = NAMES) -> None:
        for name in names:
            (self.directory / "next").write_text(content, encoding="utf-8")
            (self.directory / "next").replace(self.directory / name)


@pytest.fixture
def files(tmp_path: Path) -> ReplacedFiles:
    """Return two files."""
    return ReplacedFiles(tmp_path)


def test_unchanged_files_are_read_once(files: ReplacedFiles) -> None:
    assert files.read_unchanged(lambda: None) == "1"
    assert files.reads == 1


def test_files_that_are_replaced_during_the_read_are_read_again(files: ReplacedFiles) -> None:
    assert files.read_unchanged(lambda: files.replace("2") if files.reads == 1 else None) == "2"
    assert files.reads == 2


def test_files_are_read_again_even_if_the_first_read_succeeded(files: ReplacedFiles) -> None:
    def replace_one_by_one() -> None:
        if files.reads < 3:  # first one file, so that both of the first read are old, then the other
            files.replace("2", NAMES[: files.reads])

    assert files.read_unchanged(replace_one_by_one) == "2"
    assert files.reads == 3


def test_inconsistent_files_that_do_not_change_are_refused(files: ReplacedFiles) -> None:
    files.replace("2", ("one",))
    with pytest.raises(DataError, match="2 and 1 do not belong together"):
        files.read_unchanged(lambda: None)
    assert files.reads == 1


def test_files_that_keep_changing_are_refused(files: ReplacedFiles) -> None:
    with pytest.raises(DataError, match=f"{files.directory}: was changed while it was read, {READ_ATTEMPTS} times"):
        files.read_unchanged(lambda: files.replace(str(files.reads)))
    assert files.reads == READ_ATTEMPTS
