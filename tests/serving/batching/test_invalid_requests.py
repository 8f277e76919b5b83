"""Invalid requests of a batch get their errors; the others are predicted together, at a linear cost."""

import json
from typing import Any

import pytest

from model_name.core.schemas.columns import Columns
from model_name.errors import DataError
from model_name.serving.batching.requests import InferenceRequest, infer_batch
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import V1Request
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

REQUESTS = 64
ROWS = 3  # of a request, more than are predicted row by row


class CountingPlane(DataPlane):
    """Data plane that counts how many rows it validates and predicts."""

    def __init__(self) -> None:
        super().__init__(plane_of(manifest_of(table_of())).bundle)
        self.validated: list[int] = []
        self.predicted: list[int] = []

    def check(self, table: Any) -> Columns:
        self.validated.append(len(next(iter(table.values()))))
        return super().check(table)

    def predict_matrix(self, matrix: Any, **options: Any) -> Any:
        self.predicted.append(len(matrix))
        return super().predict_matrix(matrix, **options)


def request(*, is_valid: bool, parameters: Any = None) -> InferenceRequest:
    rows = [EXAMPLE] * (ROWS - 1) + [EXAMPLE if is_valid else EXAMPLE | {"area": -1}]
    document = {"instances": rows} | ({"parameters": parameters} if parameters else {})
    return V1Request(json.dumps(document).encode(), "1")


@pytest.mark.parametrize(
    "invalid",
    [
        pytest.param(set(), id="none"),
        pytest.param({0}, id="the first"),
        pytest.param({REQUESTS - 1}, id="the last"),
        pytest.param({*range(0, REQUESTS, 2)}, id="every second"),
        pytest.param({*range(REQUESTS)} - {7}, id="all but one"),
        pytest.param({*range(REQUESTS)}, id="all"),
    ],
)
def test_each_request_is_validated_alone_at_most_once(invalid: set[int]) -> None:
    # Given a batch of which some requests are invalid
    plane = CountingPlane()
    requests = [request(is_valid=position not in invalid) for position in range(REQUESTS)]
    # When it is inferred
    result = infer_batch(plane, requests, Limits())
    # Then exactly those fail, and the others are predicted in one forward pass
    failed = {position for position, response in enumerate(result.responses) if isinstance(response, DataError)}
    assert failed == invalid
    assert all(json.loads(result.responses[position]) for position in {*range(REQUESTS)} - invalid)
    assert len(plane.predicted) <= 1
    assert sum(plane.predicted) == ROWS * (REQUESTS - len(invalid))
    # And each row is validated three times at most
    assert sum(plane.validated) <= 3 * ROWS * REQUESTS


def test_an_error_of_all_requests_is_the_response_to_each() -> None:
    plane = CountingPlane()
    requests = [request(is_valid=position > 0, parameters={"interval": 0.123}) for position in range(REQUESTS)]
    responses = infer_batch(plane, requests, Limits()).responses
    assert all(isinstance(response, DataError) for response in responses)
    assert responses[0].message == "area, row 2: -1.0 is below 0.0"
    assert len({response.message for response in responses[1:]}) == 1
    assert sum(plane.validated) <= 4 * ROWS * REQUESTS
