"""Options that several commands share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Sets = Annotated[
    list[str], typer.Option("--set", metavar="a.b=c", help="Override a key of the config files; may be repeated.")
]
Budget = Annotated[
    str, typer.Option(metavar="30s|10m", help="Time limit of a search; by default the one in the config.")
]
Ref = Annotated[str, typer.Argument(metavar="REF", help="An alias, a version number, a semantic version or `latest`.")]
Name = Annotated[str, typer.Option("--name", help="Name of the registered model; optional if there is only one.")]
Tracking = Annotated[
    str, typer.Option("--mlflow", metavar="URI", help="URI of the MLflow store; MLFLOW_TRACKING_URI takes precedence.")
]

DEFAULT_MLFLOW = "sqlite:///mlflow.db"


def with_budget(sets: list[str], budget: str) -> list[str]:
    """Append the time limit of the search, if one is given, to the overrides."""
    return [*sets, f"job.searcher.budget_seconds={budget}"] if budget else sets
