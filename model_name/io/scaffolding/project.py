"""Write a commented config folder for a table that runs unchanged."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2

from model_name.core.metrics import default_metrics
from model_name.core.profiling.schema_inference import InferredSchema
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.errors import ConfigError
from model_name.io.configs import SHARED_FILE, load_document
from model_name.io.datasets import reader_for
from model_name.io.scaffolding.yaml_entries import format_bullet, format_comment, format_entry, printable
from model_name.io.storage import storage_error

TEMPLATES = Path(__file__).parent / "templates"
SCHEMA_FILE = "schema.yaml"
FILES = (
    SCHEMA_FILE,
    SHARED_FILE,
    "preparation.yaml",
    "tuning.yaml",
    "training.yaml",
    "evaluations.yaml",
    "explanations.yaml",
    "promotion.yaml",
    "reports.yaml",
    "inference.yaml",
)
"""Files of a config folder, each rendered from the template of its name."""

PROJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
MAX_SLICED_VALUES = 10  # with more values, most slices would be too small to evaluate
MAX_SLICES = 5
MANDATORY = "???"  # OmegaConf's marker of a mandatory value; it cannot be escaped


def write_project(
    directory: str | Path, inferred: InferredSchema, table_path: str, *, overwrite: bool = False
) -> list[Path]:
    """Write the config folder of a table: its schema, the shared settings, and one file for each job.

    Args:
        directory: Folder to write; it and its parents are created.
        inferred: Schema of the table, with findings. The name of the schema becomes the name of the project.
        table_path: Path or URL under which the jobs open the table.
        overwrite: Whether files of an earlier project in the folder are replaced. Other files are kept.

    Returns:
        Paths of the files.

    Raises:
        ConfigError: The folder is not empty, no reader fits the table, or a name cannot be written as YAML.
        StorageError: The disk is full, or the folder cannot be written.
    """
    directory = Path(directory)
    schema = _writable_schema(inferred.schema)
    values = _template_values(inferred, schema, table_path, directory)
    texts = {name: _render(name, values) for name in FILES}
    try:
        _check_overwrite(directory, texts, overwrite=overwrite)
        _write_files(directory, texts, schema)
    except OSError as err:
        raise storage_error(str(directory), err) from err
    return [directory / name for name in texts]


def project_name(table_path: str) -> str:
    """Derive a project name from the file name of a table: `s3://lake/My Sales.csv.gz` gives `My-Sales`."""
    stem = PurePosixPath(table_path).name.removesuffix(".gz").rpartition(".")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem[0] or stem[2])
    return name.lstrip("_.-").rstrip("-") or "project"


def _writable_schema(schema: TableSchema) -> TableSchema:
    """Return the schema without category lists that a config cannot hold; training reads them from the table.

    Raises:
        ConfigError: The name of the schema is not a valid project name.
    """
    if not PROJECT_NAME.fullmatch(schema.name):
        raise ConfigError(
            f"{schema.name!r} cannot be the name of a project",
            hint="use letters, digits and any of _ . - with a letter or digit first: --name NAME",
        )
    columns = {
        name: column.model_copy(update={"values": None}) if MANDATORY in (column.values or ()) else column
        for name, column in schema.columns.items()
    }
    return schema.model_copy(update={"columns": columns})


def _template_values(inferred: InferredSchema, schema: TableSchema, table_path: str, directory: Path) -> dict[str, Any]:
    """Compute the values that the templates insert."""
    settings = schema.model_dump(mode="json", exclude_defaults=True)
    del settings["columns"]
    reader = reader_for(table_path).model_dump(mode="json", exclude_none=True)
    if reader.get("delimiter") == ",":
        del reader["delimiter"]
    return {
        "table_path": printable(table_path),
        "findings": [line for finding in inferred.findings for line in format_bullet(finding)],
        "settings": settings,
        "columns": {name: _column_settings(column) for name, column in schema.columns.items()},
        "notes": inferred.notes,
        "name": schema.name,
        "schema_path": (directory / SCHEMA_FILE).as_posix(),
        "reader": reader,
        "has_time": schema.time is not None,
        "metrics": [metric.name for metric in default_metrics(schema.target.task)],
        "slices": _slice_columns(schema),
        "lag_comments": _lag_comments(schema),
    }


def _column_settings(column: Column) -> dict[str, Any]:
    """Return the keys of a column that differ from the defaults; `unseen` too if there are categories."""
    settings = column.model_dump(mode="json", exclude_defaults=True)
    if column.values is not None:
        settings["unseen"] = column.unseen
    for bound in ("min", "max"):
        if bound in settings and float(settings[bound]).is_integer() and abs(settings[bound]) < 1e15:
            settings[bound] = int(settings[bound])
    return settings


def _slice_columns(schema: TableSchema) -> list[str]:
    names = [
        name
        for name, column in schema.columns.items()
        if column.feature and (column.kind == "boolean" or 1 < len(column.values or ()) <= MAX_SLICED_VALUES)
    ]
    return names[:MAX_SLICES]


def _lag_comments(schema: TableSchema) -> list[str]:
    """Return a comment that names the columns computed from earlier rows, which a table to predict must hold."""
    if not schema.lag_columns:
        return []
    names = ", ".join(schema.lag_columns)
    return format_comment(f"{names}: computed from earlier rows, which the table must hold; or add the columns.")


def _render(name: str, values: dict[str, Any]) -> str:
    environment = jinja2.Environment(  # nosec B701
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701  the output is YAML; `entry` quotes what YAML could misread
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    text: str = environment.get_template(f"{name}.jinja").render(values, entry=format_entry)
    return text


def _check_overwrite(directory: Path, names: Iterable[str], *, overwrite: bool) -> None:
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory}: is a file, not a folder", hint="name another folder with --out")
    if directory.is_dir() and not overwrite and any(directory.iterdir()):
        raise ConfigError(
            f"{directory}: is not empty", hint="name another folder with --out, or replace it with --overwrite"
        )
    for name in names:
        if (directory / name).is_dir():
            raise ConfigError(f"{directory / name}: is a folder where a file is to be written")


def _write_files(directory: Path, texts: dict[str, str], schema: TableSchema) -> None:
    """Write all files into a temporary folder, check them, and move them into place."""
    target = directory.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        _check_roundtrip(temporary / SCHEMA_FILE, schema)
        if directory.exists():  # possibly the working directory, which must not be replaced
            for name in texts:
                (temporary / name).replace(directory / name)
        else:
            temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_roundtrip(path: Path, schema: TableSchema) -> None:
    """Read the schema file back and compare it.

    Raises:
        ConfigError: The file holds another schema, because YAML cannot express a name or label.
    """
    try:
        is_same = load_document(str(path), TableSchema) == schema
    except ConfigError as err:
        raise ConfigError(f"the schema {schema.name} cannot be written as a config: {err.message}") from err
    if not is_same:
        raise ConfigError(f"the schema {schema.name} cannot be written as a config", hint="use plainer column names")
