"""A commented config folder for a table: it runs as it is, and says in its comments what to change."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from textwrap import indent, wrap
from typing import Any

import yaml

from model_name.core.metrics import default_metrics
from model_name.core.profiling.schema_inference import InferredSchema
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.errors import ConfigError
from model_name.io.configs import SHARED_FILE, Loader, load_document
from model_name.io.datasets import reader_for
from model_name.io.storage import storage_error

SCHEMA = "schema.yaml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # what a registered model may be called
WIDTH = 120
SLICED_VALUES = 10  # a column with more is no slice: most would be too small to measure
SLICES = 5
UNWRITABLE = "???"  # OmegaConf's mark of a value that is to be filled in; it cannot be escaped

HEADER = """\
# What the table is: the one source of truth about it, inferred from {table}. Correct what is wrong.
# kind: numeric, category, boolean, datetime, or text-id (names a row; no model looks at it).
# nullable: values may be missing. min, max: what lies beyond is refused (or `out_of_bounds: clip`, `drop`).
# values: the categories; others count as missing (or `unseen: refuse`).
# feature: false hides a column from the model. sensitive: true keeps its values out of logs.
# encode, history: how it becomes features, and what it tells of earlier rows (docs/features.md).
"""

PREPARATION = """\
# Hold the table against its schema, before anything costly looks at it.
job:
  KIND: PreparationJob
"""

TUNING = """\
# Search all kinds of model on folds of the training part, and blend the best; the held-out rows are never looked at.
# One kind alone: `model: {KIND: BoostedTrees}`, `searcher: {KIND: OptunaSearcher, space: {max_leaf_nodes: [15, 31]}}`.
job:
  KIND: TuningJob
  model: {KIND: AutoModel}
  searcher:
    KIND: AutoSearcher
    budget_seconds: 90s  # or --budget 30s; the default trees are always tried, and taken where no blend is better
"""

TRAINING = """\
# Fit a model, measure it on the held-out rows, prove its export and register it as a version.
job:
  KIND: TrainingJob
  model: {KIND: AutoModel}  # `model-name schema TrainingJob` lists the kinds and their hyperparameters
"""

EVALUATIONS = """\
# Measure a version against thresholds, the champion, a constant and default trees, and slice by slice.
job:
  KIND: EvaluationsJob
  ref: latest
"""

EXPLANATIONS = """\
# Say what a version looks at, by SHAP values on held-out rows.
job:
  KIND: ExplanationsJob
  ref: latest
  rows: 200
"""

REPORTS = """\
# Write the page about a version: verdict, metrics, gate, explanations, data, lineage.
job:
  KIND: ReportJob
  ref: latest
"""

PROMOTION = """\
# The gate: a version becomes champion if it reaches the thresholds and is no worse than the champion.
job:
  KIND: PromotionJob
  ref: latest
  gate: {margin: 0.01, slice_margin: 0.05}  # how much worse it may be, as a share of the champion's value
"""

INFERENCE = """\
# Predict every row of a table; a killed run goes on where it was. The target need not be in the table.
job:
  KIND: InferenceJob
  ref: champion
  # table: {path: new-rows.parquet}  # by default the table of the project
