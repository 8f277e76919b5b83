"""Real clients: those of KServe and Triton, the health client of gRPC, curl and the SDK of CloudEvents."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from tritonclient.utils import InferenceServerException

from model_name.core import dataframes
from model_name.core.models import BoostedTrees
from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.training.export import export_bundle
from tests.support.clients import (
    DATATYPES,
    LABEL_DATATYPES,
    METADATA_DATATYPES,
    VERSION,
    assert_same_outputs,
    kserve_request,
    run_async,
    to_arrays,
    to_json_tensors,
)
from tests.support.manifests import table_of

if TYPE_CHECKING:
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

SERVICE = "inference.GRPCInferenceService"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    getattr(health_pb2.HealthCheckResponse, name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)


def expected_outputs(plane: DataPlane, rows: list[Row], interval: float | None = None) -> dict[str, Any]:
    """Predict the outputs that a client has to receive."""
    outputs = plane.predict_rows(rows, interval=interval)
    expected = {name: values.tolist() for name, values in outputs.columns.items()} if interval else {}
    expected["prediction"] = outputs.prediction.tolist()
    if outputs.probabilities is not None:
        expected["probabilities"] = outputs.probabilities.tolist()
    return expected


# REST client of KServe


def test_kserve_client_predicts_over_v1(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, rows: list[Row]
) -> None:
    async def scenario() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
            headers: dict[str, str] = {}
            url = servers[task].url
            response = await client.infer(url, {"instances": rows}, model_name=task, response_headers=headers)
            return await client.is_server_live(url), await client.is_model_ready(url, task), response, headers

    is_live, is_ready, response, headers = run_async(scenario())
    assert (is_live, is_ready) == (True, True)
    assert response["predictions"] == planes[task].predict_rows(rows).prediction.tolist()
    assert ("probabilities" in response) == (task != "regression")
    assert headers["x-model-version"] == VERSION


@pytest.mark.parametrize("binary", [pytest.param(True, id="binary"), pytest.param(False, id="JSON")])
def test_kserve_client_predicts_over_v2(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, rows: list[Row], binary: bool
) -> None:
    rows = [row for row in rows if binary or None not in row.values()]  # in JSON the client does not encode NaN as null

    async def scenario() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            url = servers[task].url
            request = kserve_request(servers[task], to_arrays(rows), binary=binary)
            ready = [await client.is_server_ready(url), await client.is_model_ready(url, task)]
            others = [await client.is_model_ready(url, "nobody")]
            return [await client.is_server_live(url), *ready], others, await client.infer(url, request, model_name=task)

    passing, failing, response = run_async(scenario())
    assert (passing, failing) == ([True] * 3, [False])
    assert_same_outputs(response, planes[task].predict_rows(rows), task)


@pytest.mark.parametrize(
    ("protocol", "body", "reason"),
    [
        pytest.param("v1", {"instances": [{"area": 1}]}, "age: column is missing", id="V1"),
        pytest.param("v2", {"inputs": []}, "area: column is missing", id="V2"),
    ],
)
def test_kserve_client_raises_the_reason(servers: dict[str, Server], protocol: str, body: Any, reason: str) -> None:
    async def scenario() -> None:
        async with InferenceRESTClient(RESTConfig(protocol=protocol)) as client:
            await client.infer(servers["regression"].url, body, model_name="regression")

    with pytest.raises(httpx.HTTPStatusError, match=f"^{reason}.*400 Bad Request"):
        run_async(scenario())


def test_kserve_client_raises_that_explain_is_unsupported(servers: dict[str, Server], rows: list[Row]) -> None:
    async def scenario() -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
            await client.explain(servers["binary"].url, "binary", {"instances": rows})

    with pytest.raises(httpx.HTTPStatusError, match=r"^binary predicts; its explainer is another server, '501"):
        run_async(scenario())


# gRPC client of KServe


def test_kserve_client_predicts_over_grpc(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, rows: list[Row]
) -> None:
    async def scenario() -> Any:
        async with InferenceGRPCClient(servers[task].grpc_url) as client:
            probes = [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready(task)]
            return probes, await client.infer(kserve_request(servers[task], to_arrays(rows), binary=True))

    probes, response = run_async(scenario())
    assert probes == [True] * 3
    assert_same_outputs(response, planes[task].predict_rows(rows), task)


def test_kserve_grpc_client_finds_no_other_model(servers: dict[str, Server]) -> None:
    async def scenario() -> None:
        async with InferenceGRPCClient(servers["binary"].grpc_url) as client:
            await client.is_model_ready("nobody")

    with pytest.raises(grpc.RpcError) as caught:
        run_async(scenario())
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


# Triton's HTTP client


@contextmanager
def triton_client(server: Server) -> Iterator[Any]:
    """Open Triton's HTTP client of a server."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.http_port}", network_timeout=60) as client:
        yield client


