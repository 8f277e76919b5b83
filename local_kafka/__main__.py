"""`python -m local_kafka up|down|status`: a real Kafka in the background of this machine, for first steps."""

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from model_name.errors import ConfigError
from model_name.io.entrypoint import run_main

if TYPE_CHECKING:
    from local_kafka.daemon import State

app = typer.Typer(
    name="python -m local_kafka",
    help="A real Kafka in the background of this machine. It needs Java 17; Maven fetches the rest, once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PORT = 9092
PLACES = ("INPUT", "OUTPUT", "DEAD-LETTER")  # what a worker takes topics for
BUNDLE = "build/bundles/flights/1"


@app.command()
def up(
    nodes: Annotated[int | None, typer.Option(help="1 by default, or 3 with every topic on all of them.")] = None,
    secured: Annotated[bool, typer.Option("--secured", help="Clients need a password or a certificate.")] = False,
    port: Annotated[
        int | None, typer.Option(help=f"Where clients come, {PORT} by default; of three nodes the first.")
    ] = None,
    topic: Annotated[list[str], typer.Option(metavar="NAME[:PARTITIONS]", help="To create; may be repeated.")] = [],  # noqa: B006
) -> None:
    """Start it, and return when it answers; where it is up, create further topics. Its data go with `down`."""
    from local_kafka.daemon import Wanted, current, extended, up
    from local_kafka.jars import LIBRARIES
    from local_kafka.locks import locked

    if nodes not in {None, 1, 3}:
        raise ConfigError(f"--nodes {nodes}: a cluster has 1 node or 3")
    topics = dict(map(partitioned, topic))
    with locked("command"):
        if found := current():
            require(found, nodes=nodes, secured=secured, port=port)
            typer.echo("Kafka is up already.")
            tell(extended(found, topics))
            return
        first = "" if LIBRARIES.exists() else "; for the first time Maven fetches it, 54 MB"
        typer.echo(f"Kafka starts{first} ...")
        tell(up(Wanted(nodes or 1, secured, port or PORT, topics)))


@app.command()
def down() -> None:
    """End it and remove its data; nothing happens if it is not up."""
    from local_kafka.daemon import current, down
    from local_kafka.locks import locked

    with locked("command"):
        if state := current():
            down(state)
    typer.echo("Kafka is down.")


@app.command()
def status() -> None:
    """Say whether it is up; exits with 1 if not."""
    from local_kafka.daemon import current

    if (state := current()) is None:
        typer.echo("Kafka is not up.\n  next: python -m local_kafka up")
        raise typer.Exit(1)
    tell(state)


@app.command(hidden=True)
def hold(wanted: str) -> None:
    """Be the process that holds it."""
    from local_kafka.daemon import Wanted, hold

    hold(Wanted(**json.loads(wanted)))


def require(state: "State", *, nodes: int | None, secured: bool, port: int | None) -> None:
    """Refuse to call something else up.

    Raises:
        ConfigError: What is up is not what is asked for.
    """
    is_secured = bool(state.environment)
    if nodes not in {None, len(state.ports)} or port not in {None, state.ports[0]} or (secured and not is_secured):
        raise ConfigError(
            f"another Kafka is up already, at {state.bootstrap}", hint="python -m local_kafka down, and up again"
        )


def partitioned(text: str) -> tuple[str, int]:
    """`NAME:PARTITIONS`, or one partition.

    Raises:
        ConfigError: It is neither.
    """
    found = re.fullmatch(r"([A-Za-z0-9._-]{1,249})(?::([1-9]\d{0,3}))?", text)
    if found is None:
        raise ConfigError(f"--topic {text}: not NAME or NAME:PARTITIONS", hint="e.g. --topic rows:4")
    return found[1], int(found[2] or 1)


def tell(state: "State") -> None:
    """Print how to get in, and what to do next."""
    from local_kafka.daemon import FOLDER, silent

    typer.echo(f"  bootstrap servers  {state.bootstrap}")
    if gone := silent(state):
        typer.echo(f"  does not answer    {', '.join(gone)}")
    if state.topics:
        typer.echo(f"  topics             {', '.join(state.topics)}")
    if state.environment:
        typer.echo(f"  password over TLS  source {state.environment}")
        typer.echo(f"  with a certificate {state.bootstrap_mtls}, PEM files in {FOLDER}/security")
    names = [*state.topics[:3], *PLACES[len(state.topics) :]]
    topics = " ".join(f"--{place.lower()} {name}" for place, name in zip(PLACES, names, strict=True))
    typer.echo(
        f"  next: model-name kafka run --bundle {BUNDLE} --bootstrap-servers {state.bootstrap} {topics} --group first\n"
        "  end it: python -m local_kafka down"
    )


def main() -> int:
    """Run the command line and return its exit code."""
    return run_main(app)


if __name__ == "__main__":
    sys.exit(main())
