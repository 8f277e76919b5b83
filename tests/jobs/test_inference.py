"""Batch inference: what the pyfunc says, in bounded memory, however often the job is killed."""

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

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision, PredictionIntervals
from model_name.core.models import model_kinds
from model_name.errors import ConfigError, DataError, DependencyError, NotFoundError, PreemptedError, StorageError
from model_name.io.partitioned_output import OutputPart
from model_name.jobs import inference
from model_name.jobs.inference import in_order
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
    """`interrupt(job, row)`: run a job that is preempted at this row."""

    def run_until(job, row):
        predict = inference.Predictor.predict

        def preempted(self, piece):
            if piece.row >= row:
                raise PreemptedError("told to stop")
            return predict(self, piece)

        with monkeypatch.context() as patch:
            patch.setattr(inference.Predictor, "predict", preempted)
            with pytest.raises(PreemptedError):
                run(job)

    return run_until


def run(job):
    with job:
        return job.run()


def parts(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.parquet"))}


def predictions(place):
    filesystem, root = fsspec.core.url_to_fs(str(place))
    return pd.concat([pd.read_parquet(filesystem.open(path)) for path in sorted(filesystem.glob(f"{root}/part-*"))])


def with_value(table, row, **values):
    changed = table.astype(dict.fromkeys(values, object))
    for name, value in values.items():
        changed.loc[row, name] = value
    return changed.infer_objects()


# What is predicted


def test_the_output_is_the_pyfuncs(make_job, make_table, make_schema, fitted, task):
    # Given a table that the model has not seen, target included, and what the pyfunc says of it
    table = make_table(task, rows=ROWS, seed=1)
    expected = fitted("BoostedTrees", task).predict(dataframes.check_frame(table, make_schema(task)).frame)
    # When it is predicted
    result = run(make_job(table, task))
    # Then the key comes back in its order with the same answers
    found = predictions(result.outputs)
    assert (result.rows, result.predicted, result.resumed, result.semver) == (ROWS, ROWS, 0, "1.2.0")
    assert list(found) == ["code", *expected]
    assert list(found["code"]) == list(table["code"])
    for name in expected:
        if expected[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
        else:
            assert list(found[name]) == list(expected[name])


def test_parts_have_the_asked_size_and_the_end_is_told(make_job, table, out):
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
def test_how_it_is_cut_changes_no_prediction(make_job, table, options):
    expected = run(make_job(table.head(60), outputs="expected"))
    found = run(make_job(**options))
    pd.testing.assert_frame_equal(
        predictions(found.outputs).reset_index(drop=True), predictions(expected.outputs).reset_index(drop=True)
    )


def test_kept_columns_come_as_the_schema_types_them(make_job, make_table):
    table = make_table("binary", rows=ROWS)
    result = run(make_job(table, "binary", keep=["mark", "maybe", "gap", "moment"]))
    found = pq.read_table(result.outputs)
    assert {field.name: str(field.type) for field in found.schema} == {
        "mark": "string",
        "maybe": "bool",
        "gap": "double",
        "moment": "timestamp[us]",
        "prediction": "bool",
        "probability_false": "double",
        "probability_true": "double",
    }
    assert found["mark"].to_pylist() == table["mark"].tolist()
    assert found["maybe"].to_pylist() == table["maybe"].tolist()
    assert found["gap"].null_count == table["gap"].isna().sum()


def test_labels_of_several_kinds_become_texts():
    assert inference.label_type((1, "a", False)) == inference.label_type(("a", "b", "c"))
    values = np.array([1, "a", False], dtype=object)
    assert inference.to_arrow(values, inference.label_type((1, "a", False))).to_pylist() == ["1", "a", "false"]


def test_without_a_key_the_rows_are_numbered(make_job, table, make_schema):
    found = predictions(run(make_job(table, schema=make_schema("regression", key=[]))).outputs)
    assert list(found["row"]) == list(range(ROWS))


def test_a_column_that_is_empty_for_a_whole_part_keeps_its_type(make_job, table):
    table.loc[:120, "mark"] = None
    found = pq.read_table(run(make_job(table, keep=["mark"])).outputs)["mark"]
    assert found.to_pylist() == table["mark"].tolist()


def test_a_csv_file_is_predicted_and_resumed_too(make_job, table, workplace, interrupt):
    expected = predictions(run(make_job(table, outputs="expected")).outputs)
    table.to_csv(workplace / "table.csv", index=False)
    job = make_job(table={"KIND": "CsvReader", "path": str(workplace / "table.csv")})
    interrupt(job, 150)
    result = run(job)
    assert (result.resumed, result.rows) == (100, ROWS)
    pd.testing.assert_frame_equal(predictions(result.outputs), expected)


def test_the_limit_of_the_table_counts(make_job, table, workplace):
    make_job(table)
    result = run(make_job(table={"KIND": "ParquetReader", "path": str(workplace / "table.parquet"), "limit": 130}))
    assert (result.rows, len(predictions(result.outputs))) == (130, 130)


def test_a_bundle_needs_no_registry(make_job, table):
    job = make_job(table, mlflow={"tracking_uri": "http://127.0.0.1:1"})
    assert run(job).predicted == ROWS


def test_it_tells_how_far_it_is(make_job, table, monkeypatch):
    told = []
    monkeypatch.setattr("model_name.io.progress._logging", lambda title: lambda *report: told.append(report[:2]))
    run(make_job(table))
    assert told == sorted(told)
    assert told[-1] == (ROWS, ROWS)


# What the schema says of the table


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"group": None}, "group, row 133: is missing", id="missing"),
        pytest.param({"size": float("inf")}, "size, row 133: inf is not finite", id="infinite"),
        pytest.param({"moment": "yesterday"}, "moment, row 133: not a date and time (ISO 8601)", id="another kind"),
    ],
)
def test_a_bad_row_is_named_by_its_place_in_the_table(make_job, table, out, workplace, values, reason):
    # Given a row in the second part that does not fit
    bad = with_value(table, 133, **values)
    if "moment" in values:
        bad["moment"] = bad["moment"].astype(str)
    # When the table is predicted
    with pytest.raises(DataError) as caught:
        run(make_job(bad))
    # Then it is named, the part before it stays and its own is not there
    assert caught.value.message == f"{workplace}/table.parquet: {reason}"
    assert sorted(path.name for path in out.iterdir()) == ["_job.json", "part-00000.parquet"]


