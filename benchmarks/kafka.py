"""The worker beside bare loops on the same broker: records/s by turns, and the latency under light load.

    python -m benchmarks.kafka [--rounds 3] [--records 60000] [--only exactly_once,bare]

The output topic has the broker's time, and what is told is the time from the first record to the last in it, with all
results there. The bare loops copy what the worker reads to where it writes, in batches of the same size and in the same
delivery; they parse, check, predict and explain nothing. One at a time is what there is without batches.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.harness import OUTPUT_DIRECTORY, console, print_table, write_report
from benchmarks.servers.served_model import ServedModel, load_served_model
from benchmarks.streams import loops
from benchmarks.virtualenvs import create_overlay
from local_kafka.cluster import Cluster
from local_kafka.jars import unavailable_reason

PARTITIONS = 3
BATCH = 500
RECORDS = 60_000
ONE_RECORDS = 500  # of the loop that takes one at a time
LIGHT_RATE = 50.0  # records a second
LIGHT_SECONDS = 20.0
FIRST_RECORDS = 100  # that are not counted: of all of them they meet a cold worker
WAIT_SECONDS = 300.0
LOG = OUTPUT_DIRECTORY / "kafka-log"
PINS = Path(loops.__file__).with_name("confluent.txt")

RUNNERS = ("exactly_once", "bare", "at_least_once", "bare-at-least-once", "one", "confluent")
MIN_RATIOS = {
    ("exactly_once", "bare"): 0.8,
    ("at_least_once", "bare-at-least-once"): 0.8,
    ("exactly_once", "one"): 10.0,
}


@dataclass(frozen=True)
class Latency:
    """From the time of a record to that of its result, in milliseconds."""

    p50: float
    p99: float
    most: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kafka", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--only", default=",".join(RUNNERS), help=f"some of {', '.join(RUNNERS)}")
    options = parser.parse_args(argv)
    if reason := unavailable_reason():
        raise SystemExit(reason)
    served = load_served_model()
    chosen = [name for name in options.only.split(",") if name != "confluent" or create_overlay("confluent", PINS)]
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    with Cluster(java=()) as cluster:
        source = filled(cluster, served, options.records)
        measure(cluster, served, "bare", source, options.records)  # while Java finds out what to compile
        for number in range(options.rounds):
            for name in chosen:
                records = min(ONE_RECORDS, options.records) if name == "one" else options.records
                rates[name].append(measure(cluster, served, name, source, records))
                console.print(f"round {number + 1}: {name}: {rates[name][-1]:,.0f} records/s")
        latency = light(cluster, served) if "exactly_once" in chosen else None
    return judge(rates, latency)


def filled(cluster: Cluster, served: ServedModel, records: int) -> str:
    """A topic with so many rows."""
    topic = cluster.create_topic("rows", partitions=PARTITIONS)
    producer = producer_of(cluster)
    for number, row in enumerate(islice(cycle(served.rows), records)):
        producer.send(topic, json.dumps(row).encode(), b"key-%d" % (number % 97))
    producer.flush()
    producer.close()
    return topic


def producer_of(cluster: Cluster, *, linger_ms: int = 20) -> Any:
    """A producer."""
    from kafka import KafkaProducer

    return KafkaProducer(**cluster.client_options(), linger_ms=linger_ms, acks="all")


def measure(cluster: Cluster, served: ServedModel, name: str, source: str, records: int) -> float:
    """The records/s of a runner."""
    group = f"{name}-{time.monotonic_ns()}"
    target = cluster.create_topic(group, partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    task = loops.Task(cluster.bootstrap, source, target, group, records, BATCH, served.bundle)
    if name in loops.LOOPS:
        python = str(OUTPUT_DIRECTORY / "confluent/bin/python") if name == "confluent" else sys.executable
        command = [python, "-m", "benchmarks.streams.loops", name, json.dumps(asdict(task))]
        subprocess.run(command, check=True, timeout=WAIT_SECONDS)
    else:
        with worker(cluster, task, delivery=name):
            wait_for(cluster, target, records)
    times = [record.timestamp for record in read(cluster, target)]
    if len(times) < records:
        raise SystemExit(f"{name}: of {records} records only {len(times)} have a result")
    return len(times) / (max(times) - min(times)) * 1000


@contextmanager
def worker(cluster: Cluster, task: loops.Task, *, delivery: str) -> Iterator[None]:
    """A worker with all that it does for a user: checks, metrics and the prediction log."""
    dead = cluster.create_topic(f"{task.target}-dead", partitions=1)
    pairs = [f"job.max_poll_records={task.batch}", "job.http_port=0", f"job.prediction_log={LOG / task.group}"]
    command = [sys.executable, "-m", "model_name", "kafka", "run", "--bundle", task.bundle, "--group", task.group]
    command += ["--bootstrap-servers", task.servers, "--input", task.source, "--output", task.target]
    command += ["--dead-letter", dead, "--delivery", delivery, *(part for pair in pairs for part in ("--set", pair))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        if code := process.wait(60):
            raise SystemExit(f"the worker ended with {code}")


def consumer_of(cluster: Cluster, topic: str) -> tuple[Any, list[Any]]:
    """A reader of committed records, and the partitions of a topic."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(**cluster.client_options(), isolation_level="read_committed", enable_auto_commit=False)
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    return consumer, partitions


