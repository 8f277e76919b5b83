"""Config folders that `init` writes for a table."""

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from model_name.core.profiling.schema_inference import InferredSchema, infer_schema
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column
from model_name.core.schemas.lags import LagSpec
from model_name.errors import ConfigError, StorageError
from model_name.io.configs import load_document
from model_name.io.datasets import reader_for
from model_name.io.scaffolding import project_name, write_project
from model_name.settings import load_job

ROWS = 150
RNG = np.random.default_rng(3)
JOBS = {
    "preparation": "PreparationJob",
    "tuning": "TuningJob",
    "training": "TrainingJob",
    "evaluations": "EvaluationsJob",
    "explanations": "ExplanationsJob",
    "promotion": "PromotionJob",
    "reports": "ReportJob",
    "inference": "InferenceJob",
}
TARGETS = {
    "regression": RNG.normal(size=ROWS),
    "binary": ["no", "YES", "no"] * (ROWS // 3),
    "multiclass": np.arange(ROWS) % 3,
}


def table(task: str = "regression") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"row {row}" for row in range(ROWS)],
            "when": pd.date_range("2024-01-01", periods=ROWS, freq="5h").floor("s"),
            "country": RNG.choice(["NO", "1", "1e5", "2024-01-01", "no"], ROWS),
            "city": RNG.choice([f"city {number}" for number in range(70)], ROWS),
            "is_new": RNG.random(ROWS) > 0.5,
            "size": RNG.normal(10, 2, size=ROWS),
            "y": TARGETS[task],
        }
    )


def example(**columns: Column) -> InferredSchema:
    schema = TableSchema(
        name="things",
        target=Target(name="y", task="regression"),
        columns={"x": Column(kind="numeric", min=0.5, max=7.0)} | columns,
    )
    return InferredSchema(schema, ("x: is found",), {"x": "1 to 2"})


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv"])
def test_the_folder_runs_unchanged(tmp_path, monkeypatch, task, ending):
    monkeypatch.chdir(tmp_path)
    frame = table(task)
    path = f"things.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")

    files = write_project("confs/things", infer_schema(reader_for(path).read(), name="things", target="y"), path)

    assert files[:2] == [Path("confs/things/schema.yaml"), Path("confs/things/project.yaml")]
    assert sorted(Path("confs/things").iterdir()) == sorted(files)
    jobs = {file.stem: load_job([file], environment={}) for file in files[2:]}
    assert {name: job.KIND for name, job in jobs.items()} == JOBS
    assert jobs["evaluations"].slices == ("country", "is_new")
    job = jobs["training"]
    assert job.resolved_metrics == job.metrics
    assert job.splitter.KIND == "TimeSplitter"
    split = job.read_split()
    assert (len(split.train), len(split.test)) == (120, 30)
    assert job.schema_.columns["country"].values == ("1", "1e5", "2024-01-01", "NO", "no")


def test_without_a_time_column_rows_are_held_out_at_random(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = table().drop(columns="when")
    frame.to_parquet("t.parquet")
    write_project("c", infer_schema(frame, name="t", target="y"), "t.parquet")
    job = load_job(["c/training.yaml"], environment={})
    assert job.splitter.KIND == "RandomSplitter"
    assert len(job.read_split().test) == 30


def test_findings_are_written_above_and_beside_the_columns(tmp_path):
    files = write_project(tmp_path / "c", example(), "t.parquet")
    text = files[0].read_text()
    assert text.index("# - x: is found") < text.index("name: things")
    assert "  x: {kind: numeric, min: 0.5, max: 7}  # 1 to 2\n" in text


def test_a_long_column_is_written_with_one_line_per_key(tmp_path):
    history = LagSpec(of="number of things sold", by=("shop in the city",), lag="168h", repeats=4)
    sold_before = Column(kind="numeric", nullable=True, min=0, max=1e6, history=history)
    schema = TableSchema(
        name="things",
        target=Target(name="number of things sold", task="regression"),
        time="when",
        columns={
            "shop in the city": Column(kind="category"),
            "when": Column(kind="datetime"),
            "sold_before": sold_before,
        },
    )
    files = write_project(tmp_path / "c", InferredSchema(schema, ()), "t.csv")
    lines = [
        "  sold_before:",
        "    kind: numeric",
        "    nullable: true",
        "    min: 0",
        "    max: 1000000",
        "    history: {of: number of things sold, by: [shop in the city], lag: 168h, repeats: 4}",
    ]
    assert "\n".join(lines) in files[0].read_text()
    assert load_document(str(files[0]), TableSchema) == schema
    assert "# sold_before: computed from earlier rows" in files[-1].read_text()


def test_lines_are_short(tmp_path):
    inferred = example(c=Column(kind="category", values=tuple(f"city number {number}" for number in range(90))))
    for file in write_project(
        tmp_path / "c", InferredSchema(inferred.schema, ("word " * 90,), {"c": "note " * 30}), "t.csv"
    ):
        assert max(map(len, file.read_text().splitlines())) < 160


HARD = [
    "NO", "yes", "null", "~", "", " ", "1", "1.0", "1e5", "0x1F", "1_000", "12:30:00", "2024-01-01", "=", "<<", "# no",
    "a: b", "- a", "{a}", "[a", "'", '"', "\\", "a\nb", "a\tb", "\x07", "\x85", "\u2028", "\ufeff", "é", "日本", "😀",
    "${x}", "\\${x}", "a\\\\${", "$", "?", "? a", "!tag", "&a", "*a", "%", "@", "`", "a" * 200, "???x",
]  # fmt: skip


@pytest.mark.parametrize("text", HARD)
def test_texts_that_yaml_could_misread_are_quoted(tmp_path, text):
    schema = TableSchema(
        name="things",
        target=Target(name=f"y{text}", task="binary", classes=(f"no {text}", text)),
        columns={text: Column(kind="category", values=(text, "other"), description=text)},
        key=(text,),
        description=text,
    )
    files = write_project(
        tmp_path / "c", InferredSchema(schema, (text,), {text: text}), f"{text}.csv".replace("\n", "")
    )
    assert load_document(str(files[0]), TableSchema) == schema
    assert yaml.safe_load(files[1].read_text())["job"]["name"] == "things"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda text: text != "???")