def triton_inputs(rows: list[Row], *, binary: bool) -> list[Any]:
    inputs = []
    for name, values in to_arrays(rows).items():
        inputs.append(triton.InferInput(name, list(values.shape), DATATYPES[name]))
        inputs[-1].set_data_from_numpy(values, binary_data=binary)
    return inputs


def result_outputs(result: Any) -> dict[str, Any]:
    """Collect the outputs of a result of Triton's client."""
    arrays = {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}
    return {
        name: [value.decode() if isinstance(value, bytes) else value for value in array.tolist()]
        for name, array in arrays.items()
    }


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="plain"),
        pytest.param({"request_compression_algorithm": "gzip"}, id="gzip"),
        pytest.param({"request_compression_algorithm": "deflate"}, id="deflate"),
        pytest.param({"response_compression_algorithm": "gzip"}, id="a compressed response"),
        pytest.param({"model_version": VERSION}, id="the version"),
        pytest.param({"priority": 1, "timeout": 5_000_000, "parameters": {"colour": "red"}}, id="parameters"),
        pytest.param({"query_params": {"a": 1}, "headers": {"x-request-id": "mine"}}, id="query and headers"),
    ],
)
@pytest.mark.parametrize("binary", [pytest.param(True, id="binary"), pytest.param(False, id="JSON")])
def test_triton_client_predicts_over_http(
    servers: dict[str, Server],
    planes: dict[str, DataPlane],
    task: str,
    rows: list[Row],
    binary: bool,
    more: dict[str, Any],
) -> None:
    rows = [row for row in rows if binary or None not in row.values()]  # in JSON the client encodes NaN as `NaN`
    with triton_client(servers[task]) as client:
        own = deepcopy(more)  # the client modifies the headers that it is given
        result = client.infer(task, triton_inputs(rows, binary=binary), request_id="42", **own)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("42", task, VERSION)
    assert result_outputs(result) == expected_outputs(planes[task], rows)
    assert all("binary_data_size" in output["parameters"] for output in response["outputs"])


@pytest.mark.parametrize("binary", [pytest.param(True, id="binary"), pytest.param(False, id="JSON")])
@pytest.mark.parametrize("name", ["prediction", "probabilities"])
def test_triton_client_gets_a_requested_output(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row], binary: bool, name: str
) -> None:
    for task in ("binary", "multiclass"):
        requested = [triton.InferRequestedOutput(name, binary_data=binary)]
        with triton_client(servers[task]) as client:
            result = client.infer(task, triton_inputs(rows, binary=True), outputs=requested)
        (output,) = result.get_response()["outputs"]
        assert ("data" in output) is not binary
        assert result_outputs(result) == {name: expected_outputs(planes[task], rows)[name]}


def test_triton_client_gets_prediction_intervals(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row]
) -> None:
    with triton_client(servers["regression"]) as client:
        result = client.infer("regression", triton_inputs(rows, binary=True), parameters={"interval": 0.9})
    assert result_outputs(result) == expected_outputs(planes["regression"], rows, 0.9)


def test_triton_client_sends_concurrent_requests(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row]
) -> None:
    url = f"127.0.0.1:{servers['multiclass'].http_port}"
    with triton.InferenceServerClient(url, concurrency=4) as client:
        requests = [client.async_infer("multiclass", triton_inputs([rows[n % 3]], binary=True)) for n in range(12)]
        responses = [result_outputs(request.get_result()) for request in requests]
    assert responses == [expected_outputs(planes["multiclass"], [rows[n % 3]]) for n in range(12)]


