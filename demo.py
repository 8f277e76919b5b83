"""The main job on the example table, then one prediction by each protocol: what `make demo` runs."""

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
    """Run the demonstration; 0 if every part of it worked."""
    console.rule("1 of 2: the training pipeline, compiled and run on this machine")
    pipeline = [sys.executable, "-m", "pipelines", "run", "training", "--confs", CONFS, "--json"]
    finished = subprocess.run(pipeline, stdout=subprocess.PIPE, check=False)
    if finished.returncode:
        return finished.returncode
    found = json.loads(finished.stdout)
    console.rule(f"2 of 2: serving {found['semver']}, one prediction by V1 REST, V2 REST and gRPC")
    bundle = Path(found["bundle"])
    example = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    with served(bundle) as (http_port, grpc_port):
        answers = ask(example["name"], example["table"], example["example"], http_port, grpc_port)
    show(found, example["example"], answers)
    return 0


@contextlib.contextmanager
def served(bundle: Path) -> Generator[tuple[int, int]]:
    """The predictor on free ports, while the block runs."""
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
    """Wait for the server, or say that it ended."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with exit code {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise SystemExit(f"the server was not ready after {READY_SECONDS} s")


def ask(name: str, schema: dict[str, Any], row: dict[str, Any], http_port: int, grpc_port: int) -> dict[str, float]:
    """The prediction for one row by each protocol."""
    base = f"http://127.0.0.1:{http_port}"
    v1 = httpx.post(f"{base}/v1/models/{name}:predict", json={"instances": [row]}).raise_for_status().json()
    inputs = [tensor(column, schema["columns"][column]["kind"], value) for column, value in row.items()]
    v2 = httpx.post(f"{base}/v2/models/{name}/infer", json={"inputs": inputs}).raise_for_status().json()
    return {
        "V1 REST": v1["predictions"][0],
        "V2 REST": v2["outputs"][0]["data"][0],
        "gRPC": asyncio.run(ask_grpc(name, inputs, grpc_port)),
    }


async def ask_grpc(name: str, tensors: list[dict[str, Any]], port: int) -> float:
    """The same by gRPC, with KServe's own client."""
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    inputs = [InferInput(t["name"], t["shape"], t["datatype"], t["data"]) for t in tensors]
    client = InferenceGRPCClient(f"127.0.0.1:{port}")
    try:
        response = await client.infer(InferRequest(model_name=name, infer_inputs=inputs))
    finally:
        await client.close()
    return float(response.outputs[0].as_numpy().ravel()[0])


def tensor(name: str, kind: str, value: Any) -> dict[str, Any]:
    """One value as a tensor of the Open Inference Protocol."""
    datatype = {"numeric": "FP64", "boolean": "BOOL"}.get(kind, "BYTES")
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


def show(found: dict[str, Any], row: dict[str, Any], answers: dict[str, float]) -> None:
    """Print what was found, for people."""
    out = Console()
    metrics = Table(
        title=f"{found['semver']} is the {found['alias']}: metrics on the held-out rows", title_justify="left"
    )
    for column in ("metric", "this version", *found["references"]):
        metrics.add_column(column, justify="right" if column != "metric" else "left")
    for name, value in found["metrics"].items():
        metrics.add_row(name, f"{value:.3f}", *(f"{scores[name]:.3f}" for scores in found["references"].values()))
    out.print(metrics)
    predictions = Table(title="One prediction by each protocol", title_justify="left")
    predictions.add_column("protocol")
    predictions.add_column("prediction", justify="right")
    for protocol, answer in answers.items():
        predictions.add_row(protocol, f"{answer:.4f}")
    out.print(predictions)
    out.print(f"row:    {json.dumps(row)}", soft_wrap=True, highlight=False)
    out.print(f"report: {found['report']}", soft_wrap=True, highlight=False)
    out.print("MLflow: make mlflow-serve   (mlflow ui --backend-store-uri sqlite:///mlflow.db)", highlight=False)
    out.print(f"took:   {found['seconds']:.0f} s for the pipeline", highlight=False)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    sys.exit(main())
