"""Root of the command line `model-name`. Heavy packages are imported inside the command that needs them."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from model_name import __version__
from model_name.cli import audit_commands, bundle_commands, kafka_commands, model_commands
from model_name.cli.options import DEFAULT_MLFLOW, AsJson, Budget, Name, Ref, Sets, Tracking, with_budget
from model_name.cli.registry_access import open_registry
from model_name.errors import ConfigError
from model_name.io.entrypoint import configure_process, run_main

app = typer.Typer(
    name="model-name",
    help="Turn a table and a config into a production ML service.\n\n"
    "New here? Three commands: [bold]model-name init my.parquet --target y --out confs/my[/], then "
    "[bold]python -m pipelines run training --confs confs/my[/], then [bold]model-name serve champion[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(model_commands.app)
app.add_typer(bundle_commands.app)
app.add_typer(audit_commands.app)
app.add_typer(kafka_commands.app)


def print_version(is_requested: bool) -> None:
    """Print the version of the package and exit."""
    if is_requested:
        typer.echo(f"model-name {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Declare the options of the root command."""


@app.command()
def init(
    table: Annotated[str, typer.Argument(help="Parquet or CSV file, or its fsspec URL.")],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    time: Annotated[
        str, typer.Option(help="Column that orders the rows in time; detected if there is only one candidate.")
    ] = "",
    key: Annotated[list[str], typer.Option(help="Column of the row key; may be repeated.")] = [],  # noqa: B006
    country: Annotated[str, typer.Option(help="Country of the public holidays, e.g. US or DE-BY.")] = "",
    name: Annotated[str, typer.Option(help="Name of the model; by default the name of the file.")] = "",
    out: Annotated[str, typer.Option(help="Folder to write; by default confs/NAME.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an existing folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Infer the schema of a table and write a commented config folder that runs unchanged."""
    from model_name.core.profiling.schema_inference import infer_schema
    from model_name.io.console import print_result
    from model_name.io.datasets import reader_for
    from model_name.io.scaffolding import project_name, write_project

    name = name or project_name(table)
    frame = reader_for(table).read()
    inferred = infer_schema(frame, name=name, target=target, time=time or None, key=tuple(key), country=country)
    folder = Path(out or f"confs/{name}")
    files = write_project(folder, inferred, table, overwrite=overwrite)
    document = {
        "folder": str(folder),
        "files": [str(file) for file in files],
        "findings": list(inferred.findings),
        "next": f"python -m pipelines run training --confs {folder}",
        "then": f"model-name serve champion --name {name}",
    }
    print_result(
        f"{name}: {len(inferred.schema.columns)} columns, {inferred.schema.target.task}", document, as_json=as_json
    )


@app.command()
def run(
    confs: Annotated[list[str], typer.Argument(metavar="CONF...", help="Config files; later files take precedence.")],
    budget: Budget = "",
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Run one job. The `project.yaml` in the folder of a file is merged before the file."""
    from model_name.runner import run_job
    from model_name.settings import load_job

    run_job(load_job(confs, with_budget(sets, budget)), as_json=as_json)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="[KIND]", help="KIND of a job or of a model, or TableSchema.")] = "",
) -> None:
    """Print the JSON schema of a KIND; without KIND, that of a config file."""
    from model_name.io.console import print_json
    from model_name.settings import json_schema

    print_json(json_schema(kind))


@app.command()
def promote(
    ref: Ref,
    actor: Annotated[str, typer.Option(help="Person or system that promotes.")],
    reason: Annotated[str, typer.Option(help="Reason, for the audit trail.")],
    force: Annotated[bool, typer.Option("--force", help="Promote even if the gate refuses.")] = False,
    confs: Annotated[str, typer.Option(help="Config folder of the model.")] = "",
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Put a version through the gate; exit with 3 if the gate refuses it."""
    from model_name.runner import run_job
    from model_name.settings import build_job, load_step_config

    if not confs:
        raise ConfigError("--confs is missing", hint="name the config folder, e.g. --confs confs/flights")
    raw, files = load_step_config(confs, "promotion", sets)
    job = raw["job"] | {"KIND": "PromotionJob", "ref": ref, "actor": actor, "reason": reason, "force": force}
    run_job(build_job({"job": job}, files=files), as_json=as_json)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def serve(
    context: typer.Context,
    ref: Annotated[
        str, typer.Argument(metavar="[REF]", help="An alias, a version number or a semantic version.")
    ] = "champion",
    bundle: Annotated[str, typer.Option(help="Folder or URL of a bundle, instead of REF.")] = "",
    http_port: Annotated[int, typer.Option(help="Port of REST (V1 and V2).")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC; an explainer has none.")] = 8081,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all interfaces.")] = "127.0.0.1",
    explainer: Annotated[bool, typer.Option("--explainer", help="Serve explanations instead of predictions.")] = False,
    name: Name = "",
    mlflow: Tracking = DEFAULT_MLFLOW,
) -> None:
    """Serve a version over REST and gRPC; further options: `python -m model_name.serving --help`."""
    from model_name.io.storage import download_bundle

    server_options = list(context.args)
    if ref.startswith("-"):  # without REF, Typer mistakes the first option of the server for it
        ref, server_options = "champion", [ref, *server_options]
    if explainer and bundle:
        raise ConfigError("--explainer: a bundle has no model to explain", hint="name a version instead of --bundle")
    if explainer:
        server = ["model_name.explainer", "--model", str(open_registry(name, mlflow).download_model(ref).resolve())]
    else:
        folder = download_bundle(bundle) if bundle else str(open_registry(name, mlflow).download_bundle(ref).resolve())
        server = ["model_name.serving", "--bundle", folder, "--grpc_port", str(grpc_port)]
    # exec replaces this process, so that the server receives its signals and none of its imported modules.
    command = [sys.executable, "-m", *server, "--host", host, "--http_port", str(http_port), *server_options]
    os.execv(sys.executable, command)  # noqa: S606  no shell  # nosec B606


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    configure_process()
    return run_main(lambda: app(args=list(argv) if argv is not None else None))