def test_triton_client_gets_the_metadata_of_server_and_model(servers: dict[str, Server], task: str) -> None:
    with triton_client(servers[task]) as client:
        assert [client.is_server_live(), client.is_server_ready(), client.is_model_ready(task)] == [True] * 3
        assert [client.is_model_ready(task, VERSION), client.is_model_ready(task, "6")] == [True, False]
        assert client.is_model_ready("nobody") is False
        server, model = client.get_server_metadata(), client.get_model_metadata(task)
        assert client.get_model_metadata(task, VERSION) == model
    assert server["name"] == "kserve"
    assert server["extensions"] == ["binary_tensor_data"]
    assert (model["name"], model["versions"], model["platform"]) == (task, [VERSION], "onnxruntime_onnx")
    assert {tensor["name"]: tensor["datatype"] for tensor in model["inputs"]} == METADATA_DATATYPES
    assert model["outputs"][0] == {"name": "prediction", "datatype": LABEL_DATATYPES[task], "shape": [-1]}


@pytest.mark.parametrize(
    ("ask", "status", "reason"),
    [
        pytest.param(
            lambda client, inputs: client.infer("binary", inputs, model_version="6"),
            404,
            "there is no version 6 of",
            id="a version",
        ),
        pytest.param(
            lambda client, inputs: client.infer("nobody", inputs), 404, "there is no model", id="another model"
        ),
        pytest.param(
            lambda client, inputs: client.infer("binary", inputs[1:]),
            400,
            "area: column is missing",
            id="a missing column",
        ),
        pytest.param(
            lambda client, inputs: client.infer("binary", inputs, outputs=[triton.InferRequestedOutput("margin")]),
            400,
            "margin: is not an output",
            id="an output",
        ),
        pytest.param(
            lambda client, _: client.get_model_metadata("binary", "6"), 404, "there is no version 6 of", id="metadata"
        ),
        pytest.param(lambda client, _: client.load_model("binary"), 501, "models are not loaded", id="load"),
        pytest.param(lambda client, _: client.unload_model("binary"), 501, "models are not loaded", id="unload"),
    ],
)
def test_triton_client_raises_the_reason(
    servers: dict[str, Server], rows: list[Row], ask: Callable[[Any, Any], Any], status: int, reason: str
) -> None:
    with triton_client(servers["binary"]) as client, pytest.raises(InferenceServerException) as caught:
        ask(client, triton_inputs(rows, binary=True))
    assert caught.value.status() == str(status)
    assert caught.value.message().startswith(reason)


# Triton's gRPC client


@pytest.fixture(scope="module")
def call_triton(servers: dict[str, Server]) -> Callable[[str, list[Row]], dict[str, Any]]:
    """Return a function that makes every call of Triton's gRPC client in a process of its own."""
    columns = lambda rows: {name: [DATATYPES[name], values.tolist()] for name, values in to_arrays(rows).items()}  # noqa: E731

    @cache
    def outcomes(task: str, text: str) -> dict[str, Any]:
        script = Path(__file__).parents[1] / "support/triton.py"
        command = [sys.executable, str(script), servers[task].grpc_url, task, VERSION]
        result = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, result.stderr
        return dict(json.loads(result.stdout))

    return lambda task, rows: outcomes(task, json.dumps(columns(rows)))


Triton = Callable[[str, list["Row"]], dict[str, Any]]


@pytest.mark.parametrize("call", ["infer", "infer later", "version", "gzip", "deflate", "other parameters"])
def test_triton_grpc_client_predicts(
    call_triton: Triton, planes: dict[str, DataPlane], task: str, rows: list[Row], call: str
) -> None:
    result = call_triton(task, rows)[call]
    assert result["outputs"] == expected_outputs(planes[task], rows)
    assert (result["model"], result["version"]) == (task, VERSION)
    assert result["id"] == {"infer": "42", "infer later": "a"}.get(call, result["id"]) != ""


