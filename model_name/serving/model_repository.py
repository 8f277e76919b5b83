"""Hot reload of the served bundle, and the model repository extension of the Open Inference Protocol."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Literal

from model_name.errors import ModelNameError, NotFoundError
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.bundle import list_files
from model_name.serving.dataplane import DataPlane
from model_name.serving.request_errors import ModelNotLoadedError, UnsupportedOperationError
from model_name.serving.runtime.file_signature import FileSignature, file_signature
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState

logger = logging.getLogger("model_name.serving")

RepositoryAction = Literal["load", "unload"]


class ModelSource:
    """Directory of the served model: loads the model, and detects that its files have changed since."""

    def __init__(
        self,
        directory: Path,
        load: Callable[[Path], DataPlane],
        *,
        list_files: Callable[[Path], Sequence[str]] = list_files,
    ) -> None:
        """Create a source; nothing is loaded yet.

        Args:
            directory: Directory of the model.
            load: Loads the model of the directory and predicts its example.
            list_files: Lists the names of the files that make up the model of the directory.
        """
        self.directory = directory
        self._load = load
        self._list_files = list_files
        self._loaded: tuple[Sequence[str], FileSignature] = ((), ())

    def load(self) -> DataPlane:
        """Load the model.

        Raises:
            ModelNameError: The model is broken or fails on its own example.
        """
        # The signature is older than the model, so that files that are replaced during the load are loaded after it.
        files = self._list_files(self.directory)
        self._loaded = files, file_signature(self.directory, files)
        return self._load(self.directory)

    def has_changed(self) -> bool:
        """Return whether the files have changed since the last load began, whether or not it succeeded."""
        files, signature = self._loaded
        return file_signature(self.directory, files) != signature


class BundleReloader:
    """Replaces the served bundle, between two batches, when its files have changed."""

    def __init__(
        self, source: ModelSource, batcher: AdaptiveBatcher, metrics: ServerMetrics, *, interval_seconds: float
    ) -> None:
        """Watch the source of the served bundle.

        Args:
            source: Source that the served bundle was loaded from.
            batcher: Batcher whose data plane is replaced.
            metrics: Metrics that count the reloads.
            interval_seconds: Time between two checks of the files; 0 disables them.
        """
        self.source = source
        self.batcher = batcher
        self.metrics = metrics
        self.interval_seconds = interval_seconds
        self._checked_at = monotonic()
        self._lock = asyncio.Lock()

    async def reload_if_changed(self) -> None:
        """Reload the bundle if the interval is over and its files have changed. A broken bundle is tried once."""
        if not self.interval_seconds or monotonic() - self._checked_at < self.interval_seconds:
            return
        self._checked_at = monotonic()
        if await asyncio.to_thread(self.source.has_changed):  # file systems of a network may be slow
            try:
                await self.reload()
            except ModelNameError as err:
                version = self.batcher.plane.bundle.manifest.version
                logger.warning("the new bundle is refused, version %s stays in service: %s", version, err.message)

    async def reload(self) -> None:
        """Load the bundle off the event loop, then serve it.

        Raises:
            ModelNameError: The bundle is broken or fails on its own example; the old one stays.
        """
        async with self._lock:
            old = self.batcher.plane.bundle.manifest
            try:
                plane = await asyncio.to_thread(self.source.load)
            except Exception:  # ONNX Runtime raises errors of its own
                self.metrics.bundle_loads.labels("refused").inc()
                raise
            self.batcher.plane = plane
        new = plane.bundle.manifest
        self.metrics.set_model_info(new)
        self.metrics.bundle_loads.labels("loaded").inc()
        logger.info("version %s (%s) replaced version %s (%s)", new.version, new.semver, old.version, old.semver)


class ModelRepository:
    """Loads and unloads the model on request, where that is enabled; KServe's server lets any client do so."""

    def __init__(
        self, name: str, state: ServerState, reload: Callable[[], Awaitable[None]], *, is_enabled: bool
    ) -> None:
        """Manage one model.

        Args:
            name: Name of the model.
            state: State of the server, which says whether the model is loaded.
            reload: Loads the model again.
            is_enabled: Whether clients may load and unload it.
        """
        self.name = name
        self.state = state
        self.reload = reload
        self.is_enabled = is_enabled

    def check_loaded(self) -> None:
        """Check that the model is loaded.

        Raises:
            ModelNotLoadedError: A client has unloaded it.
        """
        if not self.state.is_loaded:
            raise ModelNotLoadedError(f"{self.name} was unloaded; load it to have it answer")

    async def load_or_unload(self, name: str, action: RepositoryAction) -> None:
        """Load or unload the model.

        Args:
            name: Name of the model in the request.
            action: Requested change.

        Raises:
            UnsupportedOperationError: The extension is not enabled.
            NotFoundError: This server has no model of that name.
            ModelNameError: The bundle is broken or fails on its own example.
        """
        if not self.is_enabled:
            raise UnsupportedOperationError(
                "models are not loaded or unloaded by requests", hint="start the server with --model_repository true"
            )
        if name != self.name:
            raise NotFoundError(f"there is no model {name[:100]} here; this server serves {self.name}")
        if action == "load":
            await self.reload()
        self.state.is_loaded = action == "load"
