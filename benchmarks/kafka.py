"""Compare the worker with bare loops on the same broker: records/s in alternating runs, and latency at a low rate.

    python -m benchmarks.kafka [--rounds 3] [--records 60000] [--only exactly_once,bare]

The output topic has the timestamps of the broker; the rate is measured from its first record to its last one, and all
results must be there. The bare loops copy records from the same input to the same kind of output, with the same batch
size and delivery, but do not parse, validate or predict. The loop `one` processes a single record per transaction.
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
from operator import truediv
from pathlib import Path
from typing import Any

from benchmarks.harness import OUTPUT_DIRECTORY, conclude, console, print_table
from benchmarks.servers.served_model import ServedModel, load_served_model
from benchmarks.streams import loops
from benchmarks.virtualenvs import create_overlay
from local_kafka.cluster import Cluster
from local_kafka.jars import unavailable_reason

PARTITIONS = 3
BATCH = 500
RECORDS = 60_000
ONE_RECORDS = 500  # for the loop with one record per transaction
LOW_RATE = 50.0  # records per second
LOW_RATE_SECONDS = 20.0
WARM_UP_RECORDS = 100  # excluded from the latency
TIMEOUT_SECONDS = 300.0
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
    """Time from a record to its result, in milliseconds."""

    p50: float
    p99: float
    most: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return 1 if a limit is missed."""
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
    with Cluster() as cluster:  # with both compilers of Java
        source = create_input(cluster, served, options.records)
        measure_rate(cluster, served, "bare", source, options.records)  # warms up the broker
        for number in range(options.rounds):
            for name in chosen:
                records = min(ONE_RECORDS, options.records) if name == "one" else options.records
                rates[name].append(measure_rate(cluster, served, name, source, records))
                console.print(f"round {number + 1}: {name}: {rates[name][-1]:,.0f} records/s")
        latency = measure_latency(cluster, served) if "exactly_once" in chosen else None
    return report(rates, latency)


def create_input(cluster: Cluster, served: ServedModel, records: int) -> str:
    """Create a topic with `records` rows as records."""
    topic = cluster.create_topic("rows", partitions=PARTITIONS)
    producer = create_producer(cluster)
    for number, row in enumerate(islice(cycle(served.rows), records)):
        producer.send(topic, json.dumps(row).encode(), b"key-%d" % (number % 97))
    producer.flush()
    producer.close()
    return topic


def create_producer(cluster: Cluster, *, linger_ms: int = 20) -> Any:
    """Create a producer whose records are acknowledged by all in-sync replicas."""
    from kafka import KafkaProducer

    return KafkaProducer(**cluster.client_options(), linger_ms=linger_ms, acks="all")


def measure_rate(cluster: Cluster, served: ServedModel, name: str, source: str, records: int) -> float:
    """Measure the records/s of the worker or of a loop, from the first to the last record of its output."""
    group = f"{name}-{time.monotonic_ns()}"
    target = cluster.create_topic(group, partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    task = loops.Task(cluster.bootstrap, source, target, group, records, BATCH, served.bundle)
    if name in loops.LOOPS:
        python = str(OUTPUT_DIRECTORY / "confluent/bin/python") if name == "confluent" else sys.executable
        command = [python, "-m", "benchmarks.streams.loops", name, json.dumps(asdict(task))]
        subprocess.run(command, check=True, timeout=TIMEOUT_SECONDS)
    else:
        with running_worker(cluster, task, delivery=name):
            wait_for_records(cluster, target, records)
    times = [record.timestamp for record in read_records(cluster, target)]
    if len(times) < records:
        raise SystemExit(f"{name}: of {records} records only {len(times)} have a result")
    return len(times) / (max(times) - min(times)) * 1000


@contextmanager
def running_worker(cluster: Cluster, task: loops.Task, *, delivery: str) -> Iterator[None]:
    """Run a worker as users do: with validation, metrics and the prediction log."""
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


def create_consumer(cluster: Cluster, topic: str) -> tuple[Any, list[Any]]:
    """Create a consumer of committed records that is assigned all partitions of a topic."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(**cluster.client_options(), isolation_level="read_committed", enable_auto_commit=False)
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    return consumer, partitions


def wait_for_records(cluster: Cluster, topic: str, records: int) -> None:
    """Wait until a topic has so many records, including the control records of transactions, and grows no more."""
    consumer, partitions = create_consumer(cluster, topic)
    deadline, previous = time.monotonic() + TIMEOUT_SECONDS, -1
    while True:
        ends = sum(consumer.end_offsets(partitions).values())
        if ends >= records and ends == previous:
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"{topic}: of {records} records only {ends} after {TIMEOUT_SECONDS:.0f} s")
        previous = ends
        time.sleep(1)
    consumer.close()


def read_records(cluster: Cluster, topic: str) -> list[Any]:
    """Read all records of a topic."""
    consumer, partitions = create_consumer(cluster, topic)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    found: list[Any] = []
    while any(consumer.position(one) < ends[one] for one in partitions):
        found += [record for records in consumer.poll(timeout_ms=500).values() for record in records]
    consumer.close()
    return found


def measure_latency(cluster: Cluster, served: ServedModel) -> Latency:
    """Measure the latency of a worker that receives `LOW_RATE` records per second."""
    source = cluster.create_topic("light", partitions=PARTITIONS)
    target = cluster.create_topic(
        "light-results", partitions=PARTITIONS, config={"message.timestamp.type": "LogAppendTime"}
    )
    records = WARM_UP_RECORDS + int(LOW_RATE * LOW_RATE_SECONDS)
    task = loops.Task(cluster.bootstrap, source, target, "light", 0, BATCH, served.bundle)
    with running_worker(cluster, task, delivery="exactly_once"):
        producer = create_producer(cluster, linger_ms=0)
        time.sleep(8)  # until it has joined the group
        for row in islice(cycle(served.rows), records):
            producer.send(source, json.dumps(row).encode(), b"key").get(10)
            time.sleep(1 / LOW_RATE)
        wait_for_records(cluster, target, records)
    sent = {(one.partition, one.offset): one.timestamp for one in read_records(cluster, source)}
    latencies = []
    for one in read_records(cluster, target):
        headers = dict(one.headers)
        position = int(headers["source-partition"]), int(headers["source-offset"])
        if position[1] >= WARM_UP_RECORDS:  # all have one key, hence one partition
            latencies.append(one.timestamp - sent[position])
    quantiles = statistics.quantiles(latencies, n=100)
    return Latency(quantiles[49], quantiles[98], max(latencies))


def report(rates: dict[str, list[float]], latency: Latency | None) -> int:
    """Print the measurements, check them against the limits and write the report."""
    print_table(
        f"Records/s, batches of {BATCH}, one broker",
        [
            {"": name, "median": statistics.median(values), "least": min(values), "most": max(values)}
            for name, values in rates.items()
        ],
    )
    limits = {}
    for (ours, theirs), min_ratio in MIN_RATIOS.items():
        if ours in rates and theirs in rates:
            ratio = statistics.median(map(truediv, rates[ours], rates[theirs]))
            limits[f"{ours}: {ratio:.2f} times {theirs} is at least {min_ratio:g}"] = ratio >= min_ratio
    if latency is not None:
        percentiles = f"p50 {latency.p50:.0f} ms, p99 {latency.p99:.0f} ms, most {latency.most:.0f} ms"
        console.print(f"at {LOW_RATE:g} records/s: {percentiles} from a record to its result")
    return conclude("kafka", {"rates": rates, "latency": asdict(latency) if latency else None}, limits)


if __name__ == "__main__":
    sys.exit(main())
