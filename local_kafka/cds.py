"""The loaded classes of a broker in one file that Java maps, made once: a start then takes half the processor time."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from local_kafka.jars import LIBRARIES
from local_kafka.locks import locked
from local_kafka.nodes import STOP_SECONDS

if TYPE_CHECKING:
    from local_kafka.cluster import Cluster

# A broker lives for seconds or minutes here: the second compiler would cost more than it brings.
QUICK_JAVA = ("-XX:TieredStopAtLevel=1",)
DUMP_SECONDS = STOP_SECONDS + 50


def quick_java(make: "Callable[[tuple[str, ...]], Cluster]") -> tuple[str, ...]:
    """Options with which a broker starts fastest. The first call runs one to learn what it loads, in about 8 s.

    Args:
        make: A cluster of one node, with these options of Java.
    """
    archive = LIBRARIES / "classes.jsa"  # beside the jars, whose times it holds: new ones need a new archive
    with locked("classes"):
        if not archive.exists():
            dump(archive, make(QUICK_JAVA))
    return (*QUICK_JAVA, f"-XX:SharedArchiveFile={archive}")


def dump(archive: Path, cluster: "Cluster") -> None:
    """Run a broker that has served a little, and keep what it has loaded."""
    partial = archive.with_suffix(".partial")
    with cluster:
        cluster.create_topic("first")
        cluster.stop()
        node = cluster.nodes[1]
        node.command = [node.command[0], f"-XX:ArchiveClassesAtExit={partial}", *node.command[1:]]
        cluster.start()
        node.terminate()
        node.reap(DUMP_SECONDS)
    partial.rename(archive)
