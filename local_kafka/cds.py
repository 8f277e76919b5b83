"""Start brokers fast: cache their loaded Java classes in a class data sharing (CDS) archive.

With the archive a start takes half the processor time.
"""

import os
from pathlib import Path

from local_kafka.cluster import Cluster
from local_kafka.jars import fetch_libraries
from local_kafka.locks import file_lock
from local_kafka.nodes import STOP_SECONDS

# A broker runs for seconds or minutes here, so that the second compiler costs more than it saves.
COMPILER_OPTIONS = ("-XX:TieredStopAtLevel=1",)
DUMP_TIMEOUT_SECONDS = STOP_SECONDS + 50


def fast_start_options() -> tuple[str, ...]:
    """Return the Java options with which a broker starts fastest. The first call creates the archive, in about 8 s.

    Raises:
        DependencyError: Java or the jars are missing, or the broker that creates the archive does not start.
    """
    archive = fetch_libraries() / "classes.jsa"  # beside the jars: it contains their times, new jars need a new one
    with file_lock("classes"):
        if not archive.exists():
            create_archive(archive)
    return (*COMPILER_OPTIONS, f"-XX:SharedArchiveFile={archive}")


def create_archive(archive: Path) -> None:
    """Run a broker until it has loaded its classes, and archive them when it exits."""
    partial = archive.with_suffix(f".{os.getpid()}.partial")  # checkouts with locks of their own may share the jars
    with Cluster(java=COMPILER_OPTIONS) as cluster:
        cluster.create_topic("first")
        cluster.stop()
        node = cluster.nodes[1]
        node.command = [node.command[0], f"-XX:ArchiveClassesAtExit={partial}", *node.command[1:]]
        cluster.start()
        node.terminate()
        node.reap(DUMP_TIMEOUT_SECONDS)
    partial.rename(archive)
