"""Pages that need nothing but themselves: no script, no font, no picture from elsewhere."""

from pathlib import Path
from typing import Any

import jinja2

from model_name.core.formatting import number, percent, size

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> str:
    """A page from its template; everything in the context is escaped, but for the SVG that `plots` has made."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "count": lambda value: f"{value:,}", "percent": percent, "size": size}
    page: str = environment.get_template(template).render(**context)
    return page