def test_triton_grpc_client_gets_a_requested_output(
    call_triton: Triton, planes: dict[str, DataPlane], task: str, rows: list[Row]
) -> None:
    expected = {"prediction": planes[task].predict_rows(rows).prediction.tolist()}
    assert call_triton(task, rows)["one output"]["outputs"] == expected


@pytest.mark.parametrize("call", ["interval", "interval as text"])
def test_triton_grpc_client_gets_prediction_intervals(
    call_triton: Triton, planes: dict[str, DataPlane], rows: list[Row], call: str
) -> None:
    expected = expected_outputs(planes["regression"], rows, 0.9)
    assert call_triton("regression", rows)[call]["outputs"] == expected


def test_triton_grpc_client_gets_the_metadata_of_server_and_model(
    call_triton: Triton, task: str, rows: list[Row]
) -> None:
    results = call_triton(task, rows)
    assert [results[name] for name in ("live", "ready", "model ready", "version ready")] == [True] * 4
    assert (results["server"]["name"], results["server"]["extensions"]) == ("kserve", ["binary_tensor_data"])
    model = results["metadata"]
    assert model == results["metadata of the version"]
    assert (model["name"], model["versions"], model["platform"]) == (task, [VERSION], "onnxruntime_onnx")
    assert {tensor["name"]: tensor["datatype"] for tensor in model["inputs"]} == METADATA_DATATYPES
    assert model["outputs"][0] == {"name": "prediction", "datatype": LABEL_DATATYPES[task], "shape": ["-1"]}


@pytest.mark.parametrize(
    ("call", "status", "reason"),
    [
        pytest.param(
            "another version ready",
            "NOT_FOUND",
            "there is no version 6 of regression here",
            id="readiness of another version",
        ),
        pytest.param(
            "another model ready", "NOT_FOUND", "there is no model nobody here", id="readiness of another model"
        ),
        pytest.param("metadata of another version", "NOT_FOUND", "there is no version 6 of", id="another version"),
        pytest.param("another version", "NOT_FOUND", "there is no version 6 of", id="infer of another version"),
        pytest.param("another model", "NOT_FOUND", "there is no model nobody here", id="infer of another model"),
        pytest.param("no such output", "INVALID_ARGUMENT", "margin: is not an output", id="an output"),
        pytest.param("no such interval", "INVALID_ARGUMENT", "there is no prediction interval", id="a level"),
        pytest.param("out of bounds", "INVALID_ARGUMENT", "area, row 0: 1000000000.0 is above 500", id="a value"),
        pytest.param("config of another version", "NOT_FOUND", "there is no version 6 of", id="config"),
        pytest.param("statistics of another model", "NOT_FOUND", "there is no model nobody", id="statistics"),
        pytest.param("load", "UNIMPLEMENTED", "models are not loaded or unloaded by requests", id="load"),
        pytest.param("unload", "UNIMPLEMENTED", "models are not loaded or unloaded by requests", id="unload"),
    ],
)
def test_triton_grpc_client_raises_the_reason(
    call_triton: Triton, rows: list[Row], call: str, status: str, reason: str
) -> None:
    result = call_triton("regression", rows)[call]
    assert result["status"] == f"StatusCode.{status}"
    assert result["error"].startswith(reason)


def test_triton_grpc_client_gets_the_configuration(call_triton: Triton, task: str, rows: list[Row]) -> None:
    config = call_triton(task, rows)["config"]["config"]
    assert (config["name"], config["platform"]) == (task, "onnxruntime_onnx")
    expected = {name: f"TYPE_{'STRING' if kind == 'BYTES' else kind}" for name, kind in METADATA_DATATYPES.items()}
    assert {tensor["name"]: tensor["data_type"] for tensor in config["input"]} == expected
    assert config["output"][0]["dims"] == ["-1"]


def test_triton_grpc_client_gets_the_statistics(call_triton: Triton, rows: list[Row]) -> None:
    before, after = (call_triton("binary", rows)[name]["model_stats"][0] for name in ("statistics", "last statistics"))
    assert (after["name"], after["version"]) == ("binary", VERSION)
    grown = {name: int(after[name]) - int(before.get(name, 0)) for name in ("inference_count", "execution_count")}
    stats = {name: int(duration.get("count", 0)) for name, duration in after["inference_stats"].items()}
    assert (
        grown["inference_count"] == len(rows) * grown["execution_count"] > 0
    )  # calls of Triton's client have all rows
    assert stats["success"] == stats["queue"] == stats["compute_infer"] > 0
    assert stats["fail"] > 0
    assert int(after["last_inference"]) > 1.7e12


