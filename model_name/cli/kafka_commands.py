"""Define the commands `model-name kafka ...`. Each command imports what it needs when it runs."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from model_name.cli.options import AsJson, Sets
from model_name.errors import ConfigError, DataError

app = typer.Typer(
    name="kafka",
    help="Predict from one Kafka topic to another, exactly once, and inspect and repair the topics.",
    no_args_is_help=True,
)

Input = Annotated[str, typer.Option("--input", metavar="TOPIC", help="Topic of the records.")]
Output = Annotated[str, typer.Option(metavar="TOPIC", help="Topic of the results.")]
DeadLetter = Annotated[str, typer.Option(metavar="TOPIC", help="Topic of the records without a result.")]
Group = Annotated[str, typer.Option(metavar="NAME", help="Consumer group of the workers.")]
Servers = Annotated[
    str, typer.Option("--bootstrap-servers", metavar="HOST:PORT", help="Addresses of brokers, separated by commas.")
]


@app.command()
def run(
    confs: Annotated[
        list[str],
        typer.Argument(metavar="[CONF...]", help="Config files of KIND KafkaInferenceJob; options override them."),
    ] = [],  # noqa: B006
    bundle: Annotated[str, typer.Option(help="Folder of the bundle, or its fsspec URL.")] = "",
    bootstrap_servers: Servers = "",
    input_: Input = "",
    output: Output = "",
    dead_letter: DeadLetter = "",
    group: Group = "",
    delivery: Annotated[str, typer.Option(help="exactly_once; at_least_once for brokers without transactions.")] = "",
    http_port: Annotated[str, typer.Option(help="Port of the probes and metrics, 8082 by default; 0 for none.")] = "",
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Predict the records of a topic until SIGTERM; `--set job.KEY=VALUE` sets keys without an option of their own."""
    options = {
        "bundle": bundle,
        "bootstrap_servers": bootstrap_servers,
        "input": input_,
        "output": output,
        "dead_letter": dead_letter,
        "group": group,
        "delivery": delivery,
        "http_port": http_port,
    }
    pairs = [*sets, *(f"job.{name}={value}" for name, value in options.items() if value)]
    if confs:
        from model_name.kafka.worker.worker_settings import JOB_KIND
        from model_name.runner import run_job
        from model_name.settings import load_job

        job = load_job(confs, pairs)
        if job.KIND != JOB_KIND:
            hint = f"`model-name run` runs it; here belongs a {JOB_KIND}"
            raise ConfigError(f"{confs[-1]}: is a {job.KIND}", hint=hint)
        run_job(job, as_json=as_json)
        return
    from model_name.io.console import print_result
    from model_name.io.services import LoggerService
    from model_name.kafka.worker.worker_process import run_worker
    from model_name.kafka.worker.worker_settings import load_settings

    settings = load_settings(pairs)
    LoggerService().start()
    print_result("The worker has stopped", asdict(run_worker(settings)), as_json=as_json)


