"""Cross-origin resource sharing (CORS): which web pages may read responses, as the Fetch standard defines it."""

from collections.abc import Sequence

from model_name.errors import ConfigError
from model_name.serving.rest.messages import Headers

ANY_ORIGIN = "*"
ALLOWED_METHODS = b"GET, HEAD, POST, OPTIONS"
ALLOWED_HEADERS = (
    b"accept, authorization, content-encoding, content-type, inference-header-content-length, "
    b"ce-id, ce-source, ce-specversion, ce-subject, ce-time, ce-type, traceparent, tracestate, x-request-id"
)
EXPOSED_HEADERS = (
    b"allow, inference-header-content-length, retry-after, traceresponse, "
    b"x-model-semver, x-model-slot, x-model-version, x-request-id"
)
MAX_AGE_SECONDS = b"600"  # for which a browser may reuse the response to a preflight request


class CorsPolicy:
    """Origins whose pages may read responses; none by default. Requests with cookies are never allowed.

    Attributes:
        is_enabled: Whether any origin is allowed.
    """

    def __init__(self, origins: Sequence[str] = ()) -> None:
        """Allow the pages of some origins, such as `https://example.com`, or of any for `*`.

        Raises:
            ConfigError: An origin is not `*` and has not the form `scheme://host[:port]`.
        """
        for origin in origins:
            scheme, separator, host = origin.partition("://")
            if origin != ANY_ORIGIN and not (
                scheme and separator and host and origin.isascii() and origin.isprintable() and not {*host} & {*"/,* "}
            ):
                raise ConfigError(
                    f"--cors_origins: {origin} is not an origin", hint="name scheme and host: https://example.com"
                )
        self.is_enabled = bool(origins)
        self._allows_any = ANY_ORIGIN in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def response_headers(self, request_headers: Headers) -> Headers:
        """List the headers of a response that let the page of the request read it.

        Args:
            request_headers: Headers of the request, names in lower case.
        """
        if not self.is_enabled:
            return []
        expose = (b"access-control-expose-headers", EXPOSED_HEADERS)
        if self._allows_any:
            return [(b"access-control-allow-origin", b"*"), expose]
        vary = (b"vary", b"origin")
        origin = dict(request_headers).get(b"origin")
        return [(b"access-control-allow-origin", origin), vary, expose] if origin in self._origins else [vary]

    def is_preflight(self, method: str, request_headers: Headers) -> bool:
        """Report whether a request is a preflight request, which browsers send without credentials."""
        if not self.is_enabled or method != "OPTIONS":
            return False
        return {b"origin", b"access-control-request-method"} <= dict(request_headers).keys()

    def preflight_headers(self) -> Headers:
        """List the headers of the response to a preflight request, besides those of every response."""
        return [
            (b"access-control-allow-methods", ALLOWED_METHODS),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", MAX_AGE_SECONDS),
        ]