def test_what_is_wrong_with_the_next_part_does_not_cost_this_one(make_job, table, out):
    with pytest.raises(DataError, match="row 100: is missing"):
        run(make_job(with_value(table, 100, group=None), batch_rows=100))
    assert list(parts(out)) == ["part-00000.parquet"]


def test_the_only_row_of_the_last_batch_is_named_too(make_job, table):
    with pytest.raises(DataError, match="group, row 249: is missing"):
        run(make_job(with_value(table, 249, group=None), batch_rows=83))


@pytest.fixture
def dropping(make_schema):
    """The schema with a column whose bad rows are dropped, and one whose bad values are clipped."""
    raw = make_schema("regression").model_dump()
    raw["columns"]["size"] |= {"min": 0.0, "out_of_bounds": "drop"}
    return raw


def test_dropped_rows_are_counted_and_told(make_job, table, dropping, capsys):
    # Given three rows to drop, two unseen categories and a value to clip
    bad = with_value(table, [3, 120, 121], size=-1)
    bad = with_value(bad, [7, 8], mark="z")
    bad = with_value(bad, 9, gap=50.0)
    # When the table is predicted
    result = run(make_job(bad, schema=dropping))
    # Then all others are there, and it is said
    found = predictions(result.outputs)
    assert list(found["code"]) == list(bad["code"].drop([3, 120, 121]))
    assert (result.rows, result.predicted) == (ROWS, ROWS - 3)
    assert result.findings == (
        "3 of 250 rows dropped: size is below 0.0",
        "1 values of gap clipped to its bounds",
        "2 values of mark are unseen categories, taken as missing",
    )
    assert "3 of 250 rows dropped" in capsys.readouterr().err


def test_findings_and_rows_survive_a_kill(make_job, table, dropping, interrupt):
    bad = with_value(table, [3, 120], size=-1)
    interrupt(make_job(bad, schema=dropping), 210)
    result = run(make_job(schema=dropping))
    assert (result.rows, result.predicted, result.resumed) == (ROWS, ROWS - 2, 198)
    assert result.findings == ("2 of 250 rows dropped: size is below 0.0",)


