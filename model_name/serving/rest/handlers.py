"""Handlers of the routes that are not on the fast path: probes, metadata, metrics and the model repository."""

from collections.abc import Mapping
from typing import Any

import orjson
from prometheus_client.exposition import choose_encoder

from model_name.errors import DataError
from model_name.serving.context import ServerContext
from model_name.serving.model_repository import RepositoryAction
from model_name.serving.protocols.strict_json import loads
from model_name.serving.protocols.tensors import model_metadata
from model_name.serving.protocols.triton import model_config, repository_index, statistics_document
from model_name.serving.rest.asgi_request import AsgiRequest
from model_name.serving.rest.messages import HttpResponse

MAX_INDEX_REQUEST_BYTES = 1024


class ServerHandlers:
    """Handlers of one served model. Their bodies are those of KServe's server."""

    def __init__(self, context: ServerContext) -> None:
        """Serve the model of a context."""
        self.context = context

    async def live(self, request: AsgiRequest) -> HttpResponse:
        """Respond that the process is alive."""
        return _probe("live", is_passing=True)

    async def ready(self, request: AsgiRequest) -> HttpResponse:
        """Respond whether requests should be routed to this server."""
        return _probe("ready", is_passing=self.context.state.is_ready)

    async def startup(self, request: AsgiRequest) -> HttpResponse:
        """Respond whether the warm-up is over."""
        return _probe("startup", is_passing=self.context.state.is_started)

    async def model_ready(self, request: AsgiRequest) -> HttpResponse:
        """Respond whether requests for the model should be routed to this server."""
        is_ready = self.context.state.is_ready
        return HttpResponse(orjson.dumps({"name": self.context.name, "ready": is_ready}), 200 if is_ready else 503)

    async def version_status(self, request: AsgiRequest) -> HttpResponse:
        """Respond as `model_ready`, with the status of the version as TensorFlow Serving describes it."""
        is_ready, manifest = self.context.state.is_ready, self.context.manifest
        state = "AVAILABLE" if is_ready else "LOADING" if not self.context.state.is_started else "UNLOADING"
        status = {"version": manifest.version, "state": state, "status": {"error_code": "OK", "error_message": ""}}
        document = {"name": self.context.name, "ready": is_ready, "model_version_status": [status]}
        return HttpResponse(orjson.dumps(document), 200 if is_ready else 503, manifest=manifest)

    async def list_models(self, request: AsgiRequest) -> HttpResponse:
        """List the names of the served models: one."""
        return HttpResponse(orjson.dumps({"models": [self.context.name]}))

    async def server_metadata(self, request: AsgiRequest) -> HttpResponse:
        """Describe the server, as V2 defines it."""
        return HttpResponse(orjson.dumps(self.context.server_metadata))

    async def model_metadata(self, request: AsgiRequest) -> HttpResponse:
        """Describe the inputs and outputs of the model, as V2 defines it."""
        return HttpResponse(orjson.dumps(model_metadata(self.context.name, self.context.manifest)))

    async def metrics(self, request: AsgiRequest) -> HttpResponse:
        """Export the metrics in the format that the client accepts: OpenMetrics, or the text format of Prometheus."""
        accept = b",".join(value for name, value in request.headers if name == b"accept").decode("latin-1")
        encode, content_type = choose_encoder(accept)
        return HttpResponse(encode(self.context.metrics.registry), 200, content_type.encode())

    async def model_config(self, request: AsgiRequest) -> HttpResponse:
        """Describe the model as Triton's configuration."""
        return HttpResponse(orjson.dumps(model_config(self.context.name, self.context.manifest)))

    async def model_statistics(self, request: AsgiRequest) -> HttpResponse:
        """Report the statistics of the batches as Triton does."""
        version = self.context.manifest.version
        statistics = self.context.batcher.statistics.of_version(version)
        return HttpResponse(orjson.dumps(statistics_document(self.context.name, version, statistics)))

    def repository_index(self, body: bytes) -> HttpResponse:
        """List the models of the repository: the served one, unless only ready ones are requested and it is not.

        Raises:
            DataError: The body is neither empty nor a short JSON object.
        """
        is_ready = self.context.state.is_ready
        only_ready = _parse_index_request(body).get("ready") is True
        models = repository_index(self.context.name, self.context.manifest.version, is_ready=is_ready)
        return HttpResponse(orjson.dumps(models if is_ready or not only_ready else []))

    async def load(self, request: AsgiRequest) -> HttpResponse:
        """Load the model again."""
        return await self._load_or_unload(request, "load")

    async def unload(self, request: AsgiRequest) -> HttpResponse:
        """Unload the model: requests get 503 until it is loaded."""
        return await self._load_or_unload(request, "unload")

    async def _load_or_unload(self, request: AsgiRequest, action: RepositoryAction) -> HttpResponse:
        name = request.path_params["repository_name"]
        await self.context.repository.load_or_unload(name, action)
        return HttpResponse(orjson.dumps({"name": name, action: True}))


def _parse_index_request(body: bytes) -> Mapping[str, Any]:
    """Parse the body of a request for the index of the repository.

    Raises:
        DataError: The body is neither empty nor a short JSON object.
    """
    if not body:
        return {}
    request = loads(body) if len(body) <= MAX_INDEX_REQUEST_BYTES else None
    if not isinstance(request, dict):
        raise DataError('the body is not a short JSON object such as {"ready": true}')
    return request


def _probe(name: str, *, is_passing: bool) -> HttpResponse:
    return HttpResponse(orjson.dumps({name: is_passing}), 200 if is_passing else 503)
