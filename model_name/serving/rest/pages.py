"""Pages of a server: the model card, the OpenAPI document and Swagger UI over it."""

import asyncio
from html import escape
from secrets import token_urlsafe

import orjson

from model_name.serving.bundle import Manifest
from model_name.serving.context import ServerContext
from model_name.serving.openapi.document import build_document
from model_name.serving.rest.asgi_request import AsgiRequest, Handler
from model_name.serving.rest.messages import HTML, HttpResponse

OPENAPI_PATH = "/openapi.json"
DOCS_PATH = "/docs"
SWAGGER_UI = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title} - Swagger UI</title>
<link rel="stylesheet" href="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{url: '{openapi_path}', dom_id: '#swagger-ui'{options}}})</script>
</body>
</html>
"""


AUTHORIZING_OPTIONS = """, requestInterceptor: (request) => {
  const key = `model-name token of ${location.origin}/`;
  const token = sessionStorage.getItem(key) ?? prompt('Token of this server') ?? '';
  sessionStorage.setItem(key, token.trim());
  request.headers.Authorization ??= `Bearer ${token.trim()}`;
  return request;
}, responseInterceptor: (response) => {
  if (response.status === 401) sessionStorage.removeItem(`model-name token of ${location.origin}/`);
  return response;
}"""
"""Options of Swagger UI on a server with a token: it is that of the model card, or taken from a prompt."""

PUBLIC_PAGES = frozenset({"/", DOCS_PATH})
"""Pages that a browser opens without a token; they show nothing of the model before they have one."""


class Pages:
    """Handlers of the pages of one served model."""

    def __init__(self, context: ServerContext, *, has_docs: bool) -> None:
        """Describe the model of a context.

        Args:
            context: Objects that all requests share.
            has_docs: Whether `/docs` shows Swagger UI, which the browser loads from a public CDN.
        """
        self.context = context
        self.has_docs = has_docs
        self._document: tuple[Manifest, bytes] | None = None

    def handlers(self) -> dict[str, Handler]:
        """Map the path of each page to its handler."""
        pages: dict[str, Handler] = {"/": self.root, OPENAPI_PATH: self.openapi}
        return pages | {DOCS_PATH: self.docs} if self.has_docs else pages

    async def root(self, request: AsgiRequest) -> HttpResponse:
        """Show the model card to a browser; respond to other clients as KServe's server does.

        A browser cannot send a token when it opens a page: without one it gets a page that takes it.

        Raises:
            UnauthorizedError: The client needs a token, has a wrong one, or is no browser and has none.
        """
        auth, metadata = self.context.auth, request.headers
        is_browser = any(name == b"accept" and b"text/html" in value for name, value in metadata)
        if is_browser and auth.is_enabled and not auth.has_credentials(metadata):
            return await asyncio.to_thread(self._render_token_page)
        auth.authenticate(metadata)
        return await (asyncio.to_thread(self._render_card) if is_browser else alive(request))

    async def openapi(self, request: AsgiRequest) -> HttpResponse:
        """Return the OpenAPI document of the bundle that is served now."""
        manifest = self.context.manifest
        if self._document is None or self._document[0] is not manifest:
            text = await asyncio.to_thread(lambda: orjson.dumps(build_document(manifest, name=self.context.name)))
            self._document = (manifest, text)
        return HttpResponse(self._document[1], manifest=manifest)

    async def docs(self, request: AsgiRequest) -> HttpResponse:
        """Show Swagger UI over the OpenAPI document, as KServe's `--enable_docs_url` does."""
        options = AUTHORIZING_OPTIONS if self.context.auth.is_enabled else ""
        page = SWAGGER_UI.format(title=escape(self.context.name), openapi_path=OPENAPI_PATH, options=options)
        return HttpResponse(page.encode(), 200, HTML)

    def _render_card(self) -> HttpResponse:
        from model_name.serving.model_card.card import content_security_policy, render_card  # jinja2, only for browsers

        context, manifest, nonce = self.context, self.context.manifest, token_urlsafe(16)
        text = render_card(
            manifest,
            name=context.name,
            slot=context.metrics.slot,
            nonce=nonce,
            needs_token=context.auth.is_enabled,
        )
        return HttpResponse(text.encode(), 200, HTML, [content_security_policy(nonce)], manifest)

    def _render_token_page(self) -> HttpResponse:
        from model_name.serving.model_card.card import content_security_policy, render_token_page

        nonce = token_urlsafe(16)
        text = render_token_page(name=self.context.name, nonce=nonce)
        return HttpResponse(text.encode(), 200, HTML, [content_security_policy(nonce)])


async def alive(_: AsgiRequest) -> HttpResponse:
    """Respond that the process is alive, as KServe's server does at its root."""
    return HttpResponse(b'{"status":"alive"}')
