"""Options that `model-name` and `python -m pipelines` share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")]
Sets = Annotated[list[str], typer.Option("--set", metavar="a.b=c", help="Set a key over the files; may be repeated.")]
