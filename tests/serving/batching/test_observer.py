"""Observer of batches: what is in the prediction log is what was requested and answered."""

import json
from uuid import uuid4

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.serving.batching.observer import log_predictions
from model_name.serving.batching.requests import infer_batch
from model_name.serving.limits import Limits
from model_name.serving.prediction_log.log import LogSettings, PredictionLog
from model_name.serving.protocols.v1 import V1Request
from tests.support.prediction_logs import expand
from tests.support.tables import FLAT_ROWS, TASKS

NUMBERS = st.floats(8.0, 140.0) | st.integers(8, 140)
ROWS = st.sampled_from(FLAT_ROWS).flatmap(
    lambda row: st.fixed_dictionaries({name: st.just(value) for name, value in row.items()} | {"area": NUMBERS})
)
BATCHES = st.lists(st.lists(ROWS, min_size=1, max_size=3), min_size=1, max_size=12)  # of requests of some rows


@pytest.mark.parametrize("task", TASKS)
@given(batches=st.lists(BATCHES, min_size=1, max_size=4), data=st.data())
def test_logged_rows_are_those_of_the_requests_with_their_responses(planes, task, batches, data):
    # Given a log of some batches, among them requests that are invalid, and traces
    plane = planes[task]
    url = f"memory://{uuid4().hex}"
    log = PredictionLog(LogSettings(url=url), slot="blue")
    log.start()
    expected = {}
    for batch in batches:
        invalid = data.draw(st.none() | st.integers(0, len(batch) - 1))
        requests = []
        for number, rows in enumerate(batch):
            sent = [row | {"area": "wide"} for row in rows] if number == invalid else rows
            request = V1Request(json.dumps({"instances": sent}).encode(), uuid4().hex)
            request.trace_id = data.draw(st.sampled_from(["", "4bf92f3577b34da6a3ce929d0e0e4736"]))
            requests.append(request)
        result = infer_batch(plane, requests, Limits())
        log_predictions(log, plane.bundle.manifest, result.groups)
        for number, (request, rows, response) in enumerate(zip(requests, batch, result.responses, strict=True)):
            if number != invalid:
                expected[request.id] = (request, rows, json.loads(response))
    log.close(20)
    # When it is read
    memory = fsspec.filesystem("memory")
    lines = [line for path in memory.find(url.removeprefix("memory:/")) for line in memory.cat(path).splitlines()]
    logged = {}
    for line in lines:
        for record in expand(json.loads(line)):
            logged.setdefault(record["request_id"], []).append(record)
    # Then each valid request has its rows in order, with the values that were sent and the predictions of its response
    assert logged.keys() == expected.keys()
    for name, (request, rows, response) in expected.items():
        records = logged[name]
        assert [record["row"] for record in records] == list(range(len(rows)))
        assert [record["inputs"] for record in records] == rows
        assert [record["outputs"]["prediction"] for record in records] == response["predictions"]
        if "probabilities" in response:
            assert [record["outputs"]["probabilities"] for record in records] == response["probabilities"]
        assert {record.get("trace_id") or "" for record in records} == {request.trace_id}
        assert {(record["protocol"], record["weight"], record["version"]) for record in records} == {
            ("v1", 1.0, plane.bundle.manifest.version)
        }