def wait_for(cluster: Cluster, topic: str, records: int) -> None:
    """Until a topic has so many: results, and the marks of transactions, of which there are fewer."""
    consumer, partitions = consumer_of(cluster, topic)
    deadline, before = time.monotonic() + WAIT_SECONDS, -1
    while True:
        ends = sum(consumer.end_offsets(partitions).values())
        if ends >= records and ends == before:
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"{topic}: of {records} records only {ends} after {WAIT_SECONDS:.0f} s")
        before = ends
        time.sleep(1)
    consumer.close()


def read(cluster: Cluster, topic: str) -> list[Any]:
    """All records of a topic."""
    consumer, partitions = consumer_of(cluster, topic)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    found: list[Any] = []
    while any(consumer.position(one) < ends[one] for one in partitions):
        found += [record for records in consumer.poll(timeout_ms=500).values() for record in records]
    consumer.close()
    return found


def light(cluster: Cluster, served: ServedModel) -> Latency:
    """The latency while records come one by one."""
    source = cluster.create_topic("light", partitions=PARTITIONS)
    target = cluster.create_topic(
        "light-results", partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"}
    )
    records = FIRST_RECORDS + int(LIGHT_RATE * LIGHT_SECONDS)
    task = loops.Task(cluster.bootstrap, source, target, "light", 0, BATCH, served.bundle)
    with worker(cluster, task, delivery="exactly_once"):
        producer = producer_of(cluster, linger_ms=0)
        time.sleep(8)  # until it reads
        for row in islice(cycle(served.rows), records):
            producer.send(source, json.dumps(row).encode(), b"key").get(10)
            time.sleep(1 / LIGHT_RATE)
        wait_for(cluster, target, records)
    sent = {(one.partition, one.offset): one.timestamp for one in read(cluster, source)}
    taken = []
    for one in read(cluster, target):
        headers = dict(one.headers)
        place = int(headers["source-partition"]), int(headers["source-offset"])
        if place[1] >= FIRST_RECORDS:  # all have one key, hence one partition
            taken.append(one.timestamp - sent[place])
    cuts = statistics.quantiles(taken, n=100)
    return Latency(cuts[49], cuts[98], max(taken))


def judge(rates: dict[str, list[float]], latency: Latency | None) -> int:
    """Print, write and hold against the limits."""
    print_table(
        f"Records/s, batches of {BATCH}, one broker",
        [
            {"": name, "median": statistics.median(found), "least": min(found), "most": max(found)}
            for name, found in rates.items()
        ],
    )
    limits = {}
    for (ours, theirs), least in MIN_RATIOS.items():
        if ours in rates and theirs in rates:
            ratio = statistics.median(one / other for one, other in zip(rates[ours], rates[theirs], strict=True))
            limits[f"{ours}: {ratio:.2f} times {theirs} is at least {least:g}"] = ratio >= least
    if latency is not None:
        told = f"p50 {latency.p50:.0f} ms, p99 {latency.p99:.0f} ms, most {latency.most:.0f} ms"
        console.print(f"at {LIGHT_RATE:g} records/s: {told} from a record to its result")
    for sentence, holds in limits.items():
        console.print(f"[{'green' if holds else 'red'}]{'holds' if holds else 'FAILS'}[/] {sentence}")
    write_report("kafka", {"rates": rates, "latency": asdict(latency) if latency else None, "limits": limits})
    return 0 if all(limits.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
