"""Render self-contained HTML pages: no script, no font, no image from elsewhere."""

from pathlib import Path
from typing import Any

import jinja2

from model_name.core.formatting import format_bytes, format_number, format_percent

TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, **context: Any) -> str:
    """Render a page from its template; everything in the context is escaped, except the markup from `reports.svg`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["percent"] = format_percent
    environment.filters["size"] = format_bytes
    page: str = environment.get_template(template).render(**context)
    return page
