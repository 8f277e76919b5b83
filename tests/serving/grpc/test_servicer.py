"""What a server answers by gRPC, and the reason that it gives for each bad request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from kserve import InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput

from model_name.serving.dataplane import DataPlane
from tests.support.clients import (
    VERSION,
    Tensor,
    arrays,
    assert_same,
    call_grpc,
    infer_by_grpc,
    request_of,
    run,
    tensors,
)
from tests.support.error_cases import BAD_TENSORS

if TYPE_CHECKING:
    from conftest import Row, Server


@pytest.mark.parametrize("binary", [pytest.param(False, id="typed contents"), pytest.param(True, id="raw contents")])
def test_grpc_answers_as_the_data_plane_does(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, binary: bool, rows: list[Row]
) -> None:
    response = run(infer_by_grpc(servers[task], request_of(servers[task], arrays(rows), binary=binary)))
    assert response.model_version == VERSION
    assert_same(response, planes[task].predict_rows(rows), task)


@pytest.mark.parametrize("binary", [pytest.param(False, id="typed"), pytest.param(True, id="raw")])
def test_grpc_answers_in_the_encoding_of_the_request(servers: dict[str, Server], binary: bool, rows: list[Row]) -> None:
    request = request_of(servers["multiclass"], arrays(rows), binary=binary).to_grpc()
    response = call_grpc(servers["multiclass"], "ModelInfer", request)
    assert bool(response.raw_output_contents) is binary
    assert [output.HasField("contents") for output in response.outputs] == [not binary] * 2


def test_grpc_sends_the_outputs_that_are_asked_for(servers: dict[str, Server], rows: list[Row]) -> None:
    request = request_of(
        servers["binary"], arrays(rows), binary=True, request_outputs=[RequestedOutput("probabilities")]
    )
    assert [output.name for output in run(infer_by_grpc(servers["binary"], request)).outputs] == ["probabilities"]


def test_grpc_refuses_another_version_than_the_one_it_has(servers: dict[str, Server], rows: list[Row]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        run(
            infer_by_grpc(
                servers["binary"], request_of(servers["binary"], arrays(rows), binary=True, model_version="6")
            )
        )
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"version 6 was asked for, binary is at {VERSION}"


def test_grpc_refuses_raw_bytes_that_do_not_fit(servers: dict[str, Server], rows: list[Row]) -> None:
    request = request_of(servers["regression"], arrays(rows), binary=True).to_grpc()
    request.raw_input_contents[0] = b"1234"
    with pytest.raises(grpc.RpcError) as caught:
        call_grpc(servers["regression"], "ModelInfer", request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "area: the data are not FP64 of shape [3]"


@pytest.mark.parametrize(("changes", "reason"), BAD_TENSORS)
def test_grpc_refuses_bad_tensors(
    servers: dict[str, Server], rows: list[Row], changes: dict[str, Tensor | None], reason: str
) -> None:
    full = [{name: rows[0][name] if value is None else value for name, value in row.items()} for row in rows]
    inputs = [InferInput(**tensor) for tensor in tensors(full, **changes)]
    with pytest.raises(grpc.RpcError) as caught:
        run(infer_by_grpc(servers["regression"], InferRequest("regression", inputs)))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(reason)


# Prediction intervals


@pytest.mark.parametrize("binary", [pytest.param(True, id="binary"), pytest.param(False, id="typed")])
def test_grpc_answers_the_ends_of_the_interval(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row], binary: bool
) -> None:
    expected = planes["regression"].predict_rows(rows, interval=0.9).columns
    request = request_of(servers["regression"], arrays(rows), binary=binary, parameters={"interval": "0.9"})
    response = run(infer_by_grpc(servers["regression"], request))
    assert {output.name: output.as_numpy().tolist() for output in response.outputs} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_grpc_refuses_a_level_that_there_is_not(servers: dict[str, Server], rows: list[Row]) -> None:
    request = request_of(servers["regression"], arrays(rows), binary=True, parameters={"interval": "0.5"})
    with pytest.raises(grpc.RpcError) as caught:
        run(infer_by_grpc(servers["regression"], request))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "the levels are 0.8, 0.9" in caught.value.details()
