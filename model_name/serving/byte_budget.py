"""Budget of bytes that the bodies of all requests, whatever their protocol, and unread responses may take together."""

from types import TracebackType
from typing import Self

from model_name.errors import BusyError


class ByteBudget:
    """Bytes of bodies in transit, queued and computed, and of unread responses. Not thread-safe; use on the event loop.

    Attributes:
        limit: Maximum number of bytes. A single body may exceed it, if nothing else is reserved.
        used: Number of reserved bytes.
    """

    def __init__(self, limit: int) -> None:
        """Start with nothing reserved."""
        self.limit = limit
        self.used = 0
        self._peak = 0

    def reserve(self, size: int, *, held: int = 0) -> None:
        """Reserve bytes.

        Args:
            size: Number of bytes.
            held: Number of bytes that are already reserved for the same body.

        Raises:
            BusyError: Other bodies take so much that the limit would be exceeded; nothing is reserved then.
        """
        if self.used > held and self.used + size > self.limit:
            raise BusyError("too many bytes of requests are held already; try again in a second")
        self.hold(size)

    def hold(self, size: int) -> None:
        """Reserve bytes that exist already, even above the limit: further bodies are rejected until they are released.

        Args:
            size: Number of bytes.
        """
        self.used += size
        self._peak = max(self._peak, self.used)

    def release(self, size: int) -> None:
        """Release reserved bytes."""
        self.used -= size

    def take_peak(self) -> int:
        """Return the largest number of reserved bytes since the last call."""
        peak, self._peak = self._peak, self.used
        return peak


class Reservation:
    """Part of a budget that one body takes while it grows; released at the end of a `with` block.

    Attributes:
        size: Number of reserved bytes.
    """

    __slots__ = ("_budget", "size")

    def __init__(self, budget: ByteBudget) -> None:
        """Start with nothing reserved."""
        self._budget = budget
        self.size = 0

    def grow(self, size: int) -> None:
        """Reserve further bytes.

        Raises:
            BusyError: The budget does not allow them.
        """
        self._budget.reserve(size, held=self.size)
        self.size += size

    def release(self) -> None:
        """Release all reserved bytes."""
        size, self.size = self.size, 0
        self._budget.release(size)

    def __enter__(self) -> Self:
        """Start with what is reserved so far."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release all reserved bytes."""
        self.release()
