"""Smaller bundles when asked: fewer trees or units, weights of eight bits, and a limit; what it costs is measured."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
from loguru import logger
from pydantic import Field

from model_name.core.metrics import Scores
from model_name.core.models import Model
from model_name.core.schemas import Outputs
from model_name.core.schemas.strict_models import Frozen
from model_name.errors import ConfigError
from model_name.serving.bundle import GRAPH, Bundle, Shrunk, file_hash, write_manifest
from model_name.serving.dataplane import DataPlane

WEIGHING = frozenset({"MatMul", "Gemm"})
"""Nodes whose weights can be kept in eight bits."""

Measure = Callable[[Outputs], Scores]
"""What outputs for the held-out rows score."""


class Export(Frozen):
    """How small a bundle is made, and may be.

    Attributes:
        prune: The share of the trees, or of the units of each layer, that is left out.
        quantize: Whether the weights of matrices are kept in eight bits (dynamic quantisation). Trees have none, and
            are left as they are. The pyfunc keeps the full weights: the two differ by what the report tells.
        max_bytes: The largest bundle that is registered.
    """

    prune: float | None = Field(None, gt=0, lt=1)
    quantize: bool = False
    max_bytes: int | None = Field(None, gt=0)

    @property
    def recipe(self) -> tuple[Any, ...]:
        """What makes it another recipe of the model; empty where nothing is done to it."""
        return (self.prune, self.quantize) if self.prune or self.quantize else ()

    def require(self, model: Model) -> None:
        """Refuse what the kind of a model cannot do, before time is spent on its fit.

        Raises:
            ConfigError: It has nothing to leave out.
        """
        if self.prune is not None and type(model).pruned is Model.pruned:
            self.pruned(model)

    def pruned(self, model: Model) -> Model:
        """The fitted model without what is to be left out.

        Raises:
            ConfigError: The kind has nothing to leave out.
        """
        if self.prune is None:
            return model
        try:
            return model.pruned(self.prune)
        except NotImplementedError as err:
            raise ConfigError(f"job.export.prune: {err}", hint="leave it out for this kind") from err

    def shrink(self, bundle: Bundle, model: Model, whole: Model, test: pd.DataFrame, measure: Measure) -> Bundle:
        """The bundle as it is to be served, its manifest telling what was done to it.

        Args:
            bundle: Whole and proven; it is changed in place.
            model: What it was exported from.
            whole: The model before it was pruned.
            test: The held-out rows.
            measure: What outputs for them score.

        Raises:
            ConfigError: It is larger than allowed.
        """
        if self.prune is not None:
            found = Shrunk(
                how=f"{self.prune:.0%} of the trees or units left out",
                bytes_before=len(whole.to_onnx().SerializeToString()),
                bytes_after=graph_size(bundle),
                metrics_before=measure(whole.outputs(test)),
                metrics_after=measure(model.outputs(test)),
            )
            bundle = told(bundle, found)
        if self.quantize:
            bundle = quantized(bundle, lambda one: measure(answers(one, test)))
        self._check_size(bundle)
        return bundle

    def _check_size(self, bundle: Bundle) -> None:
        size = size_of(bundle.directory)
        if self.max_bytes is not None and size > self.max_bytes:
            raise ConfigError(
                f"the bundle has {size:,} bytes, job.export.max_bytes allows {self.max_bytes:,}",
                hint="nothing was registered; export.prune and export.quantize make it smaller, so do fewer trees",
            )


def quantized(bundle: Bundle, measure: Callable[[Bundle], Scores]) -> Bundle:
    """The bundle with weights of eight bits, or as it was where that saves nothing; its manifest tells which.

    Args:
        bundle: Whole and proven: that eight bits answer otherwise is the point, so it is not proven again.
        measure: What a bundle scores on the held-out rows.
    """
    before, size = measure(bundle), graph_size(bundle)
    smaller = in_eight_bits(onnx.load(bundle.directory / GRAPH))
    if smaller is None or len(smaller) >= size:
        how = "weights in eight bits would save nothing, left as they were"
        return told(
            bundle, Shrunk(how=how, bytes_before=size, bytes_after=size, metrics_before=before, metrics_after=before)
        )
    (bundle.directory / GRAPH).write_bytes(smaller)
    files = bundle.manifest.files | {GRAPH: file_hash(bundle.directory / GRAPH)}
    write_manifest(bundle.directory, bundle.manifest.model_copy(update={"files": files}))
    bundle = Bundle.load(bundle.directory)
    found = Shrunk(
        how="weights in eight bits",
        bytes_before=size,
        bytes_after=len(smaller),
        metrics_before=before,
        metrics_after=measure(bundle),
    )
    return told(bundle, found)


def in_eight_bits(graph: onnx.ModelProto) -> bytes | None:
    """A graph with the weights of its matrices in eight bits; None where it has none, such as trees alone."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    if not any(node.op_type in WEIGHING for node in graph.graph.node):
        return None
    add_pre_process_metadata(graph)  # else it warns, by a handler that it gives to the log of the whole process
    with tempfile.TemporaryDirectory(prefix="model-name-") as folder:
        path = Path(folder) / GRAPH
        quantize_dynamic(graph, path)
        return path.read_bytes()


def told(bundle: Bundle, found: Shrunk) -> Bundle:
    """The bundle, with what was done to it in its manifest."""
    saved = 1 - found.bytes_after / found.bytes_before
    logger.info("{}: {:,} bytes, {:.0%} less", found.how, found.bytes_after, saved)
    manifest = bundle.manifest.model_copy(update={"shrunk": (*bundle.manifest.shrunk, found)})
    write_manifest(bundle.directory, manifest)
    return Bundle.load(bundle.directory)


def answers(bundle: Bundle, test: pd.DataFrame) -> Outputs:
    """What a bundle answers for checked rows."""
    inputs = bundle.manifest.table.inputs
    return DataPlane(bundle).predict({name: test[name].array.to_numpy() for name in inputs})


def graph_size(bundle: Bundle) -> int:
    """Bytes of the graph."""
    return (bundle.directory / GRAPH).stat().st_size


def size_of(directory: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