def test_triton_grpc_client_gets_the_index_of_the_repository(call_triton: Triton, task: str, rows: list[Row]) -> None:
    assert call_triton(task, rows)["index"] == {"models": [{"name": task, "version": VERSION, "state": "READY"}]}


def test_triton_client_gets_configuration_statistics_and_index_over_http(
    servers: dict[str, Server], task: str, rows: list[Row]
) -> None:
    with triton_client(servers[task]) as client:
        client.infer(task, triton_inputs(rows, binary=True))
        config = client.get_model_config(task)
        assert config == client.get_model_config(task, VERSION)
        assert [tensor["name"] for tensor in config["input"]] == [*METADATA_DATATYPES]
        (model,) = client.get_inference_statistics(task)["model_stats"]
        assert (model["name"], model["version"]) == (task, VERSION)
        assert model["inference_count"] >= len(rows)
        assert model == client.get_inference_statistics(task, VERSION)["model_stats"][0]
        assert model == client.get_inference_statistics()["model_stats"][0]
        index = [{"name": task, "version": VERSION, "state": "READY", "reason": ""}]
        assert client.get_model_repository_index() == index
        with pytest.raises(InferenceServerException, match="there is no version 6"):
            client.get_inference_statistics(task, "6")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 200, id="empty"),
        pytest.param(b'{"ready": true}', 200, id="ready models"),
        pytest.param(b'{"ready": true', 400, id="not JSON"),
        pytest.param(b"[]", 400, id="a list"),
        pytest.param(b'{"ready": "%s"}' % (b"x" * 2000), 400, id="long"),
    ],
)
def test_the_index_of_the_repository_has_a_short_request(servers: dict[str, Server], body: bytes, status: int) -> None:
    assert servers["binary"].client.post("/v2/repository/index", content=body).status_code == status


# A matrix, as the servers of scikit-learn and XGBoost accept it


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory, start_server: StartServer) -> tuple[Server, DataPlane]:
    """Start a server of a table of numbers; return it and its data plane."""
    columns = {"area": {"kind": "numeric"}, "age": {"kind": "numeric", "nullable": True}}
    schema = table_of(columns=columns)
    random = np.random.default_rng(3)
    table = pd.DataFrame(random.uniform(0, 100, (200, 2)), columns=list(columns))
    table["price"] = table["area"] * 3 - table["age"]
    checked = dataframes.check_frame(table, schema).frame
    model = BoostedTrees(max_iter=5).fit(schema, checked[:150])
    directory = tmp_path_factory.mktemp("numbers")
    export_bundle(model, directory, checked[:150], checked[150:], name="numbers", run_id="0" * 32, metrics={})
    return start_server(directory, "numbers").wait(), DataPlane(Bundle.load(directory))


MATRIX = [[61.5, 12.0], [99.0, 80.0], [8.0, 3.0]]


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_every_client_sends_a_matrix(numbers: tuple[Server, DataPlane], datatype: str) -> None:
    # given
    server, plane = numbers
    expected = plane.predict_rows(MATRIX).prediction.tolist()
    array = np.array(MATRIX, dtype={"FP32": np.float32, "FP64": np.float64}[datatype])
    tensor = {"name": "input-0", "shape": [3, 2], "datatype": datatype, "data": MATRIX}

    async def infer_with_kserve() -> list[Any]:
        request = InferRequest("numbers", [InferInput("input-0", [3, 2], datatype)])
        request.inputs[0].set_data_from_numpy(array, binary_data=True)
        async with (
            InferenceRESTClient(RESTConfig(protocol="v2")) as rest,
            InferenceGRPCClient(server.grpc_url) as rpc,
        ):
            responses = [await rest.infer(server.url, request, model_name="numbers"), await rpc.infer(request)]
            return [response.outputs[0].as_numpy().tolist() for response in responses]

    def infer_with_triton(*, binary: bool) -> Any:
        inputs = [triton.InferInput("input-0", [3, 2], datatype)]
        inputs[0].set_data_from_numpy(array, binary_data=binary)
        with triton_client(server) as client:
            return client.infer("numbers", inputs).as_numpy("prediction").tolist()

    # when
    _, body = curl(server, "/v2/models/numbers/infer", json.dumps({"inputs": [tensor]}))
    responses = [
        *run_async(infer_with_kserve()),
        infer_with_triton(binary=True),
        infer_with_triton(binary=False),
        json.loads(body)["outputs"][0]["data"],
    ]
    # then
    assert responses == [expected] * 5


