"""Which of the processes that train together this one is. Only torchrun is believed.

A cluster sets WORLD_SIZE and RANK in pods that are to work alone, too; torchrun's own mark tells the two apart.
"""

import os


def world_size() -> int:
    """How many processes train together; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def is_main_process() -> bool:
    """Whether this is the one that reports, writes and registers."""
    return rank() == 0


def local_world_size() -> int:
    """How many of them share this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if world_size() > 1 else 1
