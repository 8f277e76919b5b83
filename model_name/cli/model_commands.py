"""Commands `model-name models ...`. Heavy packages are imported inside the command that needs them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_name.cli.options import DEFAULT_MLFLOW, AsJson, Name, Ref, Tracking
from model_name.cli.registry_access import open_registries, open_registry

if TYPE_CHECKING:
    from model_name.io.registries import Registry, Version

app = typer.Typer(name="models", help="List, show and compare the versions in the registry.", no_args_is_help=True)


@app.command("list")
def list_versions(name: Name = "", mlflow: Tracking = DEFAULT_MLFLOW, as_json: AsJson = False) -> None:
    """List the versions of all models, or of one model, newest first."""
    from model_name.io.console import print_json, print_rows

    versions = [version for registry in open_registries(name, mlflow) for version in registry.versions()]
    if as_json:
        print_json([version.model_dump(mode="json") for version in versions])
        return
    columns = ("name", "version", "semver", "aliases", "kind", "created")
    rows = [
        (version.name, version.version, version.semver, ", ".join(version.aliases), version.kind, version.created[:19])
        for version in versions
    ]
    print_rows(f"{len(rows)} versions", columns, rows)


@app.command("show")
def show_version(ref: Ref, name: Name = "", mlflow: Tracking = DEFAULT_MLFLOW, as_json: AsJson = False) -> None:
    """Show the metrics, parameters, gate decision and lineage of one version."""
    from model_name.io.console import print_result

    registry = open_registry(name, mlflow)
    version = registry.resolve(ref)
    print_result(version.title, version_details(registry, version), as_json=as_json)


@app.command("diff")
def diff_versions(
    a: Annotated[str, typer.Argument(metavar="A", help="The version to compare with, usually the older one.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The candidate.")],
    name: Name = "",
    mlflow: Tracking = DEFAULT_MLFLOW,
    out: Annotated[str, typer.Option(metavar="FILE.html", help="Also write the comparison to this HTML file.")] = "",
    as_json: AsJson = False,
) -> None:
    """Compare two versions: contract, hyperparameters, features, metrics and importances."""
    from model_name.io.console import print_json, print_rows
    from model_name.reports.artifacts import load_version_artifacts
    from model_name.reports.diff import compare_versions
    from model_name.reports.diff_page import comparison_tables, write_diff_page

    registry = open_registry(name, mlflow)
    older, candidate = (load_version_artifacts(registry, registry.resolve(ref)) for ref in (a, b))
    comparison = compare_versions(older, candidate)
    if out:
        write_diff_page(older, candidate, comparison, out)
    if as_json:
        print_json(comparison.model_dump(mode="json"))
        return
    for title, columns, rows in comparison_tables(comparison):
        print_rows(title, columns, rows)
    for sentence in (comparison.measured, *(f"{missing}." for missing in comparison.missing), comparison.sentence):
        typer.echo(sentence)


def version_details(registry: "Registry", version: "Version") -> dict[str, Any]:
    """Collect a version's registry entry with the metrics, parameters and table of its run."""
    import mlflow

    run = mlflow.get_run(version.run_id)
    tags = registry.get_tags(version)
    return {
        "name": version.name,
        "version": version.version,
        "semver": version.semver,
        "aliases": list(version.aliases),
        "kind": version.kind,
        "created": version.created,
        "gate": tags.get("gate"),
        "metrics": run.data.metrics,
        "params": run.data.params,
        "table": tags.get("table"),
        "run_id": version.run_id,
        "bundle": f"runs:/{version.run_id}/bundle",
    }
