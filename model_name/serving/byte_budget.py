"""Budget of bytes that the bodies of all requests may take together, whatever their protocol."""

from model_name.errors import BusyError


class ByteBudget:
    """Bytes of the bodies that are being received or wait for a response. Not thread-safe; use on the event loop.

    Attributes:
        limit: Maximum number of bytes. A single body may exceed it, if nothing else is reserved.
        used: Number of reserved bytes.
    """

    def __init__(self, limit: int) -> None:
        """Start with nothing reserved."""
        self.limit = limit
        self.used = 0

    def reserve(self, size: int) -> None:
        """Reserve bytes.

        Raises:
            BusyError: Other bodies take so much that the limit would be exceeded; nothing is reserved then.
        """
        if self.used and self.used + size > self.limit:
            raise BusyError("too many bytes of requests are held already; try again in a second")
        self.used += size

    def release(self, size: int) -> None:
        """Release reserved bytes."""
        self.used -= size