# Health checks over gRPC


def test_grpc_health_check_reports_the_status(servers: dict[str, Server]) -> None:
    with grpc.insecure_channel(servers["regression"].grpc_url) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"))
        assert next(watch).status == SERVICE_UNKNOWN
        watch.cancel()


def test_grpc_health_watchers_see_the_shutdown_and_do_not_delay_it(
    bundles: dict[str, Bundle], start_server: StartServer
) -> None:
    # given
    server = start_server(bundles["regression"].directory, "regression", "--drain_seconds", "1").wait()
    statuses: Queue[Any] = Queue()

    def follow(watch: Any) -> None:
        try:
            for message in watch:
                statuses.put(message.status)
        except grpc.RpcError as err:
            statuses.put(err.code())

    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        one_who_leaves, *others = [
            stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "", SERVICE)
        ]
        assert next(one_who_leaves).status == SERVING
        threads = [Thread(target=follow, args=[watch], daemon=True) for watch in others]
        for thread in threads:
            thread.start()
        assert [statuses.get(timeout=10) for _ in others] == [SERVING] * 2
        one_who_leaves.cancel()
        time.sleep(0.2)
        # when
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        # then
        assert [statuses.get(timeout=10) for _ in others] == [NOT_SERVING] * 2
        assert time.monotonic() - started < 0.9  # before the drain period is over
        assert [statuses.get(timeout=10) for _ in others] == [grpc.StatusCode.UNAVAILABLE] * 2
    assert server.process.wait(10) == 0


# curl


