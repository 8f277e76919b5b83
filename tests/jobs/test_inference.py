"""Batch inference: the predictions of the pyfunc, resumed after a kill, locally and behind URLs."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from model_name.batch_inference.predictor import BatchPredictor
from model_name.core import dataframes
from model_name.core.decisions.decision import Decision, PredictionIntervals
from model_name.core.models import model_kinds
from model_name.errors import ConfigError, DataError, DependencyError, NotFoundError, PreemptedError, StorageError
from model_name.io.partitioned_output import OutputPart
from model_name.serving.bundle import Bundle, read_manifest, write_manifest
from model_name.training.export import export_bundle, set_version

ROWS = 250  # in parts of 100, 100 and 50
DEADLINE_SECONDS = 60.0
CHILD = """
import sys
from model_name.jobs.inference import InferenceJob
with InferenceJob.model_validate_json(sys.stdin.read()) as job:
    job.run()
"""


@pytest.fixture
def table(make_table):
    return make_table("regression", rows=ROWS, seed=1)


@pytest.fixture
def out(workplace):
    return workplace / "out"


@pytest.fixture
def interrupt(monkeypatch):
    """Return `interrupt(job, row)`, which runs a job that is preempted at this row."""

    def run_until(job, row):
        predict = BatchPredictor.predict

        def preempted(self, chunk):
            if chunk.first_row >= row:
                raise PreemptedError("SIGTERM")
            return predict(self, chunk)

        with monkeypatch.context() as patch:
            patch.setattr(BatchPredictor, "predict", preempted)
            with pytest.raises(PreemptedError):
                run(job)

    return run_until


def run(job):
    with job:
        return job.run()


def parts(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.parquet"))}


def predictions(url):
    filesystem, root = fsspec.core.url_to_fs(str(url))
    return pd.concat([pd.read_parquet(filesystem.open(path)) for path in sorted(filesystem.glob(f"{root}/part-*"))])


def with_value(table, row, **values):
    changed = table.astype(dict.fromkeys(values, object))
    for name, value in values.items():
        changed.loc[row, name] = value
    return changed.infer_objects()


# Predictions


def test_predictions_equal_those_of_the_pyfunc(make_job, make_table, make_schema, fitted, task):
    # Given a table that the model was not trained on, with target, and the predictions of the pyfunc
    table = make_table(task, rows=ROWS, seed=1)
    expected = fitted("BoostedTrees", task).predict(dataframes.check_frame(table, make_schema(task)).frame)
    # When the table is predicted
    result = run(make_job(table, task))
    # Then the output has the keys in their order with the same predictions
    output = predictions(result.outputs)
    assert (result.rows, result.predicted, result.resumed, result.semver) == (ROWS, ROWS, 0, "1.2.0")
    assert list(output) == ["code", *expected]
    assert list(output["code"]) == list(table["code"])
    for name in expected:
        if expected[name].dtype.kind == "f":
            np.testing.assert_allclose(output[name], expected[name], rtol=1e-4, atol=1e-4)
        else:
            assert list(output[name]) == list(expected[name])


def test_parts_have_the_configured_size_and_a_success_marker(make_job, table, out):
    run(make_job(table))
    sizes = {path.name: pq.read_metadata(path).num_rows for path in out.glob("*.parquet")}
    assert sizes == {"part-00000.parquet": 100, "part-00001.parquet": 100, "part-00002.parquet": 50}
    assert (out / "_SUCCESS").exists()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"threads": 1}, id="one thread"),
        pytest.param({"batch_rows": 7}, id="batches that do not divide a part"),
        pytest.param({"batch_rows": 1000}, id="batches larger than a part"),
        pytest.param({"part_rows": 1000}, id="one part"),
        pytest.param({"part_rows": 1, "batch_rows": 1}, id="a part for each row"),
    ],
)
def test_chunks_and_threads_change_no_prediction(make_job, table, options):
    expected = run(make_job(table.head(60), outputs="expected"))
    result = run(make_job(**options))
    pd.testing.assert_frame_equal(
        predictions(result.outputs).reset_index(drop=True), predictions(expected.outputs).reset_index(drop=True)
    )


def test_kept_columns_have_the_types_of_the_schema(make_job, make_table):
    table = make_table("binary", rows=ROWS)
    result = run(make_job(table, "binary", keep=["mark", "maybe", "gap", "moment"]))
    output = pq.read_table(result.outputs)
    assert {field.name: str(field.type) for field in output.schema} == {
        "mark": "string",
        "maybe": "bool",
        "gap": "double",
        "moment": "timestamp[us]",
        "prediction": "bool",
        "probability_false": "double",
        "probability_true": "double",
    }
    assert output["mark"].to_pylist() == table["mark"].tolist()
    assert output["maybe"].to_pylist() == table["maybe"].tolist()
    assert output["gap"].null_count == table["gap"].isna().sum()


def test_without_a_key_the_output_has_row_numbers(make_job, table, make_schema):
    result = predictions(run(make_job(table, schema=make_schema("regression", key=[]))).outputs)
    assert list(result["row"]) == list(range(ROWS))


def test_a_column_that_is_null_for_a_whole_part_keeps_its_type(make_job, table):
    table.loc[:120, "mark"] = None
    result = pq.read_table(run(make_job(table, keep=["mark"])).outputs)["mark"]
    assert result.to_pylist() == table["mark"].tolist()


def test_a_csv_file_is_predicted_and_resumed(make_job, table, workplace, interrupt):
    expected = predictions(run(make_job(table, outputs="expected")).outputs)
    table.to_csv(workplace / "table.csv", index=False)
    job = make_job(table={"KIND": "CsvReader", "path": str(workplace / "table.csv")})
    interrupt(job, 150)
    result = run(job)
    assert (result.resumed, result.rows) == (100, ROWS)
    pd.testing.assert_frame_equal(predictions(result.outputs), expected)


def test_the_limit_of_the_reader_applies(make_job, table, workplace):
    make_job(table)
    result = run(make_job(table={"KIND": "ParquetReader", "path": str(workplace / "table.parquet"), "limit": 130}))
    assert (result.rows, len(predictions(result.outputs))) == (130, 130)


def test_a_bundle_needs_no_registry(make_job, table):
    job = make_job(table, mlflow={"tracking_uri": "http://127.0.0.1:1"})
    assert run(job).predicted == ROWS


def test_progress_is_reported(make_job, table, monkeypatch):
    reports = []

    def on_progress(done, total, detail):
        reports.append((done, total))

    monkeypatch.setattr("model_name.io.progress._log_progress", lambda title: on_progress)
    run(make_job(table))
    assert reports == sorted(reports)
    assert reports[-1] == (ROWS, ROWS)


# Validation


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"group": None}, "group, row 133: is missing", id="missing"),
        pytest.param({"size": float("inf")}, "size, row 133: inf is not finite", id="infinite"),
        pytest.param({"moment": "yesterday"}, "moment, row 133: not a date and time (ISO 8601)", id="another kind"),
    ],
)
def test_a_bad_row_is_named_by_its_number_in_the_table(make_job, table, out, workplace, values, reason):
    # Given an invalid row in the second part
    bad = with_value(table, 133, **values)
    if "moment" in values:
        bad["moment"] = bad["moment"].astype(str)
    # When the table is predicted
    with pytest.raises(DataError) as caught:
        run(make_job(bad))
    # Then the row is named; the first part is kept, the second is not written
    assert caught.value.message == f"{workplace}/table.parquet: {reason}"
    assert sorted(path.name for path in out.iterdir()) == ["_job.json", "part-00000.parquet"]


def test_an_error_in_the_next_part_does_not_discard_this_one(make_job, table, out):
    with pytest.raises(DataError, match="row 100: is missing"):
        run(make_job(with_value(table, 100, group=None), batch_rows=100))
    assert list(parts(out)) == ["part-00000.parquet"]


def test_the_only_row_of_the_last_batch_is_named(make_job, table):
    with pytest.raises(DataError, match="group, row 249: is missing"):
        run(make_job(with_value(table, 249, group=None), batch_rows=83))


@pytest.fixture
def dropping(make_schema):
    """Return a schema with a column whose bad rows are dropped, and one whose bad values are clipped."""
    raw = make_schema("regression").model_dump()
    raw["columns"]["size"] |= {"min": 0.0, "out_of_bounds": "drop"}
    return raw


def test_dropped_rows_are_counted_and_reported(make_job, table, dropping, capsys):
    # Given three rows to drop, two unseen categories and a value to clip
    bad = with_value(table, [3, 120, 121], size=-1)
    bad = with_value(bad, [7, 8], mark="z")
    bad = with_value(bad, 9, gap=50.0)
    # When the table is predicted
    result = run(make_job(bad, schema=dropping))
    # Then all other rows are predicted, and the changes are reported
    output = predictions(result.outputs)
    assert list(output["code"]) == list(bad["code"].drop([3, 120, 121]))
    assert (result.rows, result.predicted) == (ROWS, ROWS - 3)
    assert result.findings == (
        "3 of 250 rows dropped: size is below 0.0",
        "1 values of gap clipped to its bounds",
        "2 values of mark are unseen categories, taken as missing",
    )
    assert "3 of 250 rows dropped" in capsys.readouterr().err


def test_findings_and_counts_survive_a_kill(make_job, table, dropping, interrupt):
    bad = with_value(table, [3, 120], size=-1)
    interrupt(make_job(bad, schema=dropping), 210)
    result = run(make_job(schema=dropping))
    assert (result.rows, result.predicted, result.resumed) == (ROWS, ROWS - 2, 198)
    assert result.findings == ("2 of 250 rows dropped: size is below 0.0",)


def test_a_part_whose_rows_are_all_dropped_is_written_empty(make_job, make_table, make_schema):
    raw = make_schema("binary").model_dump()
    raw["columns"]["size"] |= {"min": 0.0, "out_of_bounds": "drop"}
    bad = with_value(make_table("binary", rows=ROWS), list(range(100, 200)), size=-1)
    result = run(make_job(bad, "binary", schema=raw))
    assert (result.rows, result.predicted) == (ROWS, 150)
    empty = pq.read_table(f"{result.outputs}/part-00001.parquet")
    assert empty.num_rows == 0
    assert empty.schema.equals(pq.read_table(f"{result.outputs}/part-00000.parquet").schema)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_an_empty_table_is_refused(make_job, table, workplace, out, kind):
    table.head(0).to_csv(workplace / "table.csv", index=False)
    readers = {"parquet": "ParquetReader", "csv": "CsvReader"}
    make_job(table.head(0))
    with pytest.raises(DataError, match="the table is empty"):
        run(make_job(table={"KIND": readers[kind], "path": str(workplace / f"table.{kind}")}))
    assert not (out / "_SUCCESS").exists()


def test_a_missing_column_is_named(make_job, table):
    with pytest.raises(DataError, match=r"table\.parquet: gap: column is missing"):
        run(make_job(table.drop(columns="gap")))


def test_a_missing_target_is_accepted(make_job, table):
    assert run(make_job(table.drop(columns="outcome"))).predicted == ROWS


def test_an_extra_column_is_refused(make_job, table):
    with pytest.raises(DataError, match="odd: is not a column of the schema things"):
        run(make_job(table.assign(odd=1)))


def test_an_extra_column_is_dropped_and_reported_if_the_schema_allows_it(make_job, table, make_schema):
    result = run(make_job(table.assign(odd=1), schema=make_schema("regression", extra="drop")))
    assert result.findings == ("column odd is not in the schema and was dropped",)


def test_a_duplicate_column_is_refused(make_job, table, workplace):
    job, plain = make_job(table), pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(plain.append_column("gap", plain["gap"]), workplace / "table.parquet")
    with pytest.raises(DataError, match="gap: the table has this column twice"):
        run(job)


def test_a_missing_table_is_not_found(make_job):
    for path in ("nowhere.parquet", "nowhere.csv"):
        kind = "CsvReader" if path.endswith("csv") else "ParquetReader"
        with pytest.raises(NotFoundError, match="there is no such file"):
            run(make_job(table={"KIND": kind, "path": path}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"keep": ["nothing"]}, "nothing is not a column of the schema", id="unknown column to keep"),
        pytest.param({"keep": ["outcome"]}, "outcome is not a column of the schema", id="the target is no column"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(make_job, table, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        run(make_job(table, **changes))


def test_a_version_of_another_schema_is_refused(make_job, table, make_schema):
    raw = make_schema("regression").model_dump()
    raw["columns"]["gap"]["nullable"] = False
    with pytest.raises(ConfigError, match=r"things 1\.2\.0 was trained on other inputs"):
        run(make_job(table, schema=raw))


# Resume after a kill


def test_a_run_resumes_after_the_last_complete_part(make_job, table, out, interrupt):
    # Given a complete run, and one that was preempted in the second part
    expected = run(make_job(table, outputs="expected"))
    interrupt(make_job(), 130)
    assert list(parts(out)) == ["part-00000.parquet"]
    first = (out / "part-00000.parquet").stat()
    # When the same job is run again
    result = run(make_job())
    # Then the first part was not touched, and the output equals that of the complete run, byte by byte
    assert (result.resumed, result.predicted) == (100, ROWS)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == first.st_mtime_ns
    assert parts(out) == parts(Path(expected.outputs))


def test_a_run_resumes_after_sigkill(make_job, make_table, workplace, out):
    # Given a job in another process, killed once it has written some parts
    job = make_job(make_table("regression", rows=120_000), batch_rows=500, part_rows=2000)
    document = job.model_dump_json(by_alias=True)
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        child.stdin.write(document.encode())
        child.stdin.close()
        until = time.monotonic() + DEADLINE_SECONDS
        while len(parts(out)) < 3:
            assert child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    # Then the parts that exist are complete
    left = sorted(out.glob("part-*.parquet"))
    assert 3 <= len(left) < 60
    assert {pq.read_table(path).num_rows for path in left} == {2000}
    # When the same job is run again
    result = run(job)
    # Then it resumed, and the output equals that of an uninterrupted run
    assert result.resumed == 2000 * len(left)
    expected = run(job.model_copy(update={"outputs": str(workplace / "expected")}))
    assert (result.rows, result.predicted) == (expected.rows, expected.predicted)
    assert {path.name for path in out.iterdir()} == {"_job.json", "_SUCCESS", *parts(out)}
    assert parts(out) == parts(workplace / "expected")


def test_a_preemption_while_a_part_is_written_leaves_no_part(make_job, table, out, monkeypatch):
    def preempted(*_):
        raise PreemptedError("SIGTERM")

    monkeypatch.setattr(OutputPart, "write", preempted)
    with pytest.raises(PreemptedError):
        run(make_job(table))
    assert [path.name for path in out.iterdir()] == ["_job.json"]


def test_a_temporary_file_of_a_killed_writer_is_removed_by_the_next_run(make_job, table, out, interrupt):
    interrupt(make_job(table), 130)
    (out / "part-00001.parquet.4242.part").write_bytes(b"PAR1")
    assert run(make_job()).resumed == 100
    assert not list(out.glob("*.part"))


def test_a_run_after_a_complete_run_starts_from_the_first_row(make_job, table):
    run(make_job(table))
    assert run(make_job()).resumed == 0


def another_table(job, table, workplace):
    stat = (workplace / "table.parquet").stat()
    table.assign(size=table["size"].iloc[::-1].to_numpy()).to_parquet(workplace / "table.parquet", row_group_size=70)
    os.utime(workplace / "table.parquet", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    return job


def more_rows(job, table, workplace):
    pd.concat([table, table.head(1)]).to_parquet(workplace / "table.parquet", row_group_size=70)
    return job


def another_bundle(job, table, workplace):
    shutil.copytree(job.bundle, workplace / "bundle")
    set_version(Bundle.load(workplace / "bundle"), semver="1.3.0", version="4")
    return job.model_copy(update={"bundle": str(workplace / "bundle")})


def another_schema(job, table, workplace):
    raw = job.schema_.model_dump()
    raw["columns"]["gap"]["max"] = 5.0
    return job.model_copy(update={"schema_": type(job.schema_).model_validate(raw)})


@pytest.mark.parametrize(
    "change",
    [
        another_table,
        more_rows,
        another_bundle,
        another_schema,
        pytest.param(lambda job, *_: job.model_copy(update={"part_rows": 50}), id="part_rows"),
        pytest.param(lambda job, *_: job.model_copy(update={"keep": ("size",)}), id="keep"),
    ],
)
def test_a_changed_job_does_not_resume(make_job, table, workplace, out, interrupt, change):
    # Given a killed run
    interrupt(make_job(table), 210)
    assert len(parts(out)) == 2
    # When one of its inputs changes before it is run again
    job = change(make_job(), table, workplace)
    result = run(job)
    # Then no part is reused, and the output equals that in a new folder
    assert result.resumed == 0
    expected = run(job.model_copy(update={"outputs": str(workplace / "expected")}))
    assert parts(out) == parts(Path(expected.outputs))


def test_batches_and_threads_may_change_between_two_runs(make_job, table, interrupt):
    interrupt(make_job(table), 210)
    assert run(make_job(batch_rows=10, threads=1)).resumed == 200


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_lost_or_truncated_part_is_written_again_with_those_after_it(make_job, table, out, interrupt, damage):
    expected = run(make_job(table, outputs="expected"))
    interrupt(make_job(), 210)
    damage(out / "part-00000.parquet")
    assert run(make_job()).resumed == 0
    assert parts(out) == parts(Path(expected.outputs))


# Output folders and URLs


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("part-00000.parquet", "PAR1", id="parts without a state"),
        pytest.param("salaries.parquet", "PAR1", id="another table"),
        pytest.param("_job.json", "[]", id="a foreign state"),
        pytest.param("_SUCCESS", "", id="a foreign success marker"),
    ],
)
def test_a_folder_with_foreign_files_is_refused_and_left_alone(make_job, table, out, name, text):
    out.mkdir()
    (out / name).write_text(text)
    with pytest.raises(ConfigError, match=f"holds {name}, which no such job wrote"):
        run(make_job(table))
    assert (out / name).read_text() == text
    assert len(list(out.iterdir())) == 1


def test_a_file_is_not_a_folder(make_job, table, out):
    out.write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        run(make_job(table))


def test_a_folder_that_cannot_be_made_is_a_storage_error(make_job, table, out):
    out.write_text("")
    with pytest.raises(StorageError, match="cannot be"):
        run(make_job(table, outputs=str(out / "below")))


def test_an_unknown_url_scheme_is_refused(make_job, table):
    with pytest.raises(ConfigError, match="nosuch"):
        run(make_job(table, outputs="nosuch://bucket/out"))


def test_a_url_whose_package_is_missing_is_a_dependency_error(make_job, table):
    fsspec.register_implementation("lacking", "no_such_package.FileSystem", errtxt="install no-such-package")
    with pytest.raises(DependencyError, match="install no-such-package"):
        run(make_job(table, outputs="lacking://bucket/out"))


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def test_table_bundle_and_outputs_may_be_urls(make_job, table, memory, workplace, bundle_of, interrupt):
    # Given table, bundle and outputs behind URLs, and a killed run
    expected = run(make_job(table))
    memory.put(str(workplace / "table.parquet"), "/in/table.parquet")
    memory.put(str(bundle_of("regression")), "/bundle", recursive=True)
    urls = {
        "table": {"KIND": "ParquetReader", "path": "memory://in/table.parquet"},
        "bundle": "memory://bundle",
        "outputs": "memory://out/things",
    }
    interrupt(make_job(**urls), 130)
    assert sorted(memory.ls("/out/things", detail=False)) == ["/out/things/_job.json", "/out/things/part-00000.parquet"]
    # When the job is run again
    result = run(make_job(**urls))
    # Then it resumed, and the output equals that of a local run
    assert (result.outputs, result.resumed) == ("memory://out/things", 100)
    assert {name: memory.cat(f"/out/things/{name}") for name in parts(Path(expected.outputs))} == parts(
        Path(expected.outputs)
    )
    assert memory.exists("/out/things/_SUCCESS")


class FullFile(MemoryFile):
    def write(self, data):
        if FullFileSystem.free is not None:
            FullFileSystem.free -= len(data)
            if FullFileSystem.free < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


class FullFileSystem(MemoryFileSystem):
    """File system that runs out of space."""

    protocol = "full"
    store = {}
    pseudo_dirs = [""]
    free: int | None = None

    def _open(self, path, mode="rb", **options):
        if mode != "wb":
            return super()._open(path, mode, **options)
        file = FullFile(self, self._strip_protocol(path))
        file.commit()
        return file

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("full://", "memory://"))


@pytest.fixture
def disk():
    fsspec.register_implementation("full", FullFileSystem, clobber=True)
    yield FullFileSystem
    FullFileSystem.store.clear()
    FullFileSystem.free = None


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_no_partial_file_and_the_next_run_resumes(make_job, table, disk):
    # Given a disk with room for the first part
    expected = run(make_job(table))
    size = (Path(expected.outputs) / "part-00000.parquet").stat().st_size
    state = (Path(expected.outputs) / "_job.json").stat().st_size
    disk.free = size + state + 500
    # When the disk is full
    with pytest.raises(StorageError, match="the disk is full; nothing was left half-written"):
        run(make_job(outputs="full://out"))
    # Then only complete files are left, and the next run resumes after them
    assert sorted(disk.store) == ["/out/_job.json", "/out/part-00000.parquet"]
    disk.free = None
    assert run(make_job(outputs="full://out")).resumed == 100


# Prediction intervals

INTERVALS = PredictionIntervals(levels=(0.8, 0.9), edges=(), halves=((1.0,), (2.0,)), rows=100)


@pytest.fixture
def with_intervals(tmp_path, bundle_of):
    """Return the folder of a bundle that has prediction intervals."""
    folder = shutil.copytree(bundle_of("regression"), tmp_path / "bundle")
    write_manifest(folder, read_manifest(folder).model_copy(update={"decision": Decision(intervals=INTERVALS)}))
    return str(folder)


def test_a_level_adds_the_bounds_of_the_intervals(make_job, make_table, with_intervals):
    plain = pd.read_parquet(make_job(make_table("regression"), bundle=with_intervals).run().outputs)
    wide = pd.read_parquet(make_job(bundle=with_intervals, interval=0.9).run().outputs)
    assert list(plain.columns) == ["code", "prediction"]
    assert list(wide.columns) == ["code", "prediction", "lower", "upper"]
    assert wide["prediction"].tolist() == plain["prediction"].tolist()
    assert wide["lower"].tolist() == (plain["prediction"] - 2).tolist()
    assert wide["upper"].tolist() == (plain["prediction"] + 2).tolist()


@pytest.mark.parametrize(
    ("task", "level", "reason"),
    [
        pytest.param(
            "regression", 0.5, "job.interval: there is no prediction interval of level 0.5", id="no such level"
        ),
        pytest.param("binary", 0.9, "job.interval: .* this is a classification", id="a classification"),
    ],
)
def test_an_unknown_level_is_refused_before_a_row_is_read(make_job, make_table, with_intervals, task, level, reason):
    bundle = {"bundle": with_intervals} if task == "regression" else {}
    job = make_job(make_table(task), task, interval=level, **bundle)
    with pytest.raises(ConfigError, match=reason):
        job.run()
    assert not Path(job.outputs).exists()


# Lag columns

LAG = {"kind": "numeric", "nullable": True, "history": {"of": "outcome", "by": ["group"], "lag": "21h"}}


@pytest.fixture
def lagged(make_schema, make_table, workplace):
    """Return a schema with a lag column, raw rows of which the last 50 lack the target, and a model with its bundle."""
    columns = make_schema("regression").model_dump(exclude_defaults=True)["columns"]
    schema = make_schema("regression", columns=columns | {"outcome_21h": LAG})
    raw = make_table("regression", rows=ROWS, seed=1)
    train = dataframes.check_frame(dataframes.add_lag_columns(raw, schema), schema).frame
    model = model_kinds()["BoostedTrees"](max_iter=8, min_samples_leaf=5).fit(schema, train)
    (workplace / "bundle").mkdir()
    bundle = export_bundle(model, workplace / "bundle", train, train, name="things", run_id="0" * 32, metrics={})
    set_version(bundle, semver="1.0.0", version="1")
    raw["outcome"] = raw["outcome"].where(raw.index < ROWS - 50)
    return schema, raw, model


def test_lag_columns_of_a_raw_table_are_computed(make_job, lagged, out, workplace):
    # Given rows without the lag column, of which the newest lack the target
    schema, raw, model = lagged
    # When the rows are predicted
    result = run(make_job(raw, schema=schema, bundle=str(workplace / "bundle")))
    # Then the predictions equal those of the table with the lag column
    assert (result.rows, result.predicted) == (ROWS, ROWS)
    expected = model.predict(dataframes.add_lag_columns(raw, schema).drop(columns="outcome"))
    output = pd.read_parquet(out).sort_values("code", key=lambda codes: codes.str[3:].astype(int))
    np.testing.assert_allclose(output["prediction"], expected["prediction"], rtol=1e-4)


def test_a_table_with_the_lag_column_is_streamed(make_job, lagged, workplace):
    schema, raw, _ = lagged
    table = dataframes.add_lag_columns(raw, schema).drop(columns="outcome")
    assert run(make_job(table, schema=schema, bundle=str(workplace / "bundle"))).predicted == ROWS
    assert not (workplace / "build" / "prepared").exists()


def test_a_killed_run_on_a_raw_table_resumes(make_job, lagged, interrupt, workplace):
    schema, raw, _ = lagged
    job = make_job(raw, schema=schema, bundle=str(workplace / "bundle"), threads=1)
    interrupt(job, 210)
    prepared = list((workplace / "build" / "prepared").iterdir())
    result = run(job)
    assert (result.resumed, result.predicted) == (200, ROWS)
    assert list((workplace / "build" / "prepared").iterdir()) == prepared


def test_a_raw_table_without_the_target_is_refused(make_job, lagged, workplace):
    schema, raw, _ = lagged
    job = make_job(raw.drop(columns="outcome"), schema=schema, bundle=str(workplace / "bundle"))
    with pytest.raises(DataError, match="outcome_21h: is a history of outcome") as refused:
        run(job)
    assert refused.value.hint == "bring it, or bring outcome_21h itself"


def test_lag_columns_of_a_csv_file_are_computed(make_job, lagged, workplace):
    schema, raw, _ = lagged
    raw.to_csv(workplace / "table.csv", index=False)
    table = {"KIND": "CsvReader", "path": str(workplace / "table.csv")}
    job = make_job(schema=schema, bundle=str(workplace / "bundle"), table=table)
    assert run(job).predicted == ROWS
