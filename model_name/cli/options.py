"""Options that `model-name` and `python -m pipelines` share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")]
Sets = Annotated[list[str], typer.Option("--set", metavar="a.b=c", help="Set a key over the files; may be repeated.")]
Budget = Annotated[str, typer.Option(metavar="30s|10m", help="How long a search may take; what the config says else.")]


def with_budget(sets: list[str], budget: str) -> list[str]:
    """The pairs, the budget of the search among them if one is given."""
    return [*sets, f"job.searcher.budget_seconds={budget}"] if budget else sets
