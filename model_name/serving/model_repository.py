"""A new bundle takes the place of the one that is served, between two batches, or is refused."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic

from model_name.errors import ModelNameError, NotFoundError
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.bundle import GRAPH, MANIFEST
from model_name.serving.dataplane import DataPlane
from model_name.serving.request_errors import ModelNotLoadedError, UnsupportedOperationError
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState

logger = logging.getLogger("model_name.serving")

WATCHED_FILES = (MANIFEST, GRAPH)

FileSignature = tuple[tuple[int, int, int], ...]
"""What tells that files have changed: of each its number, its size and the time of its last change."""


class BundleReloader:
    """Watches the folder of the bundle."""

    def __init__(
        self,
        directory: Path,
        batcher: AdaptiveBatcher,
        metrics: ServerMetrics,
        *,
        seconds: float,
        load: Callable[[Path], DataPlane],
        files: Sequence[str] = WATCHED_FILES,
    ) -> None:
        """Watch from now on.

        Args:
            directory: Of the bundle.
            batcher: What serves it.
            telemetry: What is told of each try.
            seconds: Between two looks; none where 0.
            load: Reads it, and answers its example.
            files: Of the folder, that a new bundle changes.
        """
        self.directory = directory
        self.batcher = batcher
        self.metrics = metrics
        self.seconds = seconds
        self.load = load
        self.files = files
        self._seen = file_signature(directory, files)
        self._looked = monotonic()
        self._lock = asyncio.Lock()

    async def look(self) -> None:
        """Swap if it is time and the bundle has changed; one that is refused is refused once."""
        if not self.seconds or monotonic() - self._looked < self.seconds:
            return
        self._looked = monotonic()
        if file_signature(self.directory, self.files) != self._seen:
            try:
                await self.swap()
            except ModelNameError as err:
                version = self.batcher.plane.bundle.manifest.version
                logger.warning("the new bundle is refused, version %s goes on: %s", version, err.message)

    async def swap(self) -> None:
        """Load the bundle anew and let it take over.

        Raises:
            ModelNameError: It is broken or refuses its own example; the old one goes on.
        """
        async with self._lock:
            self._seen = file_signature(self.directory, self.files)
            old = self.batcher.plane.bundle.manifest
            try:
                plane = await asyncio.to_thread(self.load, self.directory)
            except ModelNameError:
                self.metrics.bundle_loads.labels("refused").inc()
                raise
            self.batcher.plane = plane
        new = plane.bundle.manifest
        self.metrics.serve(new)
        self.metrics.bundle_loads.labels("loaded").inc()
        logger.info("version %s (%s) took over from %s (%s)", new.version, new.semver, old.version, old.semver)


class ModelRepository:
    """Loads and unloads the model for clients, where that is enabled: KServe would let anyone who reaches the port."""

    def __init__(self, name: str, state: ServerState, swap: Callable[[], Awaitable[None]], *, is_open: bool) -> None:
        """Change one model.

        Args:
            name: Of the model.
            state: What the probes are told.
            swap: Loads it anew.
            is_open: Whether clients may ask for it.
        """
        self.name = name
        self.state = state
        self.swap = swap
        self.is_open = is_open

    def require(self) -> None:
        """Refuse to answer while the model is unloaded.

        Raises:
            UnloadedError: It is.
        """
        if not self.state.is_loaded:
            raise ModelNotLoadedError(f"{self.name} was unloaded; load it to have it answer")

    async def change(self, name: str, change: str) -> None:
        """Load or unload.

        Raises:
            UnservedError: Nobody may.
            NotFoundError: It is another model.
            ModelNameError: The bundle is broken.
        """
        if not self.is_open:
            raise UnsupportedOperationError(
                "models are not loaded or unloaded by requests", hint="start the server with --model_repository true"
            )
        if name != self.name:
            raise NotFoundError(f"there is no model {name[:100]} here; this server serves {self.name}")
        if change == "load":
            await self.swap()
        self.state.is_loaded = change == "load"


def file_signature(directory: Path, files: Sequence[str] = WATCHED_FILES) -> FileSignature:
    """What tells that a bundle has changed; nothing where files are missing, as they are while it is written."""
    found = []
    for name in files:
        try:
            stat = (directory / name).stat()
        except OSError:
            continue
        found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
