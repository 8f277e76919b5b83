"""Format config values as YAML text that `configs.parse_string` reads back unchanged."""

import re
from textwrap import indent, wrap
from typing import Any

import yaml

from model_name.io.configs import Loader

WIDTH = 120
UNLIMITED = 10**9


class Dumper(yaml.SafeDumper):
    """Dumper that quotes texts that YAML or `configs.Loader` would read as another type: NO, 1, 1e5, 2013-01-01."""


def _represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    # Only double quotes keep a text with line breaks or control characters on one line.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


Dumper.add_representer(str, _represent_text)
Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Loader.yaml_implicit_resolvers}
}


def format_entry(name: str, value: Any, note: str = "", *, indentation: int = 0) -> str:
    """Format `name: value`, on one line if it fits, with the note as a comment after or above it."""
    return indent(_format_entry(name, value, note), " " * indentation).removesuffix("\n")


def format_comment(text: str) -> list[str]:
    """Wrap a text into comment lines."""
    return wrap(printable(text), WIDTH, initial_indent="# ", subsequent_indent="# ")


def format_bullet(text: str) -> list[str]:
    """Wrap a text into comment lines that begin with a dash."""
    return wrap(printable(text), WIDTH, initial_indent="# - ", subsequent_indent="#   ", break_on_hyphens=False)


def printable(text: str) -> str:
    """Replace characters that YAML does not allow in a comment, and line breaks, by spaces."""
    return "".join(character if character.isprintable() else " " for character in text)


def _format_entry(name: str, value: Any, note: str = "") -> str:
    entry = {name: _escape(value)}
    comment = f"# {printable(note)}" if note else ""
    line = _dump(entry, width=UNLIMITED, default_flow_style=True).strip()[1:-1]  # without the braces of the flow style
    is_line = len(line) <= WIDTH - 2 and "\n" not in line and not line.startswith("?")
    if is_line and len(f"{line}  {comment}") <= WIDTH - 2:
        return f"{line}  {comment}".rstrip() + "\n"
    text = f"{line}\n" if is_line else _format_block(name, value)
    return f"{comment}\n{text}" if comment else text


def _format_block(name: str, value: Any) -> str:
    """Format an entry on several lines, one per key if YAML can write its name as a plain key."""
    head = _dump({name: {}}, width=UNLIMITED, default_flow_style=True).strip()[1:-1].removesuffix(" {}")
    if isinstance(value, dict) and value and head.endswith(":") and not head.startswith("?"):
        return f"{head}\n" + indent("".join(_format_entry(key, item) for key, item in value.items()), "  ")
    style = None if isinstance(value, dict | list | tuple) else False
    return _dump({name: _escape(value)}, width=WIDTH - 10, default_flow_style=style)


def _dump(value: Any, *, width: int, default_flow_style: bool | None) -> str:
    text: str = yaml.dump(
        value, Dumper=Dumper, width=width, default_flow_style=default_flow_style, allow_unicode=True, sort_keys=False
    )
    return text


def _escape(value: Any) -> Any:
    """Escape `${`, which OmegaConf reads as an interpolation, and the backslashes before it."""
    if isinstance(value, dict):
        return {name: _escape(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: f"{match[1] * 2}\\${{", value)
    return value
