"""Model card of a bundle, with a form to try the model: one self-contained HTML page."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from model_name.core.formatting import format_bytes, format_number, format_percent
from model_name.serving.bundle import ColumnProfile, Manifest
from model_name.serving.model_card.descriptions import (
    MAX_BARS,
    bin_shares,
    describe_accepted_values,
    describe_decision,
    describe_lag,
    describe_profile,
)
from model_name.serving.model_card.form import form_fields
from model_name.serving.model_card.snippets import SERVER, code_snippets
from model_name.serving.openapi.examples import known_categories
from model_name.serving.openapi.message_schemas import interval_levels

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"
MAX_UNSCROLLED_ROWS = 40  # of a table; a longer one scrolls in a frame of its own


def render_card(manifest: Manifest, *, name: str, slot: str, nonce: str, needs_token: bool = False) -> str:
    """Render the page.

    Args:
        manifest: Manifest of the bundle.
        name: Name under which the model is served.
        slot: Colour of the server; empty outside blue-green rollouts.
        nonce: Nonce given to `content_security_policy`, a new one for each response.
        needs_token: Whether the server requires a token for predictions.
    """
    fields = form_fields(manifest)
    path_name = quote(name, safe="")
    script_data = {
        "predict": f"v1/models/{path_name}:predict",
        "server": SERVER,
        "target": manifest.table.target.name,
        "semver": manifest.semver,
        "fields": [
            {"id": field.id, "name": field.name, "inputType": field.input_type, "acceptsEmpty": field.accepts_empty}
            for field in fields
        ],
    }
    page: str = load_template("card.html").render(
        manifest=manifest,
        table=manifest.table,
        max_unscrolled_rows=MAX_UNSCROLLED_ROWS,
        name=name,
        path_name=path_name,
        slot=slot,
        nonce=nonce,
        needs_token=needs_token,
        script_data=script_data,
        fields=fields,
        levels=interval_levels(manifest),
        columns=list(column_rows(manifest)),
        decision=list(describe_decision(manifest)),
        snippets=code_snippets(manifest, name=name, needs_token=needs_token),
    )
    return page


def render_token_page(*, name: str, nonce: str) -> str:
    """Render the page that a browser gets without a token: it takes one and shows the card with it.

    The page says nothing of the model but its name, which the paths of the probes have as well.

    Args:
        name: Name under which the model is served.
        nonce: Nonce given to `content_security_policy`, a new one for each response.
    """
    page: str = load_template("token.html").render(name=name, nonce=nonce)
    return page


def content_security_policy(nonce: str) -> tuple[bytes, bytes]:
    """Build the header of the page that forbids external content and framing.

    Args:
        nonce: Nonce of the styles and the scripts of the page.
    """
    policy = (
        "default-src 'none'; "
        f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return b"content-security-policy", policy.encode("ascii")


@cache
def load_template(file: str) -> "jinja2.Template":
    """Compile a template once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "count": lambda value: f"{value:,}",
        "percent": format_percent,
        "size": format_bytes,
    }
    return environment.get_template(file)


def column_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table of columns."""
    for name, column in manifest.table.columns.items():
        profile = manifest.profile.get(name) if column.is_input else None
        if column.sensitive:
            distribution = "sensitive, its values are not shown"
        else:
            distribution = describe_profile(column, profile) if profile else ""
        yield {
            "name": name,
            "kind": column.kind,
            "description": column.description,
            "lag": describe_lag(column.history) if column.history else "",
            "accepted": (
                describe_accepted_values(column, known_categories(manifest, name)) if column.is_input else "ignored"
            ),
            "missing": profile.missing if profile else None,
            "bar_heights": bar_heights(profile) if profile and not column.sensitive else [],
            "distribution": distribution,
        }


def bar_heights(profile: ColumnProfile) -> list[float]:
    """Scale the distribution of a column to bars, the highest of which is 1."""
    shares = bin_shares(profile.quantiles) if profile.quantiles else [*profile.shares.values()][:MAX_BARS]
    return [share / (max(shares) or 1.0) for share in shares]
