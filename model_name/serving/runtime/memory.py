"""How often a process that answers looks for garbage."""

import gc

COLLECT = (20_000, 20, 20)  # new objects, and collections of the younger generation, before a generation is looked at


def collect_rarely() -> None:
    """Look for it less often, and not among what was imported: that takes a tenth of a second.

    Requests leave no cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