def test_a_part_of_which_all_rows_are_dropped_is_there_and_empty(make_job, make_table, make_schema):
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


def test_a_missing_target_is_none_of_its_business(make_job, table):
    assert run(make_job(table.drop(columns="outcome"))).predicted == ROWS


def test_an_extra_column_is_refused(make_job, table):
    with pytest.raises(DataError, match="odd: is not a column of the schema things"):
        run(make_job(table.assign(odd=1)))


def test_an_extra_column_is_dropped_and_told_where_the_schema_says_so(make_job, table, make_schema):
    result = run(make_job(table.assign(odd=1), schema=make_schema("regression", extra="drop")))
    assert result.findings == ("column odd is not in the schema and was dropped",)


def test_a_column_that_comes_twice_is_refused(make_job, table, workplace):
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
def test_what_cannot_be_kept_is_refused(make_job, table, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        run(make_job(table, **changes))


def test_a_version_of_another_schema_is_refused(make_job, table, make_schema):
    raw = make_schema("regression").model_dump()
    raw["columns"]["gap"]["nullable"] = False
    with pytest.raises(ConfigError, match=r"things 1\.2\.0 was trained on other inputs"):
        run(make_job(table, schema=raw))


# Killed, and run again


def test_a_run_goes_on_behind_the_last_complete_part(make_job, table, out, interrupt):
    # Given a run that was preempted in the second part, beside a complete run
    expected = run(make_job(table, outputs="expected"))
    interrupt(make_job(), 130)
    assert list(parts(out)) == ["part-00000.parquet"]
    first = (out / "part-00000.parquet").stat()
    # When the same is run again
    result = run(make_job())
    # Then the first part was not touched, and the whole is that of the complete run, byte by byte
    assert (result.resumed, result.predicted) == (100, ROWS)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == first.st_mtime_ns
    assert parts(out) == parts(Path(expected.outputs))


def test_sigkill_leaves_complete_parts_that_the_next_run_goes_on_from(make_job, make_table, workplace, out):
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
    # Then what is there is complete
    left = sorted(out.glob("part-*.parquet"))
    assert 3 <= len(left) < 60
    assert {pq.read_table(path).num_rows for path in left} == {2000}
    # When the same job is run again
    result = run(job)
    # Then it went on, and nothing tells the outcome from that of an uninterrupted run
    assert result.resumed == 2000 * len(left)
    expected = run(job.model_copy(update={"outputs": str(workplace / "expected")}))
    assert (result.rows, result.predicted) == (expected.rows, expected.predicted)
    assert {path.name for path in out.iterdir()} == {"_job.json", "_SUCCESS", *parts(out)}
    assert parts(out) == parts(workplace / "expected")


def test_a_preemption_while_a_part_is_written_is_one(make_job, table, out, monkeypatch):
    def preempted(*_):
        raise PreemptedError("told to stop")

    monkeypatch.setattr(OutputPart, "write", preempted)
    with pytest.raises(PreemptedError):
        run(make_job(table))
    assert [path.name for path in out.iterdir()] == ["_job.json"]


def test_a_killed_writer_leaves_a_draft_that_the_next_run_removes(make_job, table, out, interrupt):
    interrupt(make_job(table), 130)
    (out / "part-00001.parquet.4242.part").write_bytes(b"PAR1")
    assert run(make_job()).resumed == 100
    assert not list(out.glob("*.part"))


def test_after_a_complete_run_it_starts_anew(make_job, table):
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
def test_parts_of_other_work_are_made_again(make_job, table, workplace, out, interrupt, change):
    # Given a killed run
    interrupt(make_job(table), 210)
    assert len(parts(out)) == 2
    # When what it worked on changes before it is run again
    job = change(make_job(), table, workplace)
    result = run(job)
    # Then nothing of it is left, and the outcome is that of a new folder
    assert result.resumed == 0
    expected = run(job.model_copy(update={"outputs": str(workplace / "expected")}))
    assert parts(out) == parts(Path(expected.outputs))


def test_batches_and_threads_may_change_between_two_runs(make_job, table, interrupt):
    interrupt(make_job(table), 210)
    assert run(make_job(batch_rows=10, threads=1)).resumed == 200


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_part_that_is_gone_or_cut_is_made_again_with_those_behind_it(make_job, table, out, interrupt, harm):
    expected = run(make_job(table, outputs="expected"))
    interrupt(make_job(), 210)
    harm(out / "part-00000.parquet")
    assert run(make_job()).resumed == 0
    assert parts(out) == parts(Path(expected.outputs))


# Where it is written


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("part-00000.parquet", "PAR1", id="parts of nobody"),
        pytest.param("salaries.parquet", "PAR1", id="another table"),
        pytest.param("_job.json", "[]", id="a state of somebody else"),
        pytest.param("_SUCCESS", "", id="a finished folder of somebody else"),
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


def test_a_url_of_no_known_kind_is_refused(make_job, table):
    with pytest.raises(ConfigError, match="nosuch"):
        run(make_job(table, outputs="nosuch://bucket/out"))


def test_a_url_whose_package_is_not_installed_is_told(make_job, table):
    fsspec.register_implementation("lacking", "no_such_package.FileSystem", errtxt="install no-such-package")
    with pytest.raises(DependencyError, match="install no-such-package"):
        run(make_job(table, outputs="lacking://bucket/out"))


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


def test_all_of_it_works_behind_a_url(make_job, table, memory, workplace, bundle_of, interrupt):
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
    # When it is run again
    result = run(make_job(**urls))
    # Then it went on, and the outcome is that of a local run
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
    """A disk that fills up."""

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
def test_a_full_disk_leaves_no_half_part_and_the_next_run_goes_on(make_job, table, disk):
    # Given a disk with room for the first part
    expected = run(make_job(table))
    size = (Path(expected.outputs) / "part-00000.parquet").stat().st_size
    state = (Path(expected.outputs) / "_job.json").stat().st_size
    disk.free = size + state + 500
    # When it fills up
    with pytest.raises(StorageError, match="the disk is full; nothing was left half-written"):
        run(make_job(outputs="full://out"))
    # Then only what is complete is there, and the next run goes on from it
    assert sorted(disk.store) == ["/out/_job.json", "/out/part-00000.parquet"]
    disk.free = None
    assert run(make_job(outputs="full://out")).resumed == 100


# How answers are put in order


def test_answers_come_in_the_order_of_the_items_however_long_each_takes():
    def slowly(number):
        time.sleep(0.01 * (number % 3))
        return number

    assert list(in_order(slowly, range(12), 4)) == list(range(12))


def test_an_answer_that_fails_fails_in_its_turn():
    answers = in_order(lambda number: 1 / (3 - number), iter(range(10)), 2)
    assert [next(answers) for _ in range(3)] == [1 / 3, 1 / 2, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(answers)


def test_memory_holds_two_items_more_than_threads():
    taken = []
    answers = in_order(lambda number: number, (taken.append(number) or number for number in range(100)), 3)
    next(answers)
    assert len(taken) == 5
    answers.close()


# Prediction intervals

INTERVALS = PredictionIntervals(levels=(0.8, 0.9), edges=(), halves=((1.0,), (2.0,)), rows=100)


@pytest.fixture
def with_intervals(tmp_path, bundle_of):
    """The folder of a bundle that has prediction intervals."""
    folder = shutil.copytree(bundle_of("regression"), tmp_path / "bundle")
    write_manifest(folder, read_manifest(folder).model_copy(update={"decision": Decision(intervals=INTERVALS)}))
    return str(folder)


def test_a_level_adds_the_ends_of_the_intervals(make_job, make_table, with_intervals):
    plain = pd.read_parquet(make_job(make_table("regression"), bundle=with_intervals).run().outputs)
    asked = pd.read_parquet(make_job(bundle=with_intervals, interval=0.9).run().outputs)
    assert list(plain.columns) == ["code", "prediction"]
    assert list(asked.columns) == ["code", "prediction", "lower", "upper"]
    assert asked["prediction"].tolist() == plain["prediction"].tolist()
    assert asked["lower"].tolist() == (plain["prediction"] - 2).tolist()
    assert asked["upper"].tolist() == (plain["prediction"] + 2).tolist()


@pytest.mark.parametrize(
    ("task", "level", "reason"),
    [
        pytest.param(
            "regression", 0.5, "job.interval: there is no prediction interval of level 0.5", id="no such level"
        ),
        pytest.param("binary", 0.9, "job.interval: .* this is a classification", id="a classification"),
    ],
)
def test_a_level_that_there_is_not_is_refused_before_a_row_is_read(
    make_job, make_table, with_intervals, task, level, reason
):
    bundle = {"bundle": with_intervals} if task == "regression" else {}
    job = make_job(make_table(task), task, interval=level, **bundle)
    with pytest.raises(ConfigError, match=reason):
        job.run()
    assert not Path(job.outputs).exists()


# Histories

HISTORY = {"kind": "numeric", "nullable": True, "history": {"of": "outcome", "by": ["group"], "lag": "21h"}}


@pytest.fixture
def told(make_schema, make_table, workplace):
    """A schema with a history, raw rows of which the last 50 are to be predicted, and a bundle of such."""
    columns = make_schema("regression").model_dump(exclude_defaults=True)["columns"]
    schema = make_schema("regression", columns=columns | {"outcome_21h": HISTORY})
    raw = make_table("regression", rows=ROWS, seed=1)
    train = dataframes.check_frame(dataframes.add_lag_columns(raw, schema), schema).frame
    model = model_kinds()["BoostedTrees"](max_iter=8, min_samples_leaf=5).fit(schema, train)
    (workplace / "bundle").mkdir()
    bundle = export_bundle(model, workplace / "bundle", train, train, name="things", run_id="0" * 32, metrics={})
    set_version(bundle, semver="1.0.0", version="1")
    raw["outcome"] = raw["outcome"].where(raw.index < ROWS - 50)
    return schema, raw, model


def test_a_raw_table_is_told_of_its_earlier_rows(make_job, told, out, workplace):
    # Given rows without the column, of which the newest lack the target
    schema, raw, model = told
    # When they are predicted
    result = run(make_job(raw, schema=schema, bundle=str(workplace / "bundle")))
    # Then the predictions are those of the table with the column
    assert (result.rows, result.predicted) == (ROWS, ROWS)
    expected = model.predict(dataframes.add_lag_columns(raw, schema).drop(columns="outcome"))
    found = pd.read_parquet(out).sort_values("code", key=lambda codes: codes.str[3:].astype(int))
    np.testing.assert_allclose(found["prediction"], expected["prediction"], rtol=1e-4)


def test_a_table_that_brings_the_column_is_streamed_as_it_is(make_job, told, workplace):
    schema, raw, _ = told
    table = dataframes.add_lag_columns(raw, schema).drop(columns="outcome")
    assert run(make_job(table, schema=schema, bundle=str(workplace / "bundle"))).predicted == ROWS
    assert not (workplace / "build" / "prepared").exists()


def test_a_killed_run_over_a_raw_table_goes_on(make_job, told, interrupt, workplace):
    schema, raw, _ = told
    job = make_job(raw, schema=schema, bundle=str(workplace / "bundle"), threads=1)
    interrupt(job, 210)
    made = list((workplace / "build" / "prepared").iterdir())
    result = run(job)
    assert (result.resumed, result.predicted) == (200, ROWS)
    assert list((workplace / "build" / "prepared").iterdir()) == made


def test_a_raw_table_without_the_target_cannot_be_told_of_it(make_job, told, workplace):
    schema, raw, _ = told
    job = make_job(raw.drop(columns="outcome"), schema=schema, bundle=str(workplace / "bundle"))
    with pytest.raises(DataError, match="outcome_21h: is a history of outcome") as refused:
        run(job)
    assert refused.value.hint == "bring it, or bring outcome_21h itself"


def test_a_csv_file_is_told_of_its_earlier_rows(make_job, told, workplace):
    schema, raw, _ = told
    raw.to_csv(workplace / "table.csv", index=False)
    table = {"KIND": "CsvReader", "path": str(workplace / "table.csv")}
    job = make_job(schema=schema, bundle=str(workplace / "bundle"), table=table)
    assert run(job).predicted == ROWS