def curl(server: Server, path: str, body: str | bytes, *args: str) -> tuple[int, bytes]:
    """Send a body with curl; return the status and the body of the response."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    command = [program, "-sS", "-m", "60", "-w", "\n%{http_code}", "--data-binary", "@-", *args, server.url + path]
    data = body.encode() if isinstance(body, str) else body
    result = subprocess.run(command, input=data, capture_output=True, check=False, timeout=90)
    assert result.returncode == 0, result.stderr
    response, _, status = result.stdout.rpartition(b"\n")
    return int(status), response


TYPES = [
    pytest.param([], id="curl's own content-type"),
    pytest.param(["-H", "content-type:"], id="no content-type"),
    pytest.param(["-H", "content-type: application/json"], id="JSON"),
    pytest.param(["-H", "content-type: application/json; charset=utf-8"], id="JSON and its charset"),
]
EVENT = [
    "-H",
    "ce-specversion: 1.0",
    "-H",
    "ce-id: 4711",
    "-H",
    "ce-source: /here",
    "-H",
    "ce-type: flat",
    "-H",
    "ce-x: y",
]


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("event", [pytest.param([], id="V1"), pytest.param(EVENT, id="an event in binary mode")])
def test_curl_predicts_over_v1(
    servers: dict[str, Server],
    planes: dict[str, DataPlane],
    task: str,
    rows: list[Row],
    content_type: list[str],
    event: list[str],
) -> None:
    body = json.dumps({"instances": rows})
    status, response = curl(servers[task], f"/v1/models/{task}:predict", body, *content_type, *event)
    assert status == 200
    assert json.loads(response)["predictions"] == planes[task].predict_rows(rows).prediction.tolist()


@pytest.mark.parametrize("content_type", TYPES)
def test_curl_predicts_over_v2(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, rows: list[Row], content_type: list[str]
) -> None:
    status, response = curl(
        servers[task], f"/v2/models/{task}/infer", json.dumps({"inputs": to_json_tensors(rows)}), *content_type
    )
    assert status == 200
    outputs = {
        output["name"]: np.reshape(output["data"], output["shape"]) for output in json.loads(response)["outputs"]
    }
    assert {name: values.tolist() for name, values in outputs.items()} == expected_outputs(planes[task], rows)


@pytest.mark.parametrize("mode", ["cloudevents+json", "cloudevents+json; charset=UTF-8", "CloudEvents+JSON"])
def test_curl_sends_a_structured_event(servers: dict[str, Server], rows: list[Row], mode: str) -> None:
    event = {"specversion": "1.0", "id": "4711", "source": "/here", "type": "flat", "data": {"instances": rows}}
    header = ["-H", f"content-type: application/{mode}"]
    status, text = curl(servers["binary"], "/v1/models/binary:predict", json.dumps(event), *header)
    event_response = json.loads(text)
    assert (status, event_response["id"], event_response["requestsource"], event_response["datacontenttype"]) == (
        200,
        "4711",
        "/here",
        "application/json",
    )
    assert len(event_response["data"]["predictions"]) == len(rows)


@pytest.mark.parametrize(
    "args",
    [
        pytest.param([], id="expect 100-continue"),
        pytest.param(["-H", "transfer-encoding: chunked"], id="in chunks"),
        pytest.param(["--http2"], id="an offer of HTTP/2"),
        pytest.param(["--http1.0"], id="HTTP/1.0"),
        pytest.param(["-H", "content-encoding: gzip"], id="gzip"),
    ],
)
def test_curl_sends_a_long_body(servers: dict[str, Server], rows: list[Row], args: list[str]) -> None:
    body = json.dumps({"instances": rows * 4000}).encode()
    assert len(body) > 2**20  # above which curl sends `Expect: 100-continue`
    sent = gzip.compress(body) if "content-encoding: gzip" in args else body
    status, response = curl(servers["regression"], "/v1/models/regression:predict", sent, *args)
    assert (status, len(json.loads(response)["predictions"])) == (200, 12_000)


@pytest.mark.parametrize("body", [b"{", b"", b"instances=1"])
def test_curl_gets_errors_in_json(servers: dict[str, Server], body: bytes) -> None:
    status, response = curl(servers["regression"], "/v1/models/regression:predict", body)
    assert status == 400
    assert json.loads(response)["error"].startswith("the body is not JSON")


# The SDK of CloudEvents


@pytest.mark.parametrize("mode", [pytest.param(to_binary, id="binary"), pytest.param(to_structured, id="structured")])
@pytest.mark.parametrize(
    "as_data",
    [
        pytest.param(dict, id="data as an object"),
        pytest.param(json.dumps, id="data as text"),
        pytest.param(lambda data: json.dumps(data).encode(), id="data as bytes"),
    ],
)
def test_the_cloudevents_sdk_sends_an_event_and_parses_the_response(
    servers: dict[str, Server],
    planes: dict[str, DataPlane],
    task: str,
    rows: list[Row],
    mode: Callable[[CloudEvent], tuple[dict[str, str], bytes]],
    as_data: Callable[[Any], Any],
) -> None:
    attributes = {
        "type": "flat.asked",
        "source": "/flats/7",
        "subject": "row 5",
        "partitionkey": "k-1",
        "traceid": "ab",
    }
    event = CloudEvent(attributes, as_data({"instances": rows}))
    headers, body = mode(event)
    response = servers[task].client.post(f"/v1/models/{task}:predict", headers=headers, content=body)
    assert response.status_code == 200, response.text
    received = from_http(dict(response.headers), response.content)
    assert (received["id"], received["requestsource"], received["subject"]) == (event["id"], "/flats/7", "row 5")
    assert (received["partitionkey"], received["traceid"], received["modelversion"]) == ("k-1", "ab", VERSION)
    assert (received["type"], received["source"]) == ("io.kserve.inference.response", f"io.kserve.inference.{task}")
    assert received.get_data()["predictions"] == planes[task].predict_rows(rows).prediction.tolist()
