"""Compression of models and bundles: pruning, weights in eight bits, a size limit; the cost in metrics is measured."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
from loguru import logger
from pydantic import ConfigDict, Field

from model_name.core.metrics import Scores
from model_name.core.models import Model
from model_name.core.schemas import Outputs
from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import ConfigError
from model_name.serving.bundle import GRAPH_FILE, Bundle, CompressionReport, file_hash, write_manifest
from model_name.serving.dataplane import DataPlane

QUANTIZABLE_OPS = frozenset({"MatMul", "Gemm"})
"""ONNX operators whose weights can be stored in eight bits."""

Evaluate = Callable[[Outputs], Scores]
"""Function from the outputs for the held-out rows to their metrics."""


class CompressionConfig(FrozenModel):
    """Compression of the exported model, the limit of its size, and its signature.

    Attributes:
        prune: Share of the trees, or of the units of each layer, that is removed.
        quantize: Whether the weights of matrices are stored in eight bits (dynamic quantisation). Trees have none and
            are not changed. The registered pyfunc model keeps the full weights; the report shows how the two differ.
        max_bytes: Maximum size of a bundle that is registered.
        sign: Whether the bundle and the model are signed, with the Ed25519 key of `MODEL_NAME_BUNDLE_PRIVATE_KEY_FILE`
            or `MODEL_NAME_BUNDLE_PRIVATE_KEY`.
    """

    model_config = ConfigDict(title="Export")  # from the config key `export`; errors about its keys show it

    prune: float | None = Field(None, gt=0, lt=1)
    quantize: bool = False
    max_bytes: int | None = Field(None, gt=0)
    sign: bool = False

    @property
    def recipe(self) -> tuple[Any, ...]:
        """Part of the version's recipe; empty if the model is not compressed."""
        return (self.prune, self.quantize) if self.prune or self.quantize else ()


def check_prunable(model: Model, config: CompressionConfig) -> None:
    """Check before the fit that a model of this kind can be pruned.

    Raises:
        ConfigError: `prune` is set, and the kind has no way to become smaller.
    """
    if config.prune is not None and type(model).prune is Model.prune:
        prune_model(model, config)


def prune_model(model: Model, config: CompressionConfig) -> Model:
    """Prune a fitted model by the configured share.

    Returns:
        A pruned copy, or `model` itself if `prune` is not set.

    Raises:
        ConfigError: The kind has no way to become smaller.
    """
    if config.prune is None:
        return model
    try:
        return model.prune(config.prune)
    except NotImplementedError as err:
        raise ConfigError(f"job.export.prune: {err}", hint="leave it out for this kind") from err


def report_pruning(
    model: Model, pruned: Model, test: pd.DataFrame, evaluate: Evaluate, config: CompressionConfig
) -> CompressionReport | None:
    """Measure size and metrics before and after pruning; None if the model was not pruned.

    Args:
        model: Fitted model before pruning.
        pruned: Pruned model, with a decision of its own.
        test: Held-out rows.
        evaluate: Metrics of the outputs for these rows.
        config: Compression with the pruned share.
    """
    if config.prune is None:
        return None
    return CompressionReport(
        how=f"{config.prune:.0%} of the trees or units left out",
        bytes_before=len(model.to_onnx().SerializeToString()),
        bytes_after=len(pruned.to_onnx().SerializeToString()),
        metrics_before=evaluate(model.outputs(test)),
        metrics_after=evaluate(pruned.outputs(test)),
    )


def compress(
    bundle: Bundle,
    config: CompressionConfig,
    test: pd.DataFrame,
    evaluate: Evaluate,
    *,
    pruning: CompressionReport | None,
) -> Bundle:
    """Compress an exported bundle in place and record each step in its manifest.

    Args:
        bundle: Bundle whose parity with the model was checked.
        config: Compression to apply.
        test: Held-out rows.
        evaluate: Metrics of the outputs for these rows.
        pruning: Report of the pruning that preceded the export, if any.

    Returns:
        The bundle, loaded again.

    Raises:
        ConfigError: The bundle is larger than `max_bytes`.
    """
    if pruning is not None:
        bundle = add_report(bundle, pruning)
    if config.quantize:
        bundle = add_report(*quantize_if_smaller(bundle, lambda candidate: evaluate(predict(candidate, test))))
    check_size(bundle.directory, config.max_bytes)
    return bundle


