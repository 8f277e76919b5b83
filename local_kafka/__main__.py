"""Run Kafka in the background of this machine, for first steps: `python -m local_kafka up|down|status`."""

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from model_name.errors import ConfigError
from model_name.io.entrypoint import run_main

if TYPE_CHECKING:
    from local_kafka.daemon import ClusterState

app = typer.Typer(
    name="python -m local_kafka",
    help="Run Kafka in the background of this machine. It needs Java 17; Maven downloads Kafka once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PORT = 9092
TOPIC_ROLES = ("INPUT", "OUTPUT", "DEAD-LETTER")  # topics that a worker needs
BUNDLE = "build/bundles/flights/1"


@app.command()
def up(
    nodes: Annotated[
        int | None, typer.Option(help="Number of nodes: 1 (default), or 3 with every topic on all of them.")
    ] = None,
    secured: Annotated[bool, typer.Option("--secured", help="Require a password or a certificate.")] = False,
    port: Annotated[
        int | None, typer.Option(help=f"Client port, {PORT} by default; with three nodes that of the first.")
    ] = None,
    topic: Annotated[
        list[str], typer.Option(metavar="NAME[:PARTITIONS]", help="Topic to create; may be repeated.")
    ] = [],  # noqa: B006
) -> None:
    """Start Kafka and wait until it responds; if it is up, create missing topics. `down` deletes its data."""
    from local_kafka.daemon import ClusterSpec, add_topics, current_state, start_cluster
    from local_kafka.jars import LIBRARIES
    from local_kafka.locks import file_lock

    if nodes not in {None, 1, 3}:
        raise ConfigError(f"--nodes {nodes}: a cluster has 1 node or 3")
    topics = dict(map(parse_topic, topic))
    with file_lock("command"):
        if state := current_state():
            check_options(state, nodes=nodes, secured=secured, port=port)
            typer.echo("Kafka is up already.")
            print_state(add_topics(state, topics))
            return
        download = "" if LIBRARIES.exists() else "; Maven downloads it first, 54 MB"
        typer.echo(f"Kafka starts{download} ...")
        print_state(start_cluster(ClusterSpec(nodes or 1, secured, port or PORT, topics)))


@app.command()
def down() -> None:
    """Stop Kafka and delete its data, if it is up."""
    from local_kafka.daemon import current_state, stop_cluster
    from local_kafka.locks import file_lock

    with file_lock("command"):
        if state := current_state():
            stop_cluster(state)
    typer.echo("Kafka is down.")


@app.command()
def status() -> None:
    """Print whether Kafka is up; exits with 1 if it is not."""
    from local_kafka.daemon import current_state

    if (state := current_state()) is None:
        typer.echo("Kafka is not up.\n  next: python -m local_kafka up")
        raise typer.Exit(1)
    print_state(state)


@app.command(hidden=True)
def hold(spec: str) -> None:
    """Run the daemon."""
    from local_kafka.daemon import ClusterSpec, run_daemon

    run_daemon(ClusterSpec(**json.loads(spec)))


def check_options(state: "ClusterState", *, nodes: int | None, secured: bool, port: int | None) -> None:
    """Check that the running cluster has the requested options.

    Raises:
        ConfigError: The running cluster has other options.
    """
    is_secured = bool(state.environment)
    if nodes not in {None, len(state.ports)} or port not in {None, state.ports[0]} or (secured and not is_secured):
        raise ConfigError(
            f"another Kafka is up already, at {state.bootstrap}", hint="python -m local_kafka down, and up again"
        )


def parse_topic(text: str) -> tuple[str, int]:
    """Parse `NAME` or `NAME:PARTITIONS`; without a number there is one partition.

    Raises:
        ConfigError: The text has another form.
    """
    match = re.fullmatch(r"([A-Za-z0-9._-]{1,249})(?::([1-9]\d{0,3}))?", text)
    if match is None:
        raise ConfigError(f"--topic {text}: not NAME or NAME:PARTITIONS", hint="e.g. --topic rows:4")
    return match[1], int(match[2] or 1)


def print_state(state: "ClusterState") -> None:
    """Print how to connect, and the next command."""
    from local_kafka.daemon import STATE_FOLDER, unreachable_addresses

    typer.echo(f"  bootstrap servers  {state.bootstrap}")
    if unreachable := unreachable_addresses(state):
        typer.echo(f"  does not answer    {', '.join(unreachable)}")
    if state.topics:
        typer.echo(f"  topics             {', '.join(state.topics)}")
    if state.environment:
        typer.echo(f"  password over TLS  source {state.environment}")
        typer.echo(f"  with a certificate {state.bootstrap_mtls}, PEM files in {STATE_FOLDER}/security")
    names = [*state.topics[:3], *TOPIC_ROLES[len(state.topics) :]]
    topics = " ".join(f"--{role.lower()} {name}" for role, name in zip(TOPIC_ROLES, names, strict=True))
    typer.echo(
        f"  next: model-name kafka run --bundle {BUNDLE} --bootstrap-servers {state.bootstrap} {topics} --group first\n"
        "  end it: python -m local_kafka down"
    )


def main() -> int:
    """Run the command line and return its exit code."""
    return run_main(app)


if __name__ == "__main__":
    sys.exit(main())
