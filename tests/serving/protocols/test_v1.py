"""V1 over a server: responses, prediction intervals, and the error of each invalid request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from model_name.serving.dataplane import DataPlane
from tests.support.clients import (
    post_v1,
)
from tests.support.error_cases import BAD_VALUES

if TYPE_CHECKING:
    from tests.support.server_processes import Server
    from tests.support.tables import Row


@pytest.mark.parametrize(
    "as_rows", [pytest.param(dict, id="objects"), pytest.param(lambda row: [*row.values()], id="arrays")]
)
def test_v1_responds_with_the_outputs_of_the_data_plane(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, as_rows: Any, rows: list[Row]
) -> None:
    expected = planes[task].predict_rows(rows)
    body = post_v1(servers[task], {"instances": [as_rows(row) for row in rows]}).json()
    assert body.pop("predictions") == expected.prediction.tolist()
    if expected.probabilities is not None:
        labels = {"binary": ["false", "true"], "multiclass": ["low", "fair", "high"]}[task]
        assert [list(row) for row in body["probabilities"]] == [labels] * len(rows)
        assert [list(row.values()) for row in body.pop("probabilities")] == expected.probabilities.tolist()
    assert body == {}


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/x-www-form-urlencoded", ""])
def test_v1_decodes_json_of_any_content_type(servers: dict[str, Server], content_type: str, rows: list[Row]) -> None:
    response = post_v1(servers["regression"], {"instances": rows}, headers={"content-type": content_type})
    assert (response.status_code, len(response.json()["predictions"])) == (200, len(rows))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(5, 'the body is not an object with "instances"', id="a number"),
        pytest.param([], 'the body is not an object with "instances"', id="a list"),
        pytest.param({"inputs": []}, 'the body is not an object with "instances"', id="no instances"),
        pytest.param({"instances": {"area": 1}}, 'Expected "instances" to be a list', id="an object for instances"),
        pytest.param({"instances": None}, 'Expected "instances" to be a list', id="null for instances"),
        pytest.param({"instances": []}, "the request holds no row", id="no row"),
        pytest.param({"instances": [5]}, "the row is neither an object nor an array", id="a number for a row"),
        pytest.param({"instances": [[1, 2]]}, "the row has 2 values, the model has 6 inputs", id="a short array"),
        pytest.param({"instances": [{}]}, "area: column is missing (and age, ", id="an empty object"),
        pytest.param(
            {"instances": [{"area": 1}, {}]}, "area: column is missing in row 1", id="an empty object after another"
        ),
    ],
)
def test_v1_rejects_a_body_without_a_table(servers: dict[str, Server], body: Any, reason: str) -> None:
    response = post_v1(servers["regression"], body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(reason)


@pytest.mark.parametrize(("name", "value", "reason"), BAD_VALUES)
def test_v1_rejects_an_invalid_value_by_its_column(
    servers: dict[str, Server], name: str, value: Any, reason: str, rows: list[Row]
) -> None:
    body = json.dumps({"instances": [rows[0] | {name: value}]})  # httpx would refuse NaN before the server can
    response = servers["regression"].client.post("/v1/models/regression:predict", content=body)
    assert (response.status_code, response.json()) == (400, {"error": reason})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"price": 1.0}, "price: is the target; a request must not carry it", id="the target"),
        pytest.param({"rent": 1.0}, "rent: is not a column of flats", id="an unknown column"),
        pytest.param({"heating": ...}, "heating: column is missing", id="a missing column"),
    ],
)
def test_v1_rejects_a_row_with_other_columns(
    servers: dict[str, Server], rows: list[Row], row: Row, reason: str
) -> None:
    merged = {name: value for name, value in (rows[0] | row).items() if value is not ...}
    response = post_v1(servers["regression"], {"instances": [merged]})
    assert (response.status_code, response.json()) == (400, {"error": reason})


def test_v1_rejects_a_request_by_the_number_of_its_invalid_row(servers: dict[str, Server], rows: list[Row]) -> None:
    response = post_v1(servers["regression"], {"instances": [*rows, rows[0] | {"area": 501, "age": "old"}]})
    assert (response.status_code, response.json()) == (400, {"error": "age, row 3: not a number"})


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-www-form-urlencoded", "text/csv", "image/png"]
)
@pytest.mark.parametrize("body", [b"{", b"", b"area=61.5", b"\xff\xfe", b'{"instances": [{"area": nan}]}', b"[" * 5000])
def test_v1_rejects_a_body_that_is_not_json(servers: dict[str, Server], content_type: str, body: bytes) -> None:
    url = f"/v1/models/{servers['regression'].name}:predict"
    response = servers["regression"].client.post(url, content=body, headers={"content-type": content_type})
    assert response.status_code == 400
    assert response.json()["error"].startswith("the body is not JSON")


# Prediction intervals


def test_v1_responds_with_intervals_of_the_requested_level(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row]
) -> None:
    # Given
    plain = planes["regression"].predict_rows(rows).prediction
    half = np.where(plain <= 300, 15.0, 30.0)
    # When
    body = post_v1(servers["regression"], {"instances": rows, "parameters": {"interval": 0.9}}).json()
    # Then
    assert body == {
        "predictions": [
            {"prediction": x, "lower": low, "upper": high}
            for x, low, high in zip(plain, plain - half, plain + half, strict=True)
        ]
    }


@pytest.mark.parametrize(
    ("task", "parameters", "reason"),
    [
        pytest.param(
            "regression",
            {"interval": 0.5},
            "there is no prediction interval of level 0.5; the levels are 0.8, 0.9",
            id="an unknown level",
        ),
        pytest.param("regression", {"interval": "wide"}, "interval: 'wide' is not a number", id="not a number"),
        pytest.param("regression", {"interval": "nan"}, "there is no prediction interval of level nan", id="NaN"),
        pytest.param("regression", {"interval": [0.9]}, "is not a number", id="a list"),
        pytest.param("regression", [0.9], '"parameters" is not an object', id="a list for the parameters"),
        pytest.param("binary", {"interval": 0.9}, "this is a classification", id="a classification"),
        pytest.param("multiclass", {"interval": 0.9}, "this is a classification", id="more than two classes"),
    ],
)
def test_v1_rejects_an_unknown_interval_level(
    servers: dict[str, Server], rows: list[Row], task: str, parameters: Any, reason: str
) -> None:
    response = post_v1(servers[task], {"instances": rows, "parameters": parameters})
    assert response.status_code == httpx.codes.BAD_REQUEST
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="no parameter"),
        pytest.param({"interval": None}, id="a null"),
        pytest.param({"colour": "red"}, id="another parameter"),
    ],
)
def test_v1_responds_with_plain_numbers_without_a_level(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row], parameters: Any
) -> None:
    body = post_v1(servers["regression"], {"instances": rows, "parameters": parameters}).json()
    assert body == {"predictions": planes["regression"].predict_rows(rows).prediction.tolist()}
