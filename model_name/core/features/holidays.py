"""Public holidays from the `holidays` package, looked up when a model is trained and stored in its bundle."""

from model_name.errors import ConfigError

FIRST_YEAR, LAST_YEAR = 1900, 2100  # dates beyond them, such as 9999-12-31, are placeholders


def public_holidays(location: str, first_year: int, last_year: int, *, config_path: str) -> tuple[str, ...]:
    """List the public holidays of some years, as sorted ISO 8601 dates.

    Args:
        location: A country, or a country and its subdivision: `US`, `DE-BY`.
        first_year: First year.
        last_year: Last year.
        config_path: Config key or flag that named the location, for error messages.

    Raises:
        ConfigError: The country is unknown, or has no such subdivision.
    """
    import holidays

    supported = holidays.list_supported_countries(include_aliases=True)
    country, subdivision = _parse_location(location, supported, config_path)
    years = range(max(first_year, FIRST_YEAR), min(last_year, LAST_YEAR) + 1)
    dates = holidays.country_holidays(country, subdiv=subdivision, years=years)
    return tuple(sorted(day.isoformat() for day in dates))


def _parse_location(location: str, supported: dict[str, list[str]], config_path: str) -> tuple[str, str | None]:
    country, _, subdivision = location.partition("-")
    if country not in supported:
        raise ConfigError(
            f"{config_path}: {country or 'nothing'} is not a country whose holidays are known",
            hint="a country is named by its ISO 3166 code, such as US or DE, a part of it with it, such as DE-BY",
        )
    if subdivision and subdivision not in supported[country]:
        parts = ", ".join(supported[country]) or "none"
        raise ConfigError(f"{config_path}: {subdivision} is not a part of {country}", hint=f"its parts are {parts}")
    return country, subdivision or None
