"""Responses over gRPC, and the reason of each refused request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from kserve import InferInput, InferRequest
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput

from model_name.serving.dataplane import DataPlane
from tests.support.clients import (
    VERSION,
    Tensor,
    assert_same_outputs,
    call_grpc,
    infer_by_grpc,
    kserve_request,
    run_async,
    to_arrays,
    to_json_tensors,
)
from tests.support.error_cases import BAD_TENSORS

if TYPE_CHECKING:
    from tests.support.server_processes import Server
    from tests.support.tables import Row


@pytest.mark.parametrize("binary", [pytest.param(False, id="typed contents"), pytest.param(True, id="raw contents")])
def test_grpc_returns_the_predictions_of_the_data_plane(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, binary: bool, rows: list[Row]
) -> None:
    response = run_async(infer_by_grpc(servers[task], kserve_request(servers[task], to_arrays(rows), binary=binary)))
    assert response.model_version == VERSION
    assert_same_outputs(response, planes[task].predict_rows(rows), task)


@pytest.mark.parametrize("binary", [pytest.param(False, id="typed"), pytest.param(True, id="raw")])
def test_a_response_has_the_encoding_of_its_request(servers: dict[str, Server], binary: bool, rows: list[Row]) -> None:
    request = kserve_request(servers["multiclass"], to_arrays(rows), binary=binary).to_grpc()
    response = call_grpc(servers["multiclass"], "ModelInfer", request)
    assert bool(response.raw_output_contents) is binary
    assert [output.HasField("contents") for output in response.outputs] == [not binary] * 2


def test_only_requested_outputs_are_returned(servers: dict[str, Server], rows: list[Row]) -> None:
    request = kserve_request(
        servers["binary"], to_arrays(rows), binary=True, request_outputs=[RequestedOutput("probabilities")]
    )
    assert [output.name for output in run_async(infer_by_grpc(servers["binary"], request)).outputs] == ["probabilities"]


def test_another_version_is_refused(servers: dict[str, Server], rows: list[Row]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        run_async(
            infer_by_grpc(
                servers["binary"], kserve_request(servers["binary"], to_arrays(rows), binary=True, model_version="6")
            )
        )
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == f"there is no version 6 of binary here; this server serves {VERSION}"


def test_raw_bytes_of_the_wrong_length_are_refused(servers: dict[str, Server], rows: list[Row]) -> None:
    request = kserve_request(servers["regression"], to_arrays(rows), binary=True).to_grpc()
    request.raw_input_contents[0] = b"1234"
    with pytest.raises(grpc.RpcError) as caught:
        call_grpc(servers["regression"], "ModelInfer", request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "area: the data are not FP64 of shape [3]"


@pytest.mark.parametrize(("changes", "reason"), BAD_TENSORS)
def test_invalid_tensors_are_refused(
    servers: dict[str, Server], rows: list[Row], changes: dict[str, Tensor | None], reason: str
) -> None:
    full = [{name: rows[0][name] if value is None else value for name, value in row.items()} for row in rows]
    inputs = [InferInput(**tensor) for tensor in to_json_tensors(full, **changes)]
    with pytest.raises(grpc.RpcError) as caught:
        run_async(infer_by_grpc(servers["regression"], InferRequest("regression", inputs)))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(reason)


# Prediction intervals


@pytest.mark.parametrize("binary", [pytest.param(True, id="binary"), pytest.param(False, id="typed")])
def test_interval_bounds_are_returned(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row], binary: bool
) -> None:
    expected = planes["regression"].predict_rows(rows, interval=0.9).columns
    request = kserve_request(servers["regression"], to_arrays(rows), binary=binary, parameters={"interval": "0.9"})
    response = run_async(infer_by_grpc(servers["regression"], request))
    assert {output.name: output.as_numpy().tolist() for output in response.outputs} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_an_unavailable_interval_level_is_refused(servers: dict[str, Server], rows: list[Row]) -> None:
    request = kserve_request(servers["regression"], to_arrays(rows), binary=True, parameters={"interval": "0.5"})
    with pytest.raises(grpc.RpcError) as caught:
        run_async(infer_by_grpc(servers["regression"], request))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "the levels are 0.8, 0.9" in caught.value.details()


# Deadlines


def test_a_call_whose_deadline_has_passed_is_not_computed(servers: dict[str, Server], rows: list[Row]) -> None:
    # Given a server that computes large requests one after another
    server = servers["regression"]
    many = kserve_request(server, to_arrays(rows * 20_000), binary=True).to_grpc()

    def predicted_rows() -> int:
        stats = server.client.get(f"/v2/models/{server.name}/stats").json()
        return int(stats["model_stats"][0]["inference_count"])

    before = predicted_rows()
    with grpc.insecure_channel(server.grpc_url) as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer.future
        computed = [infer(many, timeout=120) for _ in range(4)]
        # When a call waits behind them for longer than its client does
        expired = infer(many, timeout=0.05)
        assert expired.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert [call.code() for call in computed] == [grpc.StatusCode.OK] * 4
        assert infer(kserve_request(server, to_arrays(rows), binary=True).to_grpc()).code() == grpc.StatusCode.OK
    # Then its rows are not predicted
    assert predicted_rows() - before == 4 * len(rows) * 20_000 + len(rows)
