"""Rank and world size of a process in distributed training, from the environment of torchrun.

WORLD_SIZE and RANK alone are not trusted: a cluster also sets them in pods that train alone. TORCHELASTIC_RUN_ID, which
only torchrun sets, distinguishes the two.
"""

import os


def world_size() -> int:
    """Return the number of processes that train together; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def is_main_process() -> bool:
    """Return whether this is the process that reports, writes and registers."""
    return rank() == 0


def local_world_size() -> int:
    """Return the number of processes that train together on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if world_size() > 1 else 1