@given(
    names=st.lists(TEXTS, min_size=2, max_size=4, unique=True),
    values=st.lists(TEXTS, max_size=4, unique=True),
    finding=TEXTS,
    low=st.floats(-1e30, 0),
    labels=st.sampled_from([(False, True), (0, 1), ("0", "1"), ("no", "1e5")]),
)
@settings(max_examples=60, deadline=None)
def test_any_schema_is_read_back(tmp_path_factory, names, values, finding, low, labels):
    target, *others = names
    columns = {name: Column(kind="category", values=tuple(values), nullable=True) for name in others}
    columns[others[0]] = Column(kind="numeric", min=low, max=1e300, feature=True)
    schema = TableSchema(
        name="things", target=Target(name=target, task="binary", classes=labels), columns=columns, key=tuple(others)
    )
    folder = tmp_path_factory.mktemp("c")
    files = write_project(folder, InferredSchema(schema, (finding,), dict.fromkeys(names, finding)), "t.parquet")
    assert load_document(str(files[0]), TableSchema) == schema


def test_categories_that_a_config_cannot_hold_are_omitted(tmp_path):
    inferred = example(c=Column(kind="category", values=("???", "a")))
    files = write_project(tmp_path / "c", inferred, "t.parquet")
    assert load_document(str(files[0]), TableSchema).columns["c"] == Column(kind="category")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param("data/delays.parquet", "delays", id="a file"),
        pytest.param("My Sales (2024).csv", "My-Sales-2024", id="blanks and brackets"),
        pytest.param("s3://lake/in/orders.v2.csv.gz", "orders.v2", id="a URL, compressed"),
        pytest.param("_hidden.tsv", "hidden", id="no letter first"),
        pytest.param(".parquet", "parquet", id="an extension alone"),
        pytest.param("日本.parquet", "project", id="no allowed letter"),
        pytest.param("straße.csv", "stra-e", id="a letter that is not allowed"),
    ],
)
def test_the_project_name_follows_the_file_name(tmp_path, path, name):
    assert project_name(path) == name
    inferred = example()
    named = InferredSchema(inferred.schema.model_copy(update={"name": name}), inferred.findings)
    write_project(tmp_path / "c", named, "t.parquet")


REFUSED = [
    pytest.param({"name": "a b"}, "t.csv", "cannot be the name of a project", id="an invalid name"),
    pytest.param({}, "t.xlsx", "neither .parquet, .csv nor .tsv", id="an unsupported extension"),
    pytest.param({"description": "???"}, "t.csv", "cannot be written as a config", id="a text that no config can hold"),
]


@pytest.mark.parametrize(("update", "path", "message"), REFUSED)
def test_an_unwritable_project_is_refused_and_leaves_no_file(tmp_path, update, path, message):
    inferred = example()
    with pytest.raises(ConfigError, match=message):
        write_project(tmp_path / "c", InferredSchema(inferred.schema.model_copy(update=update), ()), path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "schema.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        write_project(tmp_path, example(), "t.parquet")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_overwriting_keeps_other_files(tmp_path):
    (tmp_path / "schema.yaml").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    files = write_project(tmp_path, example(), "t.parquet", overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert load_document(str(files[0]), TableSchema) == example().schema
    assert len(list(tmp_path.iterdir())) == len(files) + 1


def test_an_empty_working_directory_is_accepted(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    files = write_project(".", example(), "t.parquet")
    assert files[0] == Path("schema.yaml")
    assert Path("training.yaml").is_file()
    assert load_job(["training.yaml"], environment={}).name == "things"


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(lambda folder: folder.write_text(""), id="a file of its name"),
        pytest.param(lambda folder: (folder / "tuning.yaml").mkdir(parents=True), id="a folder instead of a file"),
    ],
)
def test_conflicting_files_and_folders_are_not_replaced(tmp_path, block):
    block(tmp_path / "c")
    with pytest.raises(ConfigError, match="is a f"):
        write_project(tmp_path / "c", example(), "t.parquet", overwrite=True)


def test_an_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_project(tmp_path / "file" / "c", example(), "t.parquet")


@pytest.mark.parametrize("has_project", [False, True], ids=["a new folder", "an earlier project"])
def test_a_full_disk_leaves_no_partial_project(tmp_path, monkeypatch, has_project):
    folder = tmp_path / "c"
    if has_project:
        write_project(folder, example(), "old.parquet")
    before = {file: file.read_text() for file in tmp_path.rglob("*.yaml")}
    write_text = Path.write_text

    def full(self: Path, text: str, **kwargs: str) -> int:
        if self.name == "promotion.yaml":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(self, text, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_project(folder, example(), "new.parquet", overwrite=True)
    assert {file: file.read_text() for file in tmp_path.rglob("*.yaml")} == before
    assert [path.name for path in tmp_path.iterdir()] == (["c"] if has_project else [])
