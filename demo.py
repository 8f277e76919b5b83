"""Demonstration for `make demo`: the training pipeline on the example table, then one prediction with each protocol."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

CONFS = "confs/flights"
READY_SECONDS = 60

console = Console(stderr=True)


def main() -> int:
    """Run the demonstration; return 0 if every part of it succeeded."""
    console.rule("1 of 2: the training pipeline, compiled and run on this machine")
    pipeline = [sys.executable, "-m", "pipelines", "run", "training", "--confs", CONFS, "--json"]
    process = subprocess.run(pipeline, stdout=subprocess.PIPE, check=False)
    if process.returncode:
        return process.returncode
    result = json.loads(process.stdout)
    console.rule(f"2 of 2: serving version {result['semver']}, one prediction with V1 REST, V2 REST and gRPC")
    bundle = Path(result["bundle"])
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    row = manifest["example"]
    with run_server(bundle) as (http_port, grpc_port):
        predictions = predict_with_each_protocol(manifest["name"], manifest["table"], row, http_port, grpc_port)
    print_summary(result, row, predictions)
    return 0


@contextlib.contextmanager
def run_server(bundle: Path) -> Generator[tuple[int, int]]:
    """Run the predictor on free ports within a context."""
    http_port, grpc_port = free_port(), free_port()
    ports = ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    command = [sys.executable, "-m", "model_name", "serve", "--bundle", str(bundle), *ports]
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        wait_until_ready(f"http://127.0.0.1:{http_port}/v2/health/ready", process)
        yield http_port, grpc_port
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server is ready.

    Raises:
        SystemExit: The server ended, or was not ready within `READY_SECONDS`.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with exit code {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise SystemExit(f"the server was not ready after {READY_SECONDS} s")


def predict_with_each_protocol(
    name: str, schema: dict[str, Any], row: dict[str, Any], http_port: int, grpc_port: int
) -> dict[str, float]:
    """Predict one row with each protocol.

    Args:
        name: Name of the model.
        schema: Table schema in the manifest of the bundle.
        row: Row to predict.
        http_port: Port of REST.
        grpc_port: Port of gRPC.
    """
    base = f"http://127.0.0.1:{http_port}"
    v1 = httpx.post(f"{base}/v1/models/{name}:predict", json={"instances": [row]}).raise_for_status().json()
    inputs = [tensor(column, schema["columns"][column]["kind"], value) for column, value in row.items()]
    v2 = httpx.post(f"{base}/v2/models/{name}/infer", json={"inputs": inputs}).raise_for_status().json()
    return {
        "V1 REST": v1["predictions"][0],
        "V2 REST": v2["outputs"][0]["data"][0],
        "gRPC": asyncio.run(predict_with_grpc(name, inputs, grpc_port)),
    }


async def predict_with_grpc(name: str, tensors: list[dict[str, Any]], port: int) -> float:
    """Predict one row with gRPC and KServe's client."""
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    inputs = [InferInput(t["name"], t["shape"], t["datatype"], t["data"]) for t in tensors]
    client = InferenceGRPCClient(f"127.0.0.1:{port}")
    try:
        response = await client.infer(InferRequest(model_name=name, infer_inputs=inputs))
    finally:
        await client.close()
    return float(response.outputs[0].as_numpy().ravel()[0])


def tensor(name: str, kind: str, value: Any) -> dict[str, Any]:
    """Encode one value as a tensor of the Open Inference Protocol."""
    datatype = {"numeric": "FP64", "boolean": "BOOL"}.get(kind, "BYTES")
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


def print_summary(result: dict[str, Any], row: dict[str, Any], predictions: dict[str, float]) -> None:
    """Print metrics and predictions."""
    out = Console()
    metrics = Table(
        title=f"{result['semver']} is the {result['alias']}: metrics on the held-out rows", title_justify="left"
    )
    for column in ("metric", "this version", *result["references"]):
        metrics.add_column(column, justify="right" if column != "metric" else "left")
    for name, value in result["metrics"].items():
        metrics.add_row(name, f"{value:.3f}", *(f"{scores[name]:.3f}" for scores in result["references"].values()))
    out.print(metrics)
    table = Table(title="Prediction per protocol", title_justify="left")
    table.add_column("protocol")
    table.add_column("prediction", justify="right")
    for protocol, prediction in predictions.items():
        table.add_row(protocol, f"{prediction:.4f}")
    out.print(table)
    out.print(f"row:    {json.dumps(row)}", soft_wrap=True, highlight=False)
    out.print(f"report: {result['report']}", soft_wrap=True, highlight=False)
    out.print("MLflow: make mlflow-serve   (mlflow ui --backend-store-uri sqlite:///mlflow.db)", highlight=False)
    out.print(f"took:   {result['seconds']:.0f} s for the pipeline", highlight=False)


def free_port() -> int:
    """Find an unused port."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    sys.exit(main())
