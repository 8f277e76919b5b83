import json
import re
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import fsspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas import Outputs
from model_name.errors import ConfigError, DataError, DependencyError, NotFoundError
from model_name.io.prediction_log_reader import read_predictions
from model_name.serving.prediction_log.log import LogSettings, PredictionLog
from tests.support.prediction_logs import CLASSES, DAY, NOON, ROW, batch, files, manifest, schema

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def log(url, *batches, **settings):
    writer = PredictionLog(LogSettings(url=str(url), text_ids=True, **settings), slot="blue")
    writer.start()
    for each in batches:
        writer.put(each)
    writer.close(20)
    assert writer.dropped == 0
    return str(url)


@pytest.fixture(params=["path", "file", "memory"])
def url(request, tmp_path):
    return {"path": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{uuid4().hex}/log"}[request.param]


def test_logged_predictions_are_read_as_a_table(url):
    row = ROW | {"age": 3}
    table = read_predictions(log(url, batch([ROW, row, ROW], sizes=[2, 1])))
    assert list(table.columns[:10]) == [
        "time",
        "request_id",
        "row",
        "protocol",
        "slot",
        "model",
        "version",
        "semver",
        "latency_ms",
        "weight",
    ]
    assert table["time"].tolist() == [pd.Timestamp(NOON, unit="s", tz="UTC")] * 3
    assert table["time"].dtype == "datetime64[ns, UTC]"
    assert table["request_id"].tolist() == ["request-0", "request-0", "request-1"]
    assert table["row"].tolist() == [0, 1, 0]
    assert table["latency_ms"].tolist() == [3.42] * 3
    assert table["weight"].tolist() == [1.0] * 3
    assert table["prediction"].tolist() == [0.0, 0.5, 1.0]
    assert table["inputs.age"].dtype == float
    assert table["inputs.age"].fillna(-1).tolist() == [-1, 3, -1]
    assert {name: table[f"inputs.{name}"][0] for name in ROW if name != "age"} == {k: ROW[k] for k in ROW if k != "age"}


def test_traces_are_read_if_a_request_has_one(tmp_path):
    assert "trace_id" not in read_predictions(log(tmp_path / "none", batch([ROW] * 2)))
    table = read_predictions(log(tmp_path / "one", batch([ROW] * 3, sizes=[1, 2], trace_ids=["", "4bf92f35"])))
    assert table["trace_id"].tolist() == [None, "4bf92f35", "4bf92f35"]


def test_weighted_sums_of_a_sample_estimate_those_of_all_requests(tmp_path):
    # Given a tenth of 20 000 requests of one or two rows, in one batch for each
    writer = PredictionLog(LogSettings(url=str(tmp_path), sampling=0.1), slot="blue")
    writer.start()
    batches = [batch([ROW | {"area": 1.0}]), batch([ROW | {"area": 2.0}] * 2, sizes=[2])]
    for _ in range(10_000):
        for each in batches:
            writer.put(each)
    writer.close(20)
    # Then the weights are those of a tenth, and the weighted number of rows and sum of a column are about the true ones
    table = read_predictions(str(tmp_path))
    assert {*table["weight"].round(9)} == {10.0}
    assert table["weight"].sum() == pytest.approx(30_000, rel=0.14)  # six standard deviations
    assert (table["weight"] * table["inputs.area"]).sum() == pytest.approx(50_000, rel=0.14)


OLD_LINES = (
    b'{"time":"2025-06-21T12:00:00.5Z","request_id":"a","row":0,"protocol":"v1","slot":"","model":"flats","version":"7",'
    b'"semver":"1.2.3","inputs":{"area":61.5,"sold":"2025-03-07T09:30:00"},"outputs":{"prediction":1.5},'
    b'"latency_ms":3.42}\n'
    b'{"time":"2025-06-21T12:00:01Z","request_id":"b","row":1,"protocol":"v2","slot":"","model":"flats","version":"7",'
    b'"semver":"1.2.3","inputs":{"area":null,"sold":null},"outputs":{"prediction":2.5,"lower":1.0,"upper":4.0},'
    b'"latency_ms":0.5}\n'
)


def test_lines_of_older_releases_are_read(tmp_path):
    # Given a folder with rows of the release that wrote a line per row, and of this one
    log(tmp_path, batch())
    [file] = files(tmp_path)
    (file.parent / "old.jsonl").write_bytes(OLD_LINES)
    # Then they are in one table
    table = read_predictions(str(tmp_path)).sort_values("request_id", ignore_index=True)
    assert table["request_id"].tolist() == ["a", "b", "request-0"]
    assert table["time"].tolist()[0] == pd.Timestamp(NOON + 0.5, unit="s", tz="UTC")
    assert table["time"].dtype == "datetime64[ns, UTC]"
    assert table["row"].tolist() == [0, 1, 0]
    assert table["weight"].tolist() == [1.0] * 3
    assert table["inputs.area"].fillna(-1).tolist() == [61.5, -1, 61.5]
    assert table["inputs.sold"].tolist() == ["2025-03-07T09:30:00", None, "2025-03-07T09:30:00"]
    assert table["prediction"].tolist() == [1.5, 2.5, 0.0]
    assert table["upper"].fillna(-1).tolist() == [-1, 4.0, -1]


def test_a_line_of_a_newer_release_is_an_error(tmp_path):
    log(tmp_path, batch())
    [file] = files(tmp_path)
    file.write_bytes(file.read_bytes() + b'{"format": 3}\n')
    with pytest.raises(DataError, match=r"line 2: has format 3, this release reads up to 2"):
        read_predictions(str(tmp_path))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_probabilities_have_one_column_per_class(tmp_path, task):
    classes = CLASSES[task]
    probabilities = np.full((1, len(classes)), 1 / len(classes))
    outputs = Outputs(np.array(classes[:1], dtype=object), probabilities, tuple(classes))
    table = read_predictions(log(tmp_path, batch(of=manifest(schema(task)), outputs=outputs)))
    assert table["prediction"].tolist() == classes[:1]
    names = {"binary": ["false", "true"], "multiclass": classes}[task]
    assert [table[f"probability_{name}"][0] for name in names] == probabilities[0].tolist()


def test_intervals_are_read_if_they_were_requested(tmp_path):
    intervals = Outputs(np.array([1.0]), lower=np.array([0.5]), upper=np.array([2.0]))
    table = read_predictions(log(tmp_path, batch(outputs=intervals), batch()))
    assert table["lower"].fillna(-1).tolist() == [0.5, -1]
    assert table["upper"].fillna(-1).tolist() == [2.0, -1]


@given(
    st.lists(
        st.tuples(
            st.none() | NUMBERS, st.none() | st.booleans(), st.none() | st.text(max_size=5), st.none() | st.datetimes()
        )
    )
)
def test_inputs_read_from_the_log_pass_the_schema(values):
    rows = [ROW | {"area": a, "is_let": b, "district": c, "sold": d and d.isoformat()} for a, b, c, d in values]
    url = f"memory://{uuid4().hex}"
    answered = batch([ROW, *rows])
    table = read_predictions(log(url, answered))
    inputs = {name: table[f"inputs.{name}"].to_numpy() for name in ROW}
    decoded = schema().decode(inputs, names=list(ROW))
    for name, expected in answered.inputs.items():
        np.testing.assert_array_equal(decoded[name], expected)


@pytest.mark.parametrize(
    ("days", "since", "until"),
    [
        pytest.param([0, 1, 2], None, None, id="all"),
        pytest.param([1, 2], datetime(2025, 6, 22, tzinfo=UTC), None, id="since a day"),
        pytest.param([1, 2], datetime(2025, 6, 22, 12), None, id="since its own moment, without a zone"),
        pytest.param([1, 2], "2025-06-22", None, id="since a day as text"),
        pytest.param([0, 1], None, "2025-06-22T14:00:01+02:00", id="until a moment as text"),
        pytest.param([2], datetime(2025, 6, 22, 12, 0, 0, 1, tzinfo=UTC), None, id="since a moment later"),
        pytest.param([0], None, datetime(2025, 6, 22, 12, tzinfo=UTC), id="until its own moment"),
        pytest.param([0, 1], None, datetime(2025, 6, 22, 12, 0, 1, tzinfo=UTC), id="until a moment later"),
        pytest.param(
            [1],
            datetime(2025, 6, 22, 1, 0, 1, tzinfo=timezone(timedelta(hours=13))),
            datetime(2025, 6, 23, tzinfo=UTC),
            id="between moments, one in another zone",
        ),
    ],
)
def test_a_time_range_selects_rows(tmp_path, days, since, until):
    log(tmp_path, *[batch([ROW | {"area": float(day)}], received_at=NOON + day * DAY) for day in range(3)])
    assert read_predictions(str(tmp_path), since=since, until=until)["inputs.area"].tolist() == days


def test_files_of_other_days_and_versions_are_not_opened(tmp_path):
    versions = ["7", "8", "a/b %"]
    log(
        tmp_path,
        *[batch(of=manifest(schema(), each), received_at=NOON + day * DAY) for each in versions for day in (0, 1)],
    )
    for file in files(tmp_path):
        if not ("06-22" in str(file) and "a%2Fb" in str(file)):
            file.unlink()
            file.mkdir()  # cannot be opened
    table = read_predictions(str(tmp_path), since=datetime(2025, 6, 22, tzinfo=UTC), versions=["a/b %"])
    assert table["version"].tolist() == ["a/b %"]


def test_requested_columns_are_returned_in_order(tmp_path):
    log(tmp_path, batch())
    assert list(read_predictions(str(tmp_path), columns=["prediction", "inputs.age"])) == ["prediction", "inputs.age"]
    with pytest.raises(DataError, match=r"inputs\.aeg is not a column of the predictions; did you mean inputs\.age\?"):
        read_predictions(str(tmp_path), columns=["inputs.aeg"])


def test_a_column_missing_in_one_file_keeps_its_type(tmp_path):
    log(tmp_path / "log", batch([ROW]), batch([ROW | {"age": 4}], received_at=NOON + DAY))
    table = read_predictions(str(tmp_path / "log"))
    assert table["inputs.age"].dtype == float


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_an_incomplete_last_line_is_skipped_with_a_warning(tmp_path, logs, cut):
    log(tmp_path, batch([ROW] * 3))
    [file] = files(tmp_path)
    line = file.read_bytes()
    file.write_bytes(line + line[:-cut])
    table = read_predictions(str(tmp_path))
    if cut == 1:  # the newline alone
        assert (len(table), logs) == (6, [])
    else:
        assert len(table) == 3
        assert logs == [
            f"WARNING {file}: skipped the incomplete last line: its server was killed or is still writing\n"
        ]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b'{"format": 2, "model": "flats", "requ', id="truncated"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 50, id="zeros"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"5", id="a number"),
        pytest.param(b"[1]", id="an array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"format": 2}', id="without requests"),
        pytest.param(b'{"time": "2025-06-21T12:00:00Z"}', id="without inputs and outputs"),
        pytest.param(b'{"time": "late", "inputs": {}, "outputs": {"prediction": 1}}', id="an invalid time"),
        pytest.param(b'{"time": null, "inputs": {}, "outputs": {"prediction": 1}}', id="a null time"),
        pytest.param(
            b'{"time": "2025-06-21T12:00:00Z", "inputs": 1, "outputs": 2}', id="numbers for inputs and outputs"
        ),
    ],
)
def test_a_damaged_line_is_skipped_with_a_warning(tmp_path, logs, damage):
    log(tmp_path, batch())
    [file] = files(tmp_path)
    line = file.read_bytes().strip()
    file.write_bytes(b"\n".join([line, damage, line, damage, line, b""]))
    assert len(read_predictions(str(tmp_path))) == 3
    assert logs == [f"WARNING {file}: skipped 2 damaged lines, the first is line 2\n"]


