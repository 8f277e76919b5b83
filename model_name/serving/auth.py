"""Who may ask a server."""

from collections.abc import Iterable
from hmac import compare_digest

from model_name.serving.request_errors import UnauthorizedError


class TokenAuth:
    """Lets those in who show the bearer token, or everybody where there is none."""

    def __init__(self, token: bytes = b"") -> None:
        """Keep the token."""
        self._expected = b"Bearer " + token if token else b""

    @property
    def is_asking(self) -> bool:
        """Whether a token is needed."""
        return bool(self._expected)

    def check(self, headers: Iterable[tuple[str | bytes, str | bytes]]) -> None:
        """Let a request pass.

        Args:
            headers: Of HTTP, or the metadata of gRPC; names in small letters.

        Raises:
            UnauthorizedError: It shows no token, or another one.
        """
        if not self._expected:
            return
        for name, value in headers:
            if name in (b"authorization", "authorization"):
                shown = value.encode("utf-8", "replace") if isinstance(value, str) else value
                scheme, _, token = shown.partition(b" ")
                if compare_digest(scheme.capitalize() + b" " + token.strip(), self._expected):
                    return
        raise UnauthorizedError("this server wants a token: Authorization: Bearer TOKEN")
