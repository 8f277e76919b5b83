"""Command line of the pipelines: `python -m pipelines compile|run|submit|schedule NAME --confs DIR`."""

import sys
from typing import Annotated, Any

import typer

from model_name.cli.options import AsJson, Budget, Sets, with_budget
from model_name.io.entrypoint import EXIT_REFUSED, configure_process, run_main

app = typer.Typer(
    name="python -m pipelines",
    help="Compile the pipelines, run them on this machine, or submit them to Kubeflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Pipeline = Annotated[str, typer.Argument(metavar="NAME", help="training or inference.")]
Confs = Annotated[str, typer.Option(help="Config folder.")]
Profile = Annotated[
    str, typer.Option(help="Resources of the steps: cpu, 1xgpu, 4x2gpu (nodes x GPUs per node) or a YAML file.")
]
Table = Annotated[str, typer.Option(help="Table to read instead of the one in the config.")]
Skip = Annotated[list[str], typer.Option(help="Step to leave out: tuning.")]
Host = Annotated[str, typer.Option(help="URL of the Kubeflow Pipelines API; by default KF_PIPELINES_ENDPOINT.")]
Namespace = Annotated[str, typer.Option(help="Kubeflow namespace.")]
Experiment = Annotated[str, typer.Option(help="Kubeflow experiment.")]

CONFS = "confs/flights"


@app.command("compile")
def compile_(
    name: Pipeline,
    confs: Confs = CONFS,
    profile: Profile = "cpu",
    sets: Sets = [],  # noqa: B006
    skip: Skip = [],  # noqa: B006
    out: Annotated[str, typer.Option(help="File to write; by default build/pipelines/NAME.yaml.")] = "",
) -> None:
    """Compile the pipeline to YAML for Kubeflow; every step contains its config."""
    from pipelines.compiling import compile_pipeline

    typer.echo(compile_pipeline(name, confs, profile=profile, sets=sets, skip=skip, out=out))


@app.command()
def run(
    name: Pipeline,
    confs: Confs = CONFS,
    table: Table = "",
    budget: Budget = "",
    sets: Sets = [],  # noqa: B006
    skip: Skip = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Compile the pipeline and run it on this machine; exit with 3 if the gate refuses the version."""
    from pipelines.compiling import compile_pipeline
    from pipelines.local_runner import run_pipeline

    package = compile_pipeline(name, confs, profile="local", sets=with_budget(sets, budget), skip=skip)
    result = run_pipeline(name, package, {"table": table})
    accepted = result.pop("accepted")
    print_pipeline_result(name, result, as_json=as_json)
    if not accepted:
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def submit(
    name: Pipeline,
    host: Host = "",
    namespace: Namespace = "kubeflow",
    experiment: Experiment = "model-name",
    confs: Confs = CONFS,
    profile: Profile = "cpu",
    table: Table = "",
    sets: Sets = [],  # noqa: B006
    skip: Skip = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Compile the pipeline and start a run of it on a Kubeflow host."""
    from pipelines.compiling import compile_pipeline
    from pipelines.remote import submit

    package = compile_pipeline(name, confs, profile=profile, sets=sets, skip=skip)
    result = submit(package, {"table": table}, host=host, namespace=namespace, experiment=experiment)
    print_pipeline_result(name, result, as_json=as_json)


@app.command()
def schedule(
    name: Pipeline,
    cron: Annotated[
        str, typer.Option(help='Schedule in six fields, seconds first: "0 0 2 * * *" is every night at two.')
    ],
    host: Host = "",
    namespace: Namespace = "kubeflow",
    experiment: Experiment = "model-name",
    confs: Confs = CONFS,
    profile: Profile = "cpu",
    table: Table = "",
    sets: Sets = [],  # noqa: B006
    skip: Skip = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Compile the pipeline and schedule it on a Kubeflow host."""
    from pipelines.compiling import compile_pipeline
    from pipelines.remote import schedule

    if len(cron.split()) != 6:
        raise typer.BadParameter("a schedule has six fields, seconds first, e.g. '0 0 2 * * *'", param_hint="--cron")
    package = compile_pipeline(name, confs, profile=profile, sets=sets, skip=skip)
    target = {"host": host, "namespace": namespace, "experiment": experiment}
    print_pipeline_result(
        name, schedule(package, {"table": table}, **target, name=f"model-name-{name}", cron=cron), as_json=as_json
    )


def print_pipeline_result(name: str, result: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of a pipeline; without `as_json`, the checks of the gate become sentences."""
    from model_name.io.console import print_result

    gate = result.get("gate")
    if gate and not as_json:
        checks = [f"{'✓' if check['passed'] else '✗'} {check['words']}" for check in gate["checks"]]
        result = result | {"gate": ["passed" if gate["accepted"] else "REFUSED, the champion stays", *checks]}
    print_result(f"The {name} pipeline", result, as_json=as_json)


def main() -> int:
    """Run the command line and return its exit code."""
    configure_process()
    return run_main(app)


if __name__ == "__main__":
    sys.exit(main())
