"""Extensions of Triton to the Open Inference Protocol: model configuration, statistics and repository index.

The documents are those of REST; over gRPC the messages have the same fields.
"""

from typing import Any

from model_name.serving.batching.statistics import PhaseSeconds, VersionStatistics
from model_name.serving.bundle import Manifest
from model_name.serving.protocols.tensors import model_metadata

DATA_TYPES = {"BYTES": "TYPE_STRING"}
"""Names of datatypes in a configuration that are not `TYPE_` and the name of the datatype."""
NANOSECONDS, MILLISECONDS = 10**9, 10**3


def model_config(name: str, manifest: Manifest) -> dict[str, Any]:
    """Build the configuration of a model: its tensors, whose first dimension is the number of rows.

    Args:
        name: Name under which the model is served.
        manifest: Manifest of its bundle.
    """
    metadata = model_metadata(name, manifest)
    return {
        "name": name,
        "platform": metadata["platform"],
        "backend": "onnxruntime",
        "max_batch_size": 0,  # no dimension is left out of `dims`
        "input": [_tensor_config(tensor) for tensor in metadata["inputs"]],
        "output": [_tensor_config(tensor) for tensor in metadata["outputs"]],
    }


def statistics_document(name: str, version: str, statistics: VersionStatistics) -> dict[str, Any]:
    """Build the statistics of a model; durations are in nanoseconds, as sums over requests or batches.

    Args:
        name: Name under which the model is served.
        version: Version of the model.
        statistics: Statistics of this version.
    """
    phases = statistics.phases
    model = {
        "name": name,
        "version": version,
        "last_inference": int(statistics.last_inference * MILLISECONDS),
        "inference_count": statistics.rows,
        "execution_count": statistics.batches,
        "inference_stats": {
            "success": _duration(statistics.succeeded, statistics.success_seconds),
            "fail": _duration(statistics.failed, statistics.fail_seconds),
            "queue": _duration(statistics.succeeded, statistics.queue_seconds),
            **_phase_durations(phases),
            "cache_hit": _duration(0, 0.0),
            "cache_miss": _duration(0, 0.0),
        },
        "batch_stats": [
            {"batch_size": rows, **_phase_durations(batches)} for rows, batches in sorted(statistics.by_rows.items())
        ],
    }
    return {"model_stats": [model]}


def repository_index(name: str, version: str, *, is_ready: bool) -> list[dict[str, str]]:
    """List the models of the repository: the served one.

    Args:
        name: Name under which the model is served.
        version: Version of the model.
        is_ready: Whether it is loaded, and requests should be routed to this server.
    """
    state = {"state": "READY", "reason": ""} if is_ready else {"state": "UNAVAILABLE", "reason": "unloaded or ending"}
    return [{"name": name, "version": version, **state}]


def _tensor_config(tensor: dict[str, Any]) -> dict[str, Any]:
    datatype = tensor["datatype"]
    return {
        "name": tensor["name"],
        "data_type": DATA_TYPES.get(datatype, f"TYPE_{datatype}"),
        "dims": tensor["shape"],
    }


def _phase_durations(phases: PhaseSeconds) -> dict[str, dict[str, int]]:
    return {
        "compute_input": _duration(phases.count, phases.decode),
        "compute_infer": _duration(phases.count, phases.predict),
        "compute_output": _duration(phases.count, phases.encode),
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": int(seconds * NANOSECONDS)}
