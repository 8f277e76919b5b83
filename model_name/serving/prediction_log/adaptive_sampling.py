"""Adaptive sampling: the probability with which a request is logged falls while more rows wait than can be written."""

FREE_SHARE = 0.3  # of the time that rows may wait, up to which what waits lowers no probability
HALVING_SHARE = 0.05  # of that time: each further one halves the probability
MAX_HALVINGS = 7.0  # so that no weight is larger than 128 times the usual one
COST_DECAY = 0.9  # weight of a block in the average cost per row, relative to that of the next block
FREE_FILL = 0.5  # share of the memory of the buffer that lowers no probability


class AdaptiveSampling:
    """Probability of logging a request, from the rows that wait and the cost of recent rows.

    The probability is the usual one as long as what waits is expected to be written within a third of the time that it
    may wait, and the buffer is at most half full. Beyond that it falls exponentially, so that rows wait for little
    longer even if there are many times too many. It depends on the load alone, not on the values of a row, and each
    request is drawn independently: statistics that are weighted by the inverse of the probability stay unbiased.

    Attributes:
        sampling: Usual probability, and the highest one.
    """

    def __init__(self, sampling: float, *, backlog_seconds: float, max_bytes: int) -> None:
        """Start without a measured cost of a row: the first rows are logged with the usual probability.

        Args:
            sampling: Usual probability.
            backlog_seconds: Time that a row may wait.
            max_bytes: Memory of the buffer.
        """
        self.sampling = sampling
        self._backlog_seconds = backlog_seconds
        self._max_bytes = max_bytes
        self._free_bytes = max_bytes * FREE_FILL
        self._rows = self._elapsed = self._used = 0.0  # decaying sums over the recent blocks
        self._free_rows = self._halving_rows = 1e12

    def probability(self, rows: int, memory_bytes: int) -> float:
        """Compute the probability for the next request. Thread-safe.

        Args:
            rows: Number of rows that wait.
            memory_bytes: Memory of these rows.
        """
        if rows <= self._free_rows and memory_bytes <= self._free_bytes:
            return self.sampling
        halvings = max(
            (rows - self._free_rows) / self._halving_rows,
            (memory_bytes / self._max_bytes - FREE_FILL) / (1 - FREE_FILL) * MAX_HALVINGS,
        )
        return self.sampling * float(0.5 ** min(halvings, MAX_HALVINGS))

    def record_block(self, rows: int, elapsed: float, used: float, *, credit: float, share: float) -> None:
        """Update the expected cost of a row. Not thread-safe; call on the thread that writes.

        Args:
            rows: Number of rows of a block.
            elapsed: Time in which it was formatted and written, in seconds.
            used: Processor time that this took, in seconds.
            credit: Processor time that the thread may use now, in seconds.
            share: Share of a processor that it may use.
        """
        self._rows = self._rows * COST_DECAY + rows
        self._elapsed = self._elapsed * COST_DECAY + elapsed
        self._used = self._used * COST_DECAY + used
        rows_per_second = self._rows / max(self._elapsed, 1e-9)
        rows_per_used_second = self._rows / max(self._used, 1e-9)
        time_limit = self._backlog_seconds * FREE_SHARE
        self._free_rows = min(
            time_limit * rows_per_second, (time_limit * share + max(credit, 0.0)) * rows_per_used_second
        )
        self._halving_rows = self._backlog_seconds * HALVING_SHARE * min(rows_per_second, share * rows_per_used_second)
