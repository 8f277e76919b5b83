"""Console output: results on stdout as a table or as one JSON document, errors on stderr."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from model_name.errors import ModelNameError


def print_result(title: str, result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a result as a table with one row per key, or as JSON; nested mappings become `key: value` lines."""
    if as_json:
        print_json(result)
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in result.items():
        table.add_row(name, format_value(value))
    stdout_console().print(table)


def print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table with a header; columns of numbers are right-aligned."""
    table = Table(title=title, title_justify="left")
    listed = [list(row) for row in rows]
    for position, column in enumerate(columns):
        numeric = any(isinstance(row[position], int | float) for row in listed)
        table.add_column(column, justify="right" if numeric else "left")
    for row in listed:
        table.add_row(*(format_value(value) for value in row))
    stdout_console().print(table)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    console = stdout_console()
    text = json.dumps(document)
    console.print_json(text, indent=2) if console.is_terminal else print(text)  # noqa: T201


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they arrive; stop quietly if the reader closes the pipe, as `head` does."""
    for line in lines:
        try:
            print(line, flush=True)  # noqa: T201
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes the rest at exit
            return


def print_error(error: ModelNameError) -> None:
    """Print the message of an error, and its hint."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    console.print("error:", style="bold red", end=" ")
    console.print(error.message, markup=False)
    if error.hint:
        console.print(f"  next: {error.hint}", style="dim", markup=False)


def stdout_console() -> Console:
    """Create the console for results."""
    return Console(highlight=False, markup=False, emoji=False)  # values may contain markup


def format_value(value: Any) -> str:
    """Format a value for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, Mapping):
        return (
            "\n".join(f"{name}: {format_value(inner).replace(chr(10), ', ')}" for name, inner in value.items()) or "–"
        )
    if isinstance(value, list | tuple):
        return "\n".join(format_value(inner).replace(chr(10), ", ") for inner in value) or "–"
    return str(value)