@app.command()
def verify(
    bootstrap_servers: Servers,
    input_: Input,
    output: Output,
    dead_letter: DeadLetter,
    group: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Consumer group of the workers: records that it has not committed count as waiting, not as lost.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Verify that each record has one result or dead letter, in order; exits with 4 otherwise."""
    from model_name.io.console import print_result
    from model_name.io.progress import progress
    from model_name.io.services import LoggerService
    from model_name.kafka.client import KafkaClientFactory
    from model_name.kafka.tools.verify import verify_delivery

    LoggerService().start()
    with progress("verify") as report:
        verification = verify_delivery(
            KafkaClientFactory(bootstrap_servers),
            input_=input_,
            output=output,
            dead_letter=dead_letter,
            group=group or None,
            report=report,
        )
    findings = verification.model_dump(mode="json")
    if not as_json:
        findings = {
            name: [value["count"], *value["examples"]] if isinstance(value, dict) else value
            for name, value in findings.items()
        }
    print_result(f"{input_} in {output}", findings | {"is_clean": verification.is_clean}, as_json=as_json)
    if not verification.is_clean:
        raise DataError(
            f"{input_}: {verification.summary}", hint="the examples say where they lie: model-name kafka consume"
        )


@app.command()
def replay(
    bootstrap_servers: Servers,
    dead_letter: DeadLetter,
    group: Annotated[
        str,
        typer.Option(metavar="NAME", help="Consumer group of the workers; the group NAME-replay commits the progress."),
    ],
    to: Annotated[str, typer.Option(metavar="TOPIC", help="Topic to send to, instead of the original ones.")] = "",
    kind: Annotated[str, typer.Option(help="Only dead letters with this kind of error, e.g. DataError.")] = "",
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Only dead letters whose reason contains this text.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the dead letters, but send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their topics, each once; those that the filters exclude can be replayed later."""
    from model_name.io.console import print_result
    from model_name.io.progress import progress
    from model_name.io.services import LoggerService
    from model_name.io.signals import stop_on_signal
    from model_name.kafka.client import KafkaClientFactory
    from model_name.kafka.tools.replay import DeadLetterFilter, replay_dead_letters

    LoggerService().start()
    with stop_on_signal() as stop, progress("replay") as report:
        result = replay_dead_letters(
            KafkaClientFactory(bootstrap_servers),
            dead_letter=dead_letter,
            group=group,
            to=to,
            dead_letter_filter=DeadLetterFilter(kind=kind, reason=reason),
            is_dry=dry_run,
            stop=stop,
            report=report,
        )
    counts = result.model_dump(mode="json")
    if dry_run and not as_json:
        counts = {"would_be_sent": counts.pop("sent"), **counts}
    print_result(f"{dead_letter}, {'a dry run' if dry_run else 'replayed'}", counts, as_json=as_json)
    if stop.exit_code:
        raise typer.Exit(stop.exit_code)


@app.command()
def produce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Parquet or CSV file, or its fsspec URL.")],
    bootstrap_servers: Servers,
    topic: Annotated[str, typer.Option(metavar="TOPIC", help="Topic to write to.")],
    rate: Annotated[float, typer.Option(min=0, help="Records per second; 0 for no limit.")] = 0,
    rows: Annotated[int, typer.Option(min=0, help="Number of rows to send; 0 for all.")] = 0,
    key: Annotated[str, typer.Option(metavar="COLUMN", help="Column whose value is also the key of the record.")] = "",
    bundle: Annotated[
        str,
        typer.Option(metavar="DIR", help="Send the inputs of the model of this bundle, including histories."),
    ] = "",
    drop: Annotated[
        list[str], typer.Option(metavar="COLUMN", help="Column to leave out, such as the target; may be repeated.")
    ] = [],  # noqa: B006
    event: Annotated[bool, typer.Option("--event", help="Send CloudEvents in binary mode.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send each row of a table as a JSON object."""
    from model_name.io.console import print_result
    from model_name.io.datasets import reader_for
    from model_name.io.progress import progress
    from model_name.io.services import LoggerService
    from model_name.io.signals import stop_on_signal
    from model_name.io.storage import download_bundle
    from model_name.kafka.client import KafkaClientFactory
    from model_name.kafka.tools.produce import produce_rows, to_request_table
    from model_name.serving.bundle import read_manifest
    from model_name.serving.bundle_signature import make_verifier

    LoggerService().start()
    clients, reader = KafkaClientFactory(bootstrap_servers), reader_for(table, limit=rows or None)
    with stop_on_signal() as stop, progress("produce") as report, TemporaryDirectory() as folder:
        if bundle:
            schema = read_manifest(Path(download_bundle(bundle)), make_verifier()).table
            reader = to_request_table(reader, schema, Path(folder) / f"{PurePath(table).stem}.parquet")
        result = produce_rows(
            clients,
            reader,
            topic=topic,
            key=key,
            drop={*drop},
            rate=rate or None,
            as_events=event,
            stop=stop,
            report=report,
        )
    print_result(f"{table} in {topic}", result.model_dump(mode="json"), as_json=as_json)
    if stop.exit_code:
        raise typer.Exit(stop.exit_code)


@app.command()
def consume(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Topic to read.")],
    bootstrap_servers: Servers,
    max_records: Annotated[int, typer.Option("--max", min=0, help="Number of records; 0 for all.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more records until Ctrl-C.")] = False,
    start: Annotated[
        Literal["earliest", "latest"], typer.Option("--from", help="Position at which to start.")
    ] = "earliest",
    out: Annotated[
        str, typer.Option(metavar="FILE", help="File of JSON lines (.jsonl) or table of predictions (.csv, .parquet).")
    ] = "",
    headers: Annotated[bool, typer.Option("--headers", help="Include the headers of the records.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the records of a topic as JSON lines, or write them to a file."""
    from model_name.io.console import print_lines, print_result
    from model_name.io.progress import progress
    from model_name.io.services import LoggerService
    from model_name.io.signals import stop_on_signal
    from model_name.kafka.client import KafkaClientFactory
    from model_name.kafka.tools.consume import (
        check_extension,
        consume_records,
        record_to_json_line,
        write_records,
    )

    LoggerService().start()
    if out:
        check_extension(out)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signal()) if follow else None
        records = consume_records(
            KafkaClientFactory(bootstrap_servers), topic, start=start, max_records=max_records or None, stop=stop
        )
        if not out:
            print_lines(record_to_json_line(record, with_headers=headers) for record in records)
            return
        report = stack.enter_context(progress("consume"))
        result = write_records(records, out, with_headers=headers, report=report)
    print_result(f"{topic} in {out}", result.model_dump(mode="json"), as_json=as_json)
    if result.others and not result.rows:
        raise DataError(
            f"{topic}: none of its {result.others:,} records holds predictions, so that {out} has no row",
            hint="write lines instead, --out FILE.jsonl",
        )
