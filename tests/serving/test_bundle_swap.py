"""While the bundle of a running server is replaced, the version in a response fits its prediction."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from model_name.serving.bundle import GRAPH_FILE, MANIFEST_FILE
from tests.support.clients import METADATA_DATATYPES, to_json_tensors
from tests.support.counts import count
from tests.support.graphs import edit_manifest, shift_predictions

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

SECONDS = count(reduced=3.0, full=60.0)
SWAP_SECONDS = 0.37  # the server looks at the files every second, and must not always find the same version
TIMEOUT_SECONDS = 60.0
SHIFT = 1e6  # added to the predictions of version 8

Answer = tuple[str, float]
"""Version in the headers, and prediction."""
Ask = Callable[[], Answer]


# Bundles and how they are replaced


def swap_files(live: Path, versions: list[Path], names: tuple[str, ...]) -> None:
    """Replace the files one by one, each by a rename."""
    for name in names:
        shutil.copy(versions[0] / name, live.parent / "next")
        (live.parent / "next").replace(live / name)


def swap_link(live: Path, versions: list[Path]) -> None:
    """Replace the link to the folder of the files, as Kubernetes updates a volume."""
    (live / "..next").symlink_to(versions[0].relative_to(live))
    (live / "..next").replace(live / "..data")


def make_live(style: str, versions: list[Path], live: Path) -> Callable[[list[Path]], None]:
    if style == "link":
        live.mkdir()
        for position, version in enumerate(versions):
            versions[position] = version.rename(live / f"..{version.name}")
        (live / "..data").symlink_to(versions[0].name)
        for name in (GRAPH_FILE, MANIFEST_FILE):
            (live / name).symlink_to(f"..data/{name}")
        return lambda versions: swap_link(live, versions)
    shutil.copytree(versions[0], live)
    names = (GRAPH_FILE, MANIFEST_FILE) if style == "graph first" else (MANIFEST_FILE, GRAPH_FILE)
    return lambda versions: swap_files(live, versions, names)


# Clients


def ask_v1(server: Server, rows: list[Row], *, in_pieces: bool) -> Iterator[Answer]:
    body = json.dumps({"instances": rows[:1]}).encode()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        while True:
            content = iter([body[:10], body[10:]]) if in_pieces else body
            response = client.post(f"/v1/models/{server.name}:predict", content=content)
            assert response.status_code == 200, response.text
            yield response.headers["x-model-version"], response.json()["predictions"][0]


def ask_v2(server: Server, rows: list[Row]) -> Iterator[Answer]:
    body = {"inputs": to_json_tensors(rows[:1])}
    with httpx.Client(base_url=server.url, timeout=30) as client:
        while True:
            response = client.post(f"/v2/models/{server.name}/infer", json=body)
            assert response.status_code == 200, response.text
            document = response.json()
            assert document["model_version"] == response.headers["x-model-version"]
            yield response.headers["x-model-version"], document["outputs"][0]["data"][0]


def ask_grpc(server: Server, rows: list[Row]) -> Iterator[Answer]:
    fields = {"FP64": "fp64_contents", "BYTES": "bytes_contents", "BOOL": "bool_contents"}
    request = pb.ModelInferRequest(model_name=server.name)
    for name, value in rows[0].items():
        tensor = request.inputs.add(name=name, datatype=METADATA_DATATYPES[name], shape=[1])
        encoded = value.encode() if isinstance(value, str) else value
        getattr(tensor.contents, fields[tensor.datatype]).append(encoded)
    with grpc.insecure_channel(server.grpc_url) as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        while True:
            response, call = infer.with_call(request, timeout=30)
            metadata = dict(call.trailing_metadata())
            assert response.model_version == metadata["x-model-version"]
            (prediction,) = [output for output in response.outputs if output.name == "prediction"]
            yield metadata["x-model-version"], prediction.contents.fp64_contents[0]


CLIENTS: dict[str, Callable[..., Iterator[Answer]]] = {
    "V1 on the fast path": lambda server, rows: ask_v1(server, rows, in_pieces=False),
    "V1 in the ASGI application": lambda server, rows: ask_v1(server, rows, in_pieces=True),
    "V2": ask_v2,
    "gRPC": ask_grpc,
}


@pytest.mark.parametrize("style", ["graph first", "manifest first", "link"])
def test_version_and_prediction_of_each_response_are_of_one_bundle(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], tmp_path: Path, style: str
) -> None:
    # given two versions with different graphs, and a server that watches a folder
    versions = [Path(shutil.copytree(bundles["regression"].directory, tmp_path / name)) for name in ("one", "two")]
    shift_predictions(versions[1], SHIFT)
    edit_manifest(versions[1], version="8")
    swap = make_live(style, versions, tmp_path / "live")
    server = start_server(tmp_path / "live", "regression", "--watch_seconds", "0.05", "--drain_seconds", "0").wait()
    seen: Counter[tuple[str, str, str]] = Counter()
    errors: list[BaseException] = []
    is_over = threading.Event()

    def ask(client: str) -> None:
        try:
            for version, value in CLIENTS[client](server, rows):
                seen[client, version, "8" if value > SHIFT / 2 else "7"] += 1
                if is_over.wait(0.005):
                    return
        except BaseException as err:  # noqa: BLE001  reported below
            errors.append(err)

    def has_seen_both() -> bool:
        return {client for client, version, _ in seen.copy() if version == "8"} == CLIENTS.keys()

    threads = [threading.Thread(target=ask, args=(client,)) for client in CLIENTS]
    for thread in threads:
        thread.start()
    # when the one replaces the other again and again
    started = time.monotonic()
    for following in cycle((versions[::-1], versions)):
        swap(following)
        time.sleep(SWAP_SECONDS)
        seconds = time.monotonic() - started
        if errors or seconds > TIMEOUT_SECONDS or (seconds > SECONDS and has_seen_both()):
            break
    is_over.set()
    for thread in threads:
        thread.join()
    # then each response is of one of them
    assert errors == []
    assert {(version, graph) for _, version, graph in seen} == {("7", "7"), ("8", "8")}, seen
    assert has_seen_both(), seen
