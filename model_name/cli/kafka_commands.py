"""`model-name kafka ...`. Everything heavy is imported by the command that needs it."""

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
    help="Predict from one topic of Kafka to another, exactly once, and look after it.",
    no_args_is_help=True,
)

Input = Annotated[str, typer.Option("--input", metavar="TOPIC", help="Of the records.")]
Output = Annotated[str, typer.Option(metavar="TOPIC", help="Of the results.")]
DeadLetter = Annotated[str, typer.Option(metavar="TOPIC", help="Of the records without a result.")]
Group = Annotated[str, typer.Option(metavar="NAME", help="The workers that share the input.")]
Servers = Annotated[str, typer.Option("--bootstrap-servers", metavar="HOST:PORT", help="Several separated by commas.")]


@app.command()
def run(
    confs: Annotated[
        list[str], typer.Argument(metavar="[CONF...]", help="Config files of KIND KafkaInferenceJob; options win.")
    ] = [],  # noqa: B006
    bundle: Annotated[str, typer.Option(help="The bundle's folder, or any fsspec URL of it.")] = "",
    bootstrap_servers: Servers = "",
    input_: Input = "",
    output: Output = "",
    dead_letter: DeadLetter = "",
    group: Group = "",
    delivery: Annotated[str, typer.Option(help="exactly_once; at_least_once for brokers without transactions.")] = "",
    http_port: Annotated[str, typer.Option(help="Of probes and metrics, 8082 by default; 0 for none.")] = "",
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Answer the records of a topic until SIGTERM; `--set job.KEY=VALUE` sets what has no option of its own."""
    given = {
        "bundle": bundle,
        "bootstrap_servers": bootstrap_servers,
        "input": input_,
        "output": output,
        "dead_letter": dead_letter,
        "group": group,
        "delivery": delivery,
        "http_port": http_port,
    }
    pairs = [*sets, *(f"job.{name}={value}" for name, value in given.items() if value)]
    if confs:
        from model_name.kafka.worker.config_files import KIND
        from model_name.runner import run_job
        from model_name.settings import load_job

        job = load_job(confs, pairs)
        if job.KIND != KIND:
            raise ConfigError(f"{confs[-1]}: is a {job.KIND}", hint=f"`model-name run` runs it; here belongs a {KIND}")
        run_job(job, as_json=as_json)
        return
    from model_name.io.console import print_result
    from model_name.io.services import LoggerService
    from model_name.kafka.worker.config_files import read_settings
    from model_name.kafka.worker.startup import run_worker

    settings = read_settings(pairs)
    LoggerService().start()
    print_result("The worker has stopped", asdict(run_worker(settings)), as_json=as_json)


@app.command()
def verify_delivery(
    bootstrap_servers: Servers,
    input_: Input,
    output: Output,
    dead_letter: DeadLetter,
    group: Annotated[
        str, typer.Option(metavar="NAME", help="What the workers have not committed is waiting; else it is lost.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Hold the topics against each other: one answer a record, in order; exits with 4 where that is not so."""
    from model_name.io.console import print_result
    from model_name.io.progress import progress
    from model_name.io.services import LoggerService
    from model_name.kafka.client import KafkaClientFactory
    from model_name.kafka.tools.verify import verify_delivery as verify_topics

    LoggerService().start()
    with progress("verify") as report:
        verdict = verify_topics(
            KafkaClientFactory(bootstrap_servers),
            input_=input_,
            output=output,
            dead_letter=dead_letter,
            group=group or None,
            report=report,
        )
    found = verdict.model_dump(mode="json")
    if not as_json:
        found = {name: [of["count"], *of["examples"]] if isinstance(of, dict) else of for name, of in found.items()}
    print_result(f"{input_} in {output}", found | {"is_clean": verdict.is_clean}, as_json=as_json)
    if not verdict.is_clean:
        raise DataError(f"{input_}: {verdict.words}", hint="the examples say where they lie: model-name kafka consume")


@app.command()
def replay_dead_letters(
    bootstrap_servers: Servers,
    dead_letter: DeadLetter,
    group: Annotated[str, typer.Option(metavar="NAME", help="The workers'; NAME-replay notes what was sent.")],
    to: Annotated[str, typer.Option(metavar="TOPIC", help="Instead of the topics they came from.")] = "",
    kind: Annotated[str, typer.Option(help="Only of this kind of error, e.g. DataError.")] = "",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Only where the reason contains it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to be predicted, each once; what is passed over can be replayed later."""
    from model_name.io.console import print_result
    from model_name.io.progress import progress
    from model_name.io.services import LoggerService
    from model_name.io.signals import stop_on_signal
    from model_name.kafka.client import KafkaClientFactory
    from model_name.kafka.tools.replay import DeadLetterFilter
    from model_name.kafka.tools.replay import replay_dead_letters as replay_letters

    LoggerService().start()
    with stop_on_signal() as stop, progress("replay") as report:
        replayed = replay_letters(
            KafkaClientFactory(bootstrap_servers),
            dead_letter=dead_letter,
            group=group,
            to=to,
            only=DeadLetterFilter(kind=kind, reason=reason),
            is_dry=dry_run,
            stop=stop,
            report=report,
        )
    found = replayed.model_dump(mode="json")
    if dry_run and not as_json:
        found = {"would_be_sent": found.pop("sent"), **found}
    print_result(f"{dead_letter}, {'a dry run' if dry_run else 'replayed'}", found, as_json=as_json)
    if stop.exit_code:
        raise typer.Exit(stop.exit_code)


@app.command()
def produce_rows(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A Parquet or CSV file, or any fsspec URL of one.")],
    bootstrap_servers: Servers,
    topic: Annotated[str, typer.Option(metavar="TOPIC", help="Where to.")],
    rate: Annotated[float, typer.Option(min=0, help="Records per second; 0 for as many as it can.")] = 0,
    rows: Annotated[int, typer.Option(min=0, help="Only the first; 0 for all.")] = 0,
    key: Annotated[str, typer.Option(metavar="COLUMN", help="Its value is the record's key, too.")] = "",
    bundle: Annotated[str, typer.Option(metavar="DIR", help="Send what this bundle takes, histories included.")] = "",
    drop: Annotated[
        list[str], typer.Option(metavar="COLUMN", help="Not sent, such as the target; may be repeated.")
    ] = [],  # noqa: B006
    event: Annotated[bool, typer.Option("--event", help="As CloudEvents in binary mode.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send the rows of a table, each as a JSON object."""
    from model_name.io.console import print_result
    from model_name.io.datasets import reader_for
    from model_name.io.progress import progress
    from model_name.io.services import LoggerService
    from model_name.io.signals import stop_on_signal
    from model_name.io.storage import download_bundle
    from model_name.kafka.client import KafkaClientFactory
    from model_name.kafka.tools.produce import produce_rows as produce_rows
    from model_name.kafka.tools.produce import to_request_table
    from model_name.serving.bundle import read_manifest

    LoggerService().start()
    connection, reader = KafkaClientFactory(bootstrap_servers), reader_for(table, limit=rows or None)
    with stop_on_signal() as stop, progress("produce") as report, TemporaryDirectory() as folder:
        if bundle:
            schema = read_manifest(Path(download_bundle(bundle))).table
            reader = to_request_table(reader, schema, Path(folder) / f"{PurePath(table).stem}.parquet")
        produced = produce_rows(
            connection,
            reader,
            topic=topic,
            key=key,
            drop={*drop},
            rate=rate or None,
            as_events=event,
            stop=stop,
            report=report,
        )
    print_result(f"{table} in {topic}", produced.model_dump(mode="json"), as_json=as_json)
    if stop.exit_code:
        raise typer.Exit(stop.exit_code)


@app.command()
def consume_records(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Of the records.")],
    bootstrap_servers: Servers,
    most: Annotated[int, typer.Option("--max", min=0, help="How many at most; 0 for all.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more, until Ctrl-C.")] = False,
    start: Annotated[Literal["earliest", "latest"], typer.Option("--from", help="Where to begin.")] = "earliest",
    out: Annotated[
        str, typer.Option(metavar="FILE", help="Lines in a .jsonl, or the predictions as a table: .csv or .parquet.")
    ] = "",
    headers: Annotated[bool, typer.Option("--headers", help="With the headers of the records.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the records of a topic, a line of JSON each, or write them to a file."""
    from model_name.io.console import print_lines, print_result
    from model_name.io.progress import progress
    from model_name.io.services import LoggerService
    from model_name.io.signals import stop_on_signal
    from model_name.kafka.client import KafkaClientFactory
    from model_name.kafka.tools.consume import check_extension, record_to_json_line, write
    from model_name.kafka.tools.consume import consume_records as consume_records

    LoggerService().start()
    if out:
        check_extension(out)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signal()) if follow else None
        records = consume_records(
            KafkaClientFactory(bootstrap_servers), topic, start=start, most=most or None, stop=stop
        )
        if not out:
            print_lines(record_to_json_line(record, with_headers=headers) for record in records)
            return
        report = stack.enter_context(progress("consume"))
        consumed = write(records, out, with_headers=headers, report=report)
    print_result(f"{topic} in {out}", consumed.model_dump(mode="json"), as_json=as_json)
    if consumed.others and not consumed.rows:
        raise DataError(
            f"{topic}: none of its {consumed.others:,} records holds predictions, so that {out} has no row",
            hint="write lines instead, --out FILE.jsonl",
        )