@pytest.mark.parametrize(
    ("place", "change"),
    [
        pytest.param(("requests", "id"), lambda values: values[1:], id="an id is missing"),
        pytest.param(("requests", "rows"), lambda values: [9, *values[1:]], id="too many rows of a request"),
        pytest.param(("requests", "rows"), lambda values: [-1, 2, *values[2:]], id="a negative number of rows"),
        pytest.param(("requests", "rows"), lambda values: [10**18, 2 - 10**18], id="a large number of rows"),
        pytest.param(("requests", "rows"), lambda values: ["1", "1"], id="texts as numbers of rows"),
        pytest.param(("requests", "time"), lambda values: ["late", *values[1:]], id="an invalid time"),
        pytest.param(("requests", "time"), lambda values: [None, *values[1:]], id="a null time"),
        pytest.param(("inputs", "area"), lambda values: values * 2, id="too many values"),
        pytest.param(("inputs", "area"), lambda values: "ab", id="a text for values"),
        pytest.param(("outputs", "prediction"), lambda values: values[1:], id="a prediction is missing"),
        pytest.param(("outputs", "probabilities"), lambda values: {"a": [1.0]}, id="a probability is missing"),
    ],
)
def test_a_block_whose_arrays_do_not_fit_is_skipped_with_a_warning(tmp_path, logs, place, change):
    log(tmp_path, batch([ROW] * 2))
    [file] = files(tmp_path)
    block = json.loads(file.read_bytes())
    parent, name = place
    damaged = block | {parent: block[parent] | {name: change(block[parent].get(name))}}
    file.write_bytes(b"\n".join([json.dumps(damaged).encode(), file.read_bytes()]))
    assert len(read_predictions(str(tmp_path))) == 2
    assert logs == [f"WARNING {file}: skipped 1 damaged lines, the first is line 1\n"]


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_skipped(damage):
    memory = fsspec.filesystem("memory")
    url = log(f"memory://{uuid4().hex}", batch())
    [file] = memory.find(url.removeprefix("memory:/"))
    memory.pipe_file(file, memory.cat(file) + damage)
    assert len(read_predictions(url)) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"since": datetime(2026, 1, 1, tzinfo=UTC)}, id="of that time"),
        pytest.param({"versions": ["8"]}, id="of that version"),
        pytest.param({"until": datetime(2025, 6, 21, 11, tzinfo=UTC)}, id="of that hour"),
    ],
)
def test_an_empty_selection_is_an_error(tmp_path, wanted):
    log(tmp_path, batch())
    (tmp_path / "date=soon").mkdir()
    (tmp_path / "notes.txt").write_text("not a day")
    with pytest.raises(NotFoundError, match=re.escape(f"{tmp_path}: holds no such predictions")) as raised:
        read_predictions(str(tmp_path), **wanted)
    assert "since" in raised.value.hint


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param("/no/such/folder", NotFoundError, id="no such folder"),
        pytest.param("nowhere://x", ConfigError, id="an unknown scheme"),
        pytest.param("oss://bucket/log", DependencyError, id="a package that is not installed"),
    ],
)
def test_an_unreadable_url_is_an_error(url, error):
    with pytest.raises(error, match=url):
        read_predictions(url)
