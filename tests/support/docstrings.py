"""Check docstrings against the style that CONTRIBUTING describes.

`python -m tests.support.docstrings PATH...` lists the findings.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

FRAGMENTS = re.compile(
    r"(What|As of|As `|How|Of|Those|Who|Whose|Where|Which|When|It|They|That|These|This|Its|Their|There|Nothing|Nobody"
    r"|Not|So)\b"
)
"""Openings of a summary that name neither an action nor a thing."""
NOT_A_VERB = re.compile(
    r"(The|A|An|One|All|Any|Each|Every|Some|Both|Other|Whether|In|By|From|For|With|To|At|On|Behind|Beside|Until|Because|If|"
    r"\w+(?<!s)s|\w+(?<!e)ed|\w+(?<!r)(?<!str)ing)\b"
)
"""Openings of a function's summary that are no imperative: articles, prepositions, third person, participles."""
VERB_EXCEPTIONS = {
    "Pass",
    "Process",
    "Compress",
    "Decompress",
    "Express",
    "Address",
    "Embed",
    "Bring",
    "Feed",
    "Seed",
    "Need",
    "Shed",
}
"""Imperatives that `NOT_A_VERB` matches."""
NOT_A_NOUN = re.compile(
    r"(Of|What|Whose|How|Who|Where|Which|As|It|They|That|Those|These|This|Its|Their|None|Nothing|By|In|To|From|For)\b"
)
"""Openings of an entry of Args or Attributes that lack the noun."""
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields", "Example", "Examples", "Note", "Notes", "Source")
RAISES_WORDS = 4


def findings(path: Path) -> Iterator[str]:
    """List the violations of the style in the docstrings of a module, as `PATH:LINE: NAME: REASON`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if docstring is None:
            continue
        line = getattr(node, "lineno", 1)
        name = getattr(node, "name", "module")
        for reason in [*_summary(node, docstring), *_entries(docstring)]:
            yield f"{path}:{line}: {name}: {reason}"


def _summary(node: ast.AST, docstring: str) -> Iterator[str]:
    summary = docstring.splitlines()[0]
    if FRAGMENTS.match(summary):
        yield f"the summary is a fragment: {summary!r}"
    elif (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not _is_property(node)
        and NOT_A_VERB.match(summary)
        and summary.split()[0] not in VERB_EXCEPTIONS
    ):
        yield f"the summary does not begin with an imperative verb: {summary!r}"


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Report whether a function is a property, whose summary may be a noun phrase."""
    names = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in node.decorator_list}
    return bool(names & {"property", "cached_property"})


def _entries(docstring: str) -> Iterator[str]:
    """Check the entries of the sections Args, Attributes and Raises."""
    section = ""
    for line in docstring.splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section = line.rstrip(":")
            continue
        entry = re.match(r"    (\*{0,2}\w+)(?: \([^)]*\))?: (.*)", line)
        if entry is None or section not in ("Args", "Attributes", "Raises"):
            continue
        name, text = entry.groups()
        if section == "Raises":
            if len(text.split()) < RAISES_WORDS or re.match(r"(It|They|There|That)\b", text):
                yield f"{name} does not name the condition: {text!r}"
        elif NOT_A_NOUN.match(text):
            yield f"{name} does not begin with its noun: {text!r}"


def modules(paths: Iterable[str | Path]) -> Iterator[Path]:
    """List the modules at or below some paths."""
    for path in map(Path, paths):
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


if __name__ == "__main__":
    lines = [line for path in modules(sys.argv[1:]) for line in findings(path)]
    sys.stdout.write("".join(f"{line}\n" for line in lines) + f"{len(lines)} findings\n")
    sys.exit(bool(lines))
