"""Public holidays by country, subdivision and year."""

import pytest

from model_name.core.features.holidays import public_holidays
from model_name.errors import ConfigError


@pytest.mark.parametrize(
    ("location", "day", "is_holiday"),
    [
        pytest.param("US", "2013-07-04", True, id="Independence Day"),
        pytest.param("US", "2013-07-05", False, id="the day after"),
        pytest.param("US", "2040-12-25", True, id="Christmas of a future year"),
        pytest.param("DE", "2024-01-06", False, id="Epiphany, not in all of Germany"),
        pytest.param("DE-BY", "2024-01-06", True, id="Epiphany in Bavaria"),
        pytest.param("DEU-BY", "2024-01-06", True, id="Bavaria by the three-letter code"),
    ],
)
def test_holidays_depend_on_country_and_subdivision(location, day, is_holiday):
    days = public_holidays(location, 2013, 2040, config_path="here")
    assert (day in days) == is_holiday
    assert list(days) == sorted(set(days))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        pytest.param("XX", "here: XX is not a country whose holidays are known", id="unknown country"),
        pytest.param(
            "DE-XX", r"here: XX is not a part of DE\n  next: its parts are BB, BE, BW", id="unknown subdivision"
        ),
        pytest.param("MC-A", "its parts are none", id="a country without subdivisions"),
    ],
)
def test_unknown_location_is_refused(location, message):
    with pytest.raises(ConfigError, match=message):
        public_holidays(location, 2020, 2020, config_path="here")


def test_placeholder_dates_do_not_extend_the_years():
    days = public_holidays("US", 2024, 9999, config_path="here")
    assert (days[0][:4], days[-1][:4]) == ("2024", "2100")
