"""Smaller bundles when asked: fewer trees or units, weights of eight bits, and a limit; what it costs is measured."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from loguru import logger
from pydantic import Field

from model_name.core.documents import Frozen
from model_name.core.metrics import Scores
from model_name.core.models import Model
from model_name.core.schemas import Outputs
from model_name.errors import ConfigError, ExportError
from model_name.serving.bundle import GRAPH, Bundle, Shrunk, file_hash, write_manifest
from model_name.serving.dataplane import DataPlane

Measure = Callable[[Outputs], Scores]
"""What outputs for the held-out rows score."""


class Export(Frozen):
    """How small a bundle is made, and may be.

    Attributes:
        prune: The share of the trees, or of the units of each layer, that is left out.
        quantize: Whether the weights of matrices are kept in eight bits (dynamic quantisation). Trees have none. The
            pyfunc keeps the full weights, so that the two differ by what the loss in the report says.
        max_bytes: The largest bundle that is registered.
    """

    prune: float | None = Field(None, gt=0, lt=1)
    quantize: bool = False
    max_bytes: int | None = Field(None, gt=0)

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
            ExportError: It is larger than allowed.
        """
        if whole is not model and self.prune is not None:
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
            raise ExportError(
                f"the bundle has {size:,} bytes, job.export.max_bytes allows {self.max_bytes:,}",
                hint="nothing was registered; export.prune and export.quantize make it smaller, so do fewer trees",
            )


def quantized(bundle: Bundle, measure: Callable[[Bundle], Scores]) -> Bundle:
    """The bundle with weights of eight bits; its manifest tells what that costs. It is proven before, not after.

    Args:
        bundle: Whole and proven.
        measure: What a bundle scores on the held-out rows.
    """
    from onnxruntime.quantization import quantize_dynamic

    before, size = measure(bundle), graph_size(bundle)
    full = bundle.directory / f"full-{GRAPH}"
    shutil.copyfile(bundle.directory / GRAPH, full)
    try:
        quantize_dynamic(full, bundle.directory / GRAPH)
    finally:
        full.unlink()
    files = bundle.manifest.files | {GRAPH: file_hash(bundle.directory / GRAPH)}
    write_manifest(bundle.directory, bundle.manifest.model_copy(update={"files": files}))
    smaller = Bundle.load(bundle.directory)
    found = Shrunk(
        how="weights in eight bits",
        bytes_before=size,
        bytes_after=graph_size(smaller),
        metrics_before=before,
        metrics_after=measure(smaller),
    )
    return told(smaller, found)


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