def check_size(directory: Path, max_bytes: int | None) -> None:
    """Check the size of a bundle against its limit.

    Raises:
        ConfigError: The files have more than `max_bytes` bytes.
    """
    size = directory_size(directory)
    if max_bytes is not None and size > max_bytes:
        raise ConfigError(
            f"the bundle has {size:,} bytes, job.export.max_bytes allows {max_bytes:,}",
            hint="nothing was registered; export.prune and export.quantize make it smaller, so do fewer trees",
        )


def quantize_if_smaller(bundle: Bundle, evaluate: Callable[[Bundle], Scores]) -> tuple[Bundle, CompressionReport]:
    """Store the weights of a bundle in eight bits, unless that saves no bytes.

    Parity is not checked again, because a quantised graph is meant to differ from the model.

    Args:
        bundle: Bundle to change in place.
        evaluate: Metrics of a bundle on the held-out rows.

    Returns:
        The bundle, loaded again if it changed, and the report.
    """
    before, size = evaluate(bundle), graph_size(bundle)
    smaller = quantize_weights(onnx.load(bundle.directory / GRAPH_FILE))
    if smaller is None or len(smaller) >= size:
        how = "weights in eight bits would save nothing, left as they were"
        return bundle, CompressionReport(
            how=how, bytes_before=size, bytes_after=size, metrics_before=before, metrics_after=before
        )
    (bundle.directory / GRAPH_FILE).write_bytes(smaller)
    files = bundle.manifest.files | {GRAPH_FILE: file_hash(bundle.directory / GRAPH_FILE)}
    write_manifest(bundle.directory, bundle.manifest.model_copy(update={"files": files}))
    bundle = Bundle.load(bundle.directory)
    report = CompressionReport(
        how="weights in eight bits",
        bytes_before=size,
        bytes_after=len(smaller),
        metrics_before=before,
        metrics_after=evaluate(bundle),
    )
    return bundle, report


def quantize_weights(graph: onnx.ModelProto) -> bytes | None:
    """Serialise a graph with the weights of its matrices in eight bits; None if it has no matrices, e.g. only trees."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    if not any(node.op_type in QUANTIZABLE_OPS for node in graph.graph.node):
        return None
    # Without this metadata ONNX Runtime warns, and for that adds a handler to the root logger of the process.
    add_pre_process_metadata(graph)
    with tempfile.TemporaryDirectory(prefix="model-name-") as folder:
        path = Path(folder) / GRAPH_FILE
        quantize_dynamic(graph, path)
        return path.read_bytes()


def add_report(bundle: Bundle, report: CompressionReport) -> Bundle:
    """Add the report of a compression step to the manifest, log it, and load the bundle again."""
    saved = 1 - report.bytes_after / report.bytes_before
    logger.info("{}: {:,} bytes, {:.0%} less", report.how, report.bytes_after, saved)
    manifest = bundle.manifest.model_copy(update={"shrunk": (*bundle.manifest.shrunk, report)})
    write_manifest(bundle.directory, manifest)
    return Bundle.load(bundle.directory)


def predict(bundle: Bundle, test: pd.DataFrame) -> Outputs:
    """Predict validated rows with a bundle, as a server does."""
    inputs = bundle.manifest.table.inputs
    return DataPlane(bundle).predict({name: test[name].array.to_numpy() for name in inputs})


def graph_size(bundle: Bundle) -> int:
    """Return the size of the graph in bytes."""
    return (bundle.directory / GRAPH_FILE).stat().st_size


def directory_size(directory: Path) -> int:
    """Return the size of all files below a directory in bytes."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
