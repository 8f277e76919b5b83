"""Authentication of clients by a bearer token."""

from collections.abc import Iterable
from hmac import compare_digest

from model_name.serving.request_errors import UnauthorizedError

AUTHORIZATION = (b"authorization", "authorization")


class TokenAuth:
    """Authentication by a bearer token; disabled if the token is empty."""

    def __init__(self, token: bytes = b"") -> None:
        """Require a token, or none if it is empty."""
        self._expected = b"Bearer " + token if token else b""

    @property
    def is_enabled(self) -> bool:
        """Whether clients need a token."""
        return bool(self._expected)

    def has_credentials(self, metadata: Iterable[tuple[str | bytes, str | bytes]]) -> bool:
        """Report whether a request has credentials, valid or not.

        Args:
            metadata: Headers of an HTTP request, or metadata of a gRPC call; names in lower case.
        """
        return any(name in AUTHORIZATION for name, _ in metadata)

    def authenticate(self, metadata: Iterable[tuple[str | bytes, str | bytes]]) -> None:
        """Check the token of a request.

        Args:
            metadata: Headers of an HTTP request, or metadata of a gRPC call; names in lower case.

        Raises:
            UnauthorizedError: The request has no token, or a wrong one.
        """
        if not self._expected:
            return
        for name, value in metadata:
            if name in AUTHORIZATION:
                credentials = value.encode("utf-8", "replace") if isinstance(value, str) else value
                scheme, _, token = credentials.partition(b" ")
                if compare_digest(scheme.capitalize() + b" " + token.strip(), self._expected):
                    return
        raise UnauthorizedError("this server wants a token: Authorization: Bearer TOKEN")
