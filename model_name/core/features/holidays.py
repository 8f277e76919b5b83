"""Public holidays, from the `holidays` package; they are looked up when a model is trained and travel in its bundle."""

from model_name.errors import ConfigError

FIRST_YEAR, LAST_YEAR = 1900, 2100  # a date beyond them, such as 9999-12-31, stands for something else than a day


def public_holidays(place: str, first: int, last: int, *, said_at: str) -> tuple[str, ...]:
    """The days of the years `first` to `last` that are public holidays, in ISO 8601, sorted.

    Args:
        place: A country, or country and part of it: `US`, `DE-BY`.
        first: The first year.
        last: The last year.
        said_at: Where the place was named, for the message.

    Raises:
        ConfigError: There is no such country, or it has no such part.
    """
    import holidays

    country, part = _known(place, holidays.list_supported_countries(include_aliases=True), said_at)
    years = range(max(first, FIRST_YEAR), min(last, LAST_YEAR) + 1)
    found = holidays.country_holidays(country, subdiv=part, years=years)
    return tuple(sorted(day.isoformat() for day in found))


def _known(place: str, places: dict[str, list[str]], said_at: str) -> tuple[str, str | None]:
    country, _, part = place.partition("-")
    if country not in places:
        raise ConfigError(
            f"{said_at}: {country or 'nothing'} is not a country whose holidays are known",
            hint="a country is named by its ISO 3166 code, such as US or DE, a part of it with it, such as DE-BY",
        )
    if part and part not in places[country]:
        parts = ", ".join(places[country]) or "none"
        raise ConfigError(f"{said_at}: {part} is not a part of {country}", hint=f"its parts are {parts}")
    return country, part or None
