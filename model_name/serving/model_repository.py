"""Hot reload of the served bundle, and the model repository extension of the Open Inference Protocol."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Literal

from model_name.errors import ModelNameError, NotFoundError
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.bundle import GRAPH_FILE, MANIFEST_FILE
from model_name.serving.dataplane import DataPlane
from model_name.serving.request_errors import ModelNotLoadedError, UnsupportedOperationError
from model_name.serving.runtime.file_signature import file_signature
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState

logger = logging.getLogger("model_name.serving")

WATCHED_FILES = (MANIFEST_FILE, GRAPH_FILE)

RepositoryAction = Literal["load", "unload"]


class BundleReloader:
    """Replaces the served bundle, between two batches, when its files have changed."""

    def __init__(
        self,
        directory: Path,
        batcher: AdaptiveBatcher,
        metrics: ServerMetrics,
        *,
        interval_seconds: float,
        load: Callable[[Path], DataPlane],
        files: Sequence[str] = WATCHED_FILES,
    ) -> None:
        """Start with the current files as those of the served bundle.

        Args:
            directory: Directory of the bundle.
            batcher: Batcher whose data plane is replaced.
            metrics: Metrics that count the reloads.
            interval_seconds: Time between two checks of the files; 0 disables them.
            load: Loads a bundle and predicts its example.
            files: Names of the files in the directory that a new bundle changes.
        """
        self.directory = directory
        self.batcher = batcher
        self.metrics = metrics
        self.interval_seconds = interval_seconds
        self.load = load
        self.files = files
        self._loaded_signature = file_signature(directory, files)
        self._checked_at = monotonic()
        self._lock = asyncio.Lock()

    async def reload_if_changed(self) -> None:
        """Reload the bundle if the interval is over and its files have changed. A broken bundle is tried once."""
        if not self.interval_seconds or monotonic() - self._checked_at < self.interval_seconds:
            return
        self._checked_at = monotonic()
        if file_signature(self.directory, self.files) != self._loaded_signature:
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
            self._loaded_signature = file_signature(self.directory, self.files)
            old = self.batcher.plane.bundle.manifest
            try:
                plane = await asyncio.to_thread(self.load, self.directory)
            except ModelNameError:
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
