"""Phases of traced requests, as their batch records them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from model_name.errors import DataError
from model_name.serving.batching.request_trace import RequestTrace
from model_name.serving.batching.requests import BatchResult, InferenceRequest, infer_batch
from model_name.serving.batching.traced_batch import trace_batches
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import V1Request
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

PLANE = plane_of(manifest_of(table_of()))
LIMITS = Limits()
GOOD, BAD_ROW, NO_JSON = {"instances": [EXAMPLE, EXAMPLE]}, {"instances": [EXAMPLE | {"area": "wide"}]}, None


def make_requests(bodies: Sequence[object], *, is_sampled: bool = True) -> list[V1Request]:
    """Create a traced request for each body; None is a body that is not JSON."""
    requests = []
    for number, body in enumerate(bodies):
        request = V1Request(b"{" if body is None else json.dumps(body).encode(), str(number))
        request.trace = RequestTrace("1" * 32, {}, is_sampled)
        requests.append(request)
    return requests


def phases_of(request: V1Request) -> list[str]:
    """Check that the phases follow one another, and list them."""
    assert request.trace
    times = [moment for phase in request.trace.phases.values() for moment in phase]
    assert times == sorted(times)
    return [*request.trace.phases]


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        pytest.param([GOOD], ["queue decode compute encode"], id="alone"),
        pytest.param([GOOD, GOOD], ["queue decode compute encode"] * 2, id="together"),
        pytest.param([NO_JSON, GOOD], ["queue decode", "queue decode compute encode"], id="beside a broken body"),
        pytest.param(
            [GOOD, BAD_ROW, GOOD],
            ["queue decode compute encode", "queue decode compute", "queue decode compute encode"],
            id="beside a bad row",
        ),
        pytest.param(
            [GOOD, GOOD | {"parameters": {"interval": 0.9}}], ["queue decode compute encode"] * 2, id="of two levels"
        ),
    ],
)
def test_each_request_has_the_phases_that_it_reached(bodies: list[object], expected: list[str]) -> None:
    requests = make_requests(bodies)
    result = trace_batches(infer_batch)(PLANE, requests, LIMITS)
    assert [" ".join(phases_of(request)) for request in requests] == expected
    assert [request.trace and request.trace.rows for request in requests] == [
        2 if "encode" in phases else 0 for phases in expected
    ]
    assert {request.trace and request.trace.batch_requests for request in requests} == {len(bodies)}
    assert [not isinstance(response, DataError) for response in result.responses] == ["encode" in it for it in expected]


def test_requests_that_are_not_sampled_have_no_phases() -> None:
    requests = make_requests([GOOD], is_sampled=False)
    expected = infer_batch(PLANE, make_requests([GOOD]), LIMITS).responses
    assert trace_batches(infer_batch)(PLANE, requests, LIMITS).responses == expected
    assert phases_of(requests[0]) == []


@pytest.mark.parametrize("is_failing", [False, True])
def test_another_computation_is_one_phase(is_failing: bool) -> None:
    def explain(plane: DataPlane, requests: Sequence[InferenceRequest], limits: Limits) -> BatchResult:
        if is_failing:
            raise ZeroDivisionError
        return BatchResult([b"{}"])

    requests = make_requests([GOOD])
    traced = trace_batches(explain)
    if is_failing:
        with pytest.raises(ZeroDivisionError):
            traced(PLANE, requests, LIMITS)
    else:
        assert traced(PLANE, requests, LIMITS).responses == [b"{}"]
    assert phases_of(requests[0]) == ["queue", "compute"]