"""


class Dumper(yaml.SafeDumper):
    """Quotes every text that plain YAML or `configs.Loader` would take for something else: NO, 1, 1e5, 2013-01-01."""


def _represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    # Double quotes alone keep a text with line breaks or control characters on its line.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


Dumper.add_representer(str, _represent_text)
Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Loader.yaml_implicit_resolvers}
}


def write_project(directory: str | Path, inferred: InferredSchema, table_path: str, *, overwrite: bool = False) -> list[Path]:
    """Write the config folder of a table: its schema, what its jobs share, and a file for each job.

    Args:
        directory: The folder; made if it is not there, also its parents.
        inferred: What the table is. The name of its schema becomes the name of the project.
        table_path: Where the table is, as the jobs will find it.
        overwrite: Whether files of an earlier project in the folder are replaced. Others are left alone.

    Returns:
        The files.

    Raises:
        ConfigError: The folder holds something already, no reader fits the table, or a name cannot be written.
        StorageError: The disk is full, or the place cannot be written.
    """
    directory = Path(directory)
    schema = _writable(inferred.schema)
    texts = {
        SCHEMA: _schema_text(inferred, schema, table_path),
        SHARED_FILE: _project_text(schema, table_path, directory),
        "preparation.yaml": PREPARATION,
        "tuning.yaml": TUNING,
        "training.yaml": TRAINING,
        "evaluations.yaml": EVALUATIONS + _slices_text(schema),
        "explanations.yaml": EXPLANATIONS,
        "promotion.yaml": PROMOTION,
        "reports.yaml": REPORTS,
        "inference.yaml": _inference_text(schema),
    }
    try:
        _refuse_to_lose(directory, texts, overwrite=overwrite)
        _put(directory, texts, schema)
    except OSError as err:
        raise storage_error(str(directory), err) from err
    return [directory / name for name in texts]


def project_name(table_path: str) -> str:
    """The name of a table's file as that of a project: `s3://lake/My Sales.csv.gz` is `My-Sales`."""
    stem = PurePosixPath(table_path).name.removesuffix(".gz").rpartition(".")
    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem[0] or stem[2])
    return words.lstrip("_.-").rstrip("-") or "project"


def _writable(schema: TableSchema) -> TableSchema:
    """The schema without the lists of categories that no config file can hold: training takes them from the table.

    Raises:
        ConfigError: Its name cannot be that of a project.
    """
    if not NAME.fullmatch(schema.name):
        raise ConfigError(
            f"{schema.name!r} cannot be the name of a project",
            hint="use letters, digits and any of _ . - with a letter or digit first: --name NAME",
        )
    columns = {
        name: column.model_copy(update={"values": None}) if UNWRITABLE in (column.values or ()) else column
        for name, column in schema.columns.items()
    }
    return schema.model_copy(update={"columns": columns})


def _refuse_to_lose(directory: Path, names: Iterable[str], *, overwrite: bool) -> None:
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory}: is a file, not a folder", hint="name another folder with --out")
    if directory.is_dir() and not overwrite and any(directory.iterdir()):
        raise ConfigError(
            f"{directory}: is not empty", hint="name another folder with --out, or replace it with --overwrite"
        )
    for name in names:
        if (directory / name).is_dir():
            raise ConfigError(f"{directory / name}: is a folder where a file is to be written")


def _put(directory: Path, texts: dict[str, str], schema: TableSchema) -> None:
    """Write all files beside the folder before any of them appears in it."""
    place = directory.resolve()
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    part.mkdir(parents=True, exist_ok=True)
    try:
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")
        _prove(part / SCHEMA, schema)
        if directory.exists():  # perhaps the working directory itself, which must not be replaced
            for name in texts:
                (part / name).replace(directory / name)
        else:
            part.replace(directory)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _prove(path: Path, schema: TableSchema) -> None:
    """Read the schema back.

    Raises:
        ConfigError: It is another one: a name or label has no spelling in a config file.
    """
    try:
        is_same = load_document(str(path), TableSchema) == schema
    except ConfigError as err:
        raise ConfigError(f"the schema {schema.name} cannot be written as a config: {err.message}") from err
    if not is_same:
        raise ConfigError(f"the schema {schema.name} cannot be written as a config", hint="use plainer column names")


def _schema_text(inferred: InferredSchema, schema: TableSchema, table_path: str) -> str:
    given = schema.model_dump(mode="json", exclude_defaults=True)
    columns = given.pop("columns")
    lines = [HEADER.format(table=_printable(table_path)), "# Found in the table:\n"]
    lines += [f"{line}\n" for finding in inferred.findings for line in _comment(finding)]
    lines += [_entry(name, value) for name, value in given.items()]
    lines.append("columns:\n")
    for name in columns:
        lines.append(indent(_entry(name, _column(schema.columns[name]), inferred.notes.get(name, "")), "  "))
    return "".join(lines)


