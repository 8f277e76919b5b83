"""The model card of what is served, with a form to try it: one page that needs nothing but itself."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from model_name.core.decisions.decision import PredictionIntervals
from model_name.core.formatting import number, percent, size
from model_name.core.schemas.columns import Column, label_text
from model_name.core.schemas.lags import History
from model_name.serving.bundle import ColumnProfile, Manifest
from model_name.serving.model_card.column_profiles import BINS, bin_shares, profile_words
from model_name.serving.model_card.form import fields, option_label
from model_name.serving.model_card.snippets import SERVER, calls
from model_name.serving.openapi.examples import known_categories
from model_name.serving.openapi.json_schema import bounds

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_CATEGORIES = 12
MANY = 40  # rows of a table, from which on it scrolls by itself
CALIBRATIONS = {
    "sigmoid": "Probabilities are calibrated by a sigmoid of their log-odds.",
    "isotonic": "Probabilities are calibrated by isotonic regression.",
    "temperature": "Probabilities are calibrated by temperature.",
}


def card(manifest: Manifest, *, name: str, slot: str, nonce: str, needs_token: bool = False) -> str:
    """The page.

    Args:
        manifest: Of the bundle.
        name: What the model is served under.
        slot: The colour of the server; empty where it has none.
        nonce: That of `headers`, another for every answer.
        needs_token: Whether the server answers rows to those who have a token only.
    """
    form = fields(manifest)
    place = quote(name, safe="")
    data = {
        "predict": f"v1/models/{place}:predict",
        "server": SERVER,
        "target": manifest.table.target.name,
        "semver": manifest.semver,
        "fields": [{"id": f.id, "name": f.name, "control": f.control, "takesEmpty": f.takes_empty} for f in form],
    }
    page: str = template().render(
        manifest=manifest,
        table=manifest.table,
        many=MANY,
        name=name,
        place=place,
        slot=slot,
        nonce=nonce,
        needs_token=needs_token,
        data=data,
        fields=form,
        levels=levels(manifest),
        columns=list(column_rows(manifest)),
        decision=list(decision_words(manifest)),
        calls=calls(manifest, name=name, needs_token=needs_token),
    )
    return page


def headers(nonce: str) -> list[tuple[bytes, bytes]]:
    """The headers of the page beside its content type: nothing is loaded, framed or kept but what the page holds.

    Args:
        nonce: That of `card`.
    """
    policy = (
        "default-src 'none'; "
        f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
    ]


@cache
def template() -> "jinja2.Template":
    """The template, compiled once."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "count": lambda value: f"{value:,}", "percent": percent, "size": size}
    return environment.get_template("card.html")


def levels(manifest: Manifest) -> list[float]:
    """The levels of the prediction intervals that may be asked for."""
    intervals = manifest.decision.intervals
    return [*intervals.levels] if intervals and not manifest.table.classes else []


def column_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The table of the columns."""
    for name, column in manifest.table.columns.items():
        profile = manifest.profile.get(name)
        is_told = column.is_input and profile is not None and not column.sensitive
        yield {
            "name": name,
            "kind": column.kind,
            "description": column.description,
            "history": history_words(column.history) if column.history else "",
            "accepts": accepts(column, known_categories(manifest, name)) if column.is_input else "not looked at",
            "missing": profile.missing if profile and column.is_input else None,
            "heights": heights(profile) if is_told and profile else [],
            "words": trained_words(column, profile),
        }


def accepts(column: Column, known: tuple[str, ...]) -> str:
    """What a request may hold, in words."""
    match column.kind:
        case "numeric":
            is_bound = column.min is not None or column.max is not None
            clipped = ", else clipped" if column.out_of_bounds == "clip" else ""
            said = bounds(column) + clipped if is_bound else "any number"
        case "boolean":
            said = "true or false"
        case "datetime":
            said = "date and time"
        case _:
            said = category_words(column, known)
    return f"{said}; may be missing" if column.nullable else said


def category_words(column: Column, known: tuple[str, ...]) -> str:
    """The categories that are known, and what becomes of others."""
    left = len(known) - SHOWN_CATEGORIES
    first = ", ".join(option_label(value) for value in known[:SHOWN_CATEGORIES]) or "any text"
    is_refused = column.values is not None and column.unseen == "refuse"
    rest = "others are refused" if is_refused else "others count as missing"
    return f"{first}{f' and {left:,} more' if left > 0 else ''}" + (f"; {rest}" if known else "")


def history_words(history: History) -> str:
    """What a column tells of earlier rows."""
    by = f", of the same {' and '.join(history.by)}" if history.by else ""
    if history.window:
        return f"Mean of {history.of} over the {history.window} that ended {history.lag} before{by}."
    if history.repeats > 1:
        return f"Mean of {history.of} at {history.repeats} times, each {history.lag} before the next{by}."
    return f"{history.of}, {history.lag} before{by}."


def trained_words(column: Column, profile: ColumnProfile | None) -> str:
    """What the training part held."""
    if column.sensitive:
        return "sensitive, its values are not shown"
    return profile_words(column, profile) if profile is not None and column.is_input else ""


def heights(profile: ColumnProfile) -> list[float]:
    """The bars of the distribution of a column, the highest of which is 1."""
    shares = bin_shares(profile.quantiles) if profile.quantiles else [*profile.shares.values()][:BINS]
    return [share / (max(shares) or 1.0) for share in shares]


def decision_words(manifest: Manifest) -> Iterator[str]:
    """What makes an answer of the scores, in sentences."""
    decision, classes = manifest.decision, manifest.table.classes
    if not classes:
        yield from interval_words(decision.intervals) if decision.intervals else ["There are no prediction intervals."]
        return
    yield CALIBRATIONS[decision.calibrator.KIND] if decision.calibrator else "Probabilities are not calibrated."
    if decision.threshold is None:
        yield "The most probable class is answered."
    else:
        yield f"{label_text(classes[1])} is answered from a probability of {number(decision.threshold)} on."
    if decision.costs:
        costs = decision.costs
        yield f"A false positive costs {costs.false_positive:g}, a false negative {costs.false_negative:g}."


def interval_words(intervals: PredictionIntervals) -> Iterator[str]:
    """How wide the intervals are, a sentence a level."""
    for level, halves in zip(intervals.levels, intervals.halves, strict=True):
        low, high = number(min(halves)), number(max(halves))
        width = f"±{low}" if low == high else f"±{low} to ±{high}, by what is predicted"
        yield f"The prediction interval of level {level:.4g} is {width}."
    yield f"The intervals were found on {intervals.rows:,} rows that the model had not seen."
