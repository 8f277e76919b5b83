"""The command line: `model-name ...`. Everything heavy is imported by the command that needs it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_name import __version__
from model_name.cli import kafka_commands
from model_name.cli.job_runs import run_job
from model_name.cli.options import AsJson, Budget, Sets, with_budget
from model_name.errors import ConfigError
from model_name.io.entrypoint import configure_process, run_main

if TYPE_CHECKING:
    from model_name.io.registries import Registry, Version


app = typer.Typer(
    name="model-name",
    help="Give it a table and a config, and it gives you a production ML service.\n\n"
    "New here? Three commands: [bold]model-name init my.parquet --target y --out confs/my[/], then "
    "[bold]python -m pipelines run training --confs confs/my[/], then [bold]model-name serve champion[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(name="models", help="Look at the versions in the registry.", no_args_is_help=True)
audit = typer.Typer(
    name="audit", help="Look at who promoted what, and prove that nobody changed it.", no_args_is_help=True
)
app.add_typer(models)
app.add_typer(audit)
app.add_typer(kafka_commands.app)

Ref = Annotated[str, typer.Argument(metavar="REF", help="An alias, a version number, a semantic version or `latest`.")]
Name = Annotated[str, typer.Option("--name", help="The registered model; may be left out if there is only one.")]
Trail = Annotated[str, typer.Option("--audit", help="Where the audit trail lies.")]
Tracking = Annotated[str, typer.Option("--mlflow", metavar="URI", help="The MLflow store; MLFLOW_TRACKING_URI wins.")]

DEFAULT_MLFLOW = "sqlite:///mlflow.db"


def print_version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        typer.echo(f"model-name {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Options of the whole command line."""


