"""Budget of processor time of a background thread."""

import time


class CpuBudget:
    """Processor time that a thread may use: a share of the time that passes, saved up to a maximum.

    Not thread-safe; create and use it in the thread whose time it measures.

    Attributes:
        share: Share of one processor.
        max_credit_seconds: Maximum of the time that is saved while the thread is idle, to be used for a burst.
        credit_seconds: Time that may be used now; negative if too much was used.
        used_seconds: Processor time that the thread has used since its start.
    """

    def __init__(self, share: float, max_credit_seconds: float) -> None:
        """Start with the full credit."""
        self.share = share
        self.max_credit_seconds = max_credit_seconds
        self.credit_seconds = max_credit_seconds
        self.used_seconds = time.thread_time()
        self._updated_at = time.monotonic()

    def update(self) -> float:
        """Add the share of the time that has passed since the last update, and subtract what was used.

        Returns:
            Processor time that was used since the last update, in seconds.
        """
        now, used = time.monotonic(), time.thread_time()
        elapsed, newly_used = now - self._updated_at, used - self.used_seconds
        credit = self.credit_seconds + elapsed * self.share - newly_used
        self.credit_seconds = min(credit, self.max_credit_seconds)
        self.used_seconds, self._updated_at = used, now
        return newly_used

    @property
    def pause_seconds(self) -> float:
        """Time after which the credit is no longer negative."""
        return max(0.0, -self.credit_seconds / self.share)
