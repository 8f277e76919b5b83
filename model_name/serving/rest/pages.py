"""What a browser is shown, and what tells a client of HTTP how to ask."""

import asyncio
from secrets import token_urlsafe
from typing import Any

import orjson

from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.bundle import Manifest
from model_name.serving.openapi.document import build_document
from model_name.serving.rest.messages import HTML, HttpResponse, Scope

CSP = b"content-security-policy"


class Pages:
    """The card of the model, and the OpenAPI document."""

    def __init__(self, name: str, slot: str, batcher: AdaptiveBatcher, *, needs_token: bool) -> None:
        """Tell of what a batcher answers by.

        Args:
            name: Of the model.
            slot: Blue or green.
            batcher: What answers.
            needs_token: Whether a client must show a token.
        """
        self.name = name
        self.slot = slot
        self.batcher = batcher
        self.needs_token = needs_token
        self._document: tuple[Manifest, bytes] | None = None

    async def root(self, scope: Scope, receive: Any) -> HttpResponse:
        """The card for a browser; for others that the server is alive, as KServe's has it."""
        if not any(name == b"accept" and b"text/html" in value for name, value in scope["headers"]):
            return HttpResponse(b'{"status":"alive"}')
        return await asyncio.to_thread(self.render_card)

    def render_card(self) -> HttpResponse:
        """The page."""
        from model_name.serving.model_card.card import render_card, response_headers  # templates are for those who look

        manifest = self.batcher.plane.bundle.manifest
        nonce = token_urlsafe(16)
        text = render_card(manifest, name=self.name, slot=self.slot, nonce=nonce, needs_token=self.needs_token)
        policy = [(name, value) for name, value in response_headers(nonce) if name == CSP]  # the others, every answer has
        return HttpResponse(text.encode(), 200, HTML, policy, manifest)

    async def openapi(self, scope: Scope, receive: Any) -> HttpResponse:
        """The OpenAPI document."""
        manifest = self.batcher.plane.bundle.manifest
        if self._document is None or self._document[0] is not manifest:
            text = await asyncio.to_thread(lambda: orjson.dumps(build_document(manifest, name=self.name)))
            self._document = (manifest, text)
        return HttpResponse(self._document[1], manifest=manifest)