@app.command()
def init(
    table: Annotated[str, typer.Argument(help="A Parquet or CSV file, or any fsspec URL of one.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    time: Annotated[str, typer.Option(help="The column that orders the rows; found if there is only one.")] = "",
    key: Annotated[list[str], typer.Option(help="A column of the row's key; may be repeated.")] = [],  # noqa: B006
    country: Annotated[str, typer.Option(help="Whose public holidays count, e.g. US or DE-BY.")] = "",
    name: Annotated[str, typer.Option(help="What to call the model; by default the file's name.")] = "",
    out: Annotated[str, typer.Option(help="The folder to write; by default confs/NAME.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Infer the schema of a table and write a commented config folder that runs as it is."""
    from model_name.core.profiling.infer_schema import infer
    from model_name.io.console import print_result
    from model_name.io.datasets import reader_for
    from model_name.io.scaffolding import project_name, write_project

    name = name or project_name(table)
    frame = reader_for(table).read()
    found = infer(frame, name=name, target=target, time=time or None, key=tuple(key), country=country)
    folder = Path(out or f"confs/{name}")
    files = write_project(folder, found, table, overwrite=overwrite)
    document = {
        "folder": str(folder),
        "files": [str(file) for file in files],
        "findings": list(found.findings),
        "next": f"python -m pipelines run training --confs {folder}",
        "then": f"model-name serve champion --name {name}",
    }
    print_result(f"{name}: {len(found.schema.columns)} columns, {found.schema.target.task}", document, as_json=as_json)


@app.command()
def run(
    confs: Annotated[list[str], typer.Argument(metavar="CONF...", help="Config files, later ones winning.")],
    budget: Budget = "",
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Run one job. The `project.yaml` beside a file is merged before it."""
    from model_name.settings import load_job

    run_job(load_job(confs, with_budget(sets, budget)), as_json=as_json)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="[KIND]", help="A job, a kind of model or TableSchema.")] = "",
) -> None:
    """Print the JSON schema of a config; with no KIND, that of a whole config file."""
    from model_name.io.console import print_json
    from model_name.settings import json_schema

    print_json(json_schema(kind))


@models.command("list")
def models_list(name: Name = "", mlflow: Tracking = DEFAULT_MLFLOW, as_json: AsJson = False) -> None:
    """List the versions of all models, or of one, the newest first."""
    from model_name.io.console import print_json, print_rows

    versions = [version for one in registries(name, mlflow) for version in one.versions()]
    if as_json:
        print_json([version.model_dump(mode="json") for version in versions])
        return
    columns = ("name", "version", "semver", "aliases", "kind", "created")
    rows = [(v.name, v.version, v.semver, ", ".join(v.aliases), v.kind, v.created[:19]) for v in versions]
    print_rows(f"{len(rows)} versions", columns, rows)


@models.command("show")
def models_show(ref: Ref, name: Name = "", mlflow: Tracking = DEFAULT_MLFLOW, as_json: AsJson = False) -> None:
    """Show one version: what it scored, what it was made by, what the gate said."""
    from model_name.io.console import print_result

    found = registry(name, mlflow)
    version = found.resolve(ref)
    print_result(version.title, describe(found, version), as_json=as_json)


@models.command("diff")
def models_diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The version to compare with, as a rule the older.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The candidate.")],
    name: Name = "",
    mlflow: Tracking = DEFAULT_MLFLOW,
    out: Annotated[str, typer.Option(metavar="FILE.html", help="Write a page as well.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what differs between two versions: contract, hyperparameters, features, metrics, importances."""
    from model_name.io.console import print_json, print_rows
    from model_name.reports.artifacts import read_findings
    from model_name.reports.diff import compare, tables, write_page

    found = registry(name, mlflow)
    older, candidate = (read_findings(found, found.resolve(ref)) for ref in (a, b))
    comparison = compare(older, candidate)
    if out:
        write_page(older, candidate, comparison, out)
    if as_json:
        print_json(comparison.model_dump(mode="json"))
        return
    for title, columns, rows in tables(comparison):
        print_rows(title, columns, rows)
    for words in (comparison.measured, *(f"{missing}." for missing in comparison.missing), comparison.sentence):
        typer.echo(words)


@app.command()
def promote(
    ref: Ref,
    actor: Annotated[str, typer.Option(help="Who promotes.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    force: Annotated[bool, typer.Option("--force", help="Promote it whatever the gate says.")] = False,
    confs: Annotated[str, typer.Option(help="The config folder of the model.")] = "",
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Put a version through the gate by hand; exits with 3 if it is refused."""
    from model_name.settings import build_job, load_raw

    if not confs:
        raise ConfigError("--confs is missing", hint="name the config folder, e.g. --confs confs/flights")
    raw, files = load_raw(confs, "promotion", sets)
    job = raw["job"] | {"KIND": "PromotionJob", "ref": ref, "actor": actor, "reason": reason, "force": force}
    run_job(build_job({"job": job}, files=files), as_json=as_json)


@audit.command("list")
def audit_list(trail: Trail = "audit", as_json: AsJson = False) -> None:
    """List what was promoted, refused and forced."""
    from model_name.io.audit import AuditTrail
    from model_name.io.console import print_json, print_rows

    entries = AuditTrail(trail).entries()
    if as_json:
        print_json([entry.model_dump() for entry in entries])
        return
    rows = [(e.number, e.time[:19], e.actor, e.event, e.subject, str(e.details.get("reason", ""))) for e in entries]
    print_rows(f"{len(rows)} entries", ("#", "time (UTC)", "actor", "event", "subject", "reason"), rows)


@audit.command("verify")
def audit_verify(trail: Trail = "audit", as_json: AsJson = False) -> None:
    """Check every hash of the trail; names the first entry that was changed."""
    from model_name.io.audit import AuditTrail
    from model_name.io.console import print_result

    print_result("The trail is whole", {"entries": AuditTrail(trail).verify()}, as_json=as_json)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def serve(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(metavar="[REF]", help="An alias, a number, a semantic version.")] = "champion",
    bundle: Annotated[str, typer.Option(help="A bundle's folder or URL, instead of a version.")] = "",
    http_port: Annotated[int, typer.Option(help="For REST, V1 and V2.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="For gRPC; an explainer has none.")] = 8081,
    host: Annotated[str, typer.Option(help="The interface to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    explainer: Annotated[bool, typer.Option("--explainer", help="Explain predictions instead of making them.")] = False,
    name: Name = "",
    mlflow: Tracking = DEFAULT_MLFLOW,
) -> None:
    """Serve a version over REST and gRPC; further options are those of `python -m model_name.serving --help`."""
    from model_name.io.storage import download_bundle

    further = list(context.args)
    if ref.startswith("-"):  # without a version, the first option of the server stands in its place
        ref, further = "champion", [ref, *further]
    if explainer and bundle:
        raise ConfigError("--explainer: a bundle has no model to explain", hint="name a version instead of --bundle")
    if explainer:
        server = ["model_name.explainer", "--model", str(registry(name, mlflow).download_model(ref).resolve())]
    else:
        folder = download_bundle(bundle) if bundle else str(registry(name, mlflow).download_bundle(ref).resolve())
        server = ["model_name.serving", "--bundle", folder, "--grpc_port", str(grpc_port)]
    # A process of its own: a predictor never imports what training needs. It takes this one's place and signals.
    command = [sys.executable, "-m", *server, "--host", host, "--http_port", str(http_port), *further]
    os.execv(sys.executable, command)  # noqa: S606  our own  # nosec B606


def registry(name: str, mlflow_uri: str) -> "Registry":
    """The registry of the named model, or of the only one.

    Raises:
        ConfigError: There are several and none is named.
        NotFoundError: There is none.
    """
    found = registries(name, mlflow_uri)
    if len(found) > 1:
        known = ", ".join(one.name for one in found)
        raise ConfigError(f"there are several models: {known}", hint=f"name one, e.g. --name {found[0].name}")
    return found[0]


def registries(name: str, mlflow_uri: str) -> "list[Registry]":
    """The registry of the named model, or of each that there is.

    Raises:
        NotFoundError: There is none.
    """
    from model_name.core.schemas.strict_models import did_you_mean
    from model_name.errors import NotFoundError
    from model_name.io.osvariables import env
    from model_name.io.registries import Registry, list_model_names
    from model_name.io.services import LoggerService, MlflowService

    LoggerService().start()
    uri = env().mlflow_tracking_uri or mlflow_uri
    MlflowService(tracking_uri=uri, registry_uri=env().mlflow_registry_uri).start()
    known = list_model_names()
    if not known:
        hint = "train a model: python -m pipelines run training --confs DIR"
        raise NotFoundError(f"the registry at {uri} is empty", hint=hint)
    if name and name not in known:
        raise NotFoundError(f"no model is called {name!r}{did_you_mean(name, known)}")
    return [Registry(one) for one in ([name] if name else known)]


def describe(found: "Registry", version: "Version") -> dict[str, Any]:
    """A version with its metrics, parameters and lineage."""
    import mlflow

    run = mlflow.get_run(version.run_id)
    return {
        "name": version.name,
        "version": version.version,
        "semver": version.semver,
        "aliases": list(version.aliases),
        "kind": version.kind,
        "created": version.created,
        "gate": found.get_tags(version).get("gate"),
        "metrics": run.data.metrics,
        "params": run.data.params,
        "table": found.get_tags(version).get("table"),
        "run_id": version.run_id,
        "bundle": f"runs:/{version.run_id}/bundle",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    configure_process()
    return run_main(lambda: app(args=list(argv) if argv is not None else None))


if __name__ == "__main__":
    sys.exit(main())