def _column(column: Column) -> dict[str, Any]:
    """What to write of a column; `unseen` too where it matters, because that is worth a decision."""
    given = column.model_dump(mode="json", exclude_defaults=True)
    if column.values is not None:
        given["unseen"] = column.unseen
    for bound in ("min", "max"):
        if bound in given and float(given[bound]).is_integer() and abs(given[bound]) < 1e15:
            given[bound] = int(given[bound])
    return given


def _project_text(schema: TableSchema, table_path: str, directory: Path) -> str:
    reader = reader_for(table_path).model_dump(mode="json", exclude_none=True)
    if reader.get("delimiter") == ",":
        del reader["delimiter"]
    splitter, words = ("TimeSplitter", "the newest rows") if schema.time else ("RandomSplitter", "rows at random")
    shared = [
        _entry("name", schema.name),
        _entry("schema", (directory / SCHEMA).as_posix()),
        _entry("table", reader),
        _entry("splitter", {"KIND": splitter, "test_size": 0.2}, f"{words} are held out"),
        "metrics:  # the first one decides; a version beyond a threshold is not promoted\n",
    ]
    metrics = default_metrics(schema.target.task)
    shared += [f"  - {{name: {metric.name}}}\n" for metric in metrics]
    shared.append(f"  # - {{name: {metrics[0].name}, threshold: 0.5}}  # so, with the worst value that you accept\n")
    title = "# What all jobs of this folder share: merged before each file beside it.\n"
    return f"{title}job:\n" + indent("".join(shared), "  ")


def _inference_text(schema: TableSchema) -> str:
    """What a batch must bring: where columns are made of earlier rows, these must be in the table."""
    names = ", ".join(schema.histories)
    more = f"{names}: made of earlier rows, which must then be in the table with what they look at; or bring them."
    lines = wrap(_printable(more), WIDTH, initial_indent="# ", subsequent_indent="# ") if names else []
    title, job = INFERENCE.split("\n", 1)
    return "\n".join([title, *lines, job])


def _slices_text(schema: TableSchema) -> str:
    names = [
        name
        for name, column in schema.columns.items()
        if column.feature and (column.kind == "boolean" or 1 < len(column.values or ()) <= SLICED_VALUES)
    ]
    return indent(_entry("slices", names[:SLICES], "columns whose values are measured one by one"), "  ")


def _entry(name: str, value: Any, note: str = "") -> str:
    """`name: value` in YAML that keeps every type, on one line if it fits, with a note as comment."""
    entry = {name: _escaped(value)}
    comment = f"# {_printable(note)}" if note else ""
    line = _dumped(entry, width=10**9, default_flow_style=True).strip()[1:-1]  # without the braces of the flow style
    is_line = len(line) <= WIDTH - 2 and "\n" not in line and not line.startswith("?")
    if is_line and len(f"{line}  {comment}") <= WIDTH - 2:
        return f"{line}  {comment}".rstrip() + "\n"
    text = f"{line}\n" if is_line else _lines(name, value)
    return f"{comment}\n{text}" if comment else text


def _lines(name: str, value: Any) -> str:
    """The same on several lines: a key to each where these can stand below a plain name."""
    head = _dumped({name: {}}, width=10**9, default_flow_style=True).strip()[1:-1].removesuffix(" {}")
    if isinstance(value, dict) and value and head.endswith(":") and not head.startswith("?"):
        return f"{head}\n" + indent("".join(_entry(key, item) for key, item in value.items()), "  ")
    style = None if isinstance(value, dict | list | tuple) else False
    return _dumped({name: _escaped(value)}, width=WIDTH - 10, default_flow_style=style)


def _dumped(value: Any, *, width: int, default_flow_style: bool | None) -> str:
    text: str = yaml.dump(
        value, Dumper=Dumper, width=width, default_flow_style=default_flow_style, allow_unicode=True, sort_keys=False
    )
    return text


def _escaped(value: Any) -> Any:
    """The value as OmegaConf reads it back: `${` is an interpolation there, and a backslash before it an escape."""
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", value)
    return value


def _comment(sentence: str) -> list[str]:
    return wrap(_printable(sentence), WIDTH, initial_indent="# - ", subsequent_indent="#   ", break_on_hyphens=False)


def _printable(text: str) -> str:
    """On one line and without what YAML allows nowhere, not even in a comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
