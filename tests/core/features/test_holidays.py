"""Public holidays by country, part and year."""

import pytest

from model_name.core.features.holidays import public_holidays
from model_name.errors import ConfigError


@pytest.mark.parametrize(
    ("place", "day", "is_one"),
    [
        pytest.param("US", "2013-07-04", True, id="Independence Day"),
        pytest.param("US", "2013-07-05", False, id="the day after"),
        pytest.param("US", "2040-12-25", True, id="Christmas of a year to come"),
        pytest.param("DE", "2024-01-06", False, id="Epiphany, not in all of Germany"),
        pytest.param("DE-BY", "2024-01-06", True, id="but in Bavaria"),
        pytest.param("DEU-BY", "2024-01-06", True, id="by its longer code"),
    ],
)
def test_a_day_is_a_holiday_where_it_is_one(place, day, is_one):
    days = public_holidays(place, 2013, 2040, config_path="here")
    assert (day in days) == is_one
    assert list(days) == sorted(set(days))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        pytest.param("XX", "here: XX is not a country whose holidays are known", id="no such country"),
        pytest.param("DE-XX", r"here: XX is not a part of DE\n  next: its parts are BB, BE, BW", id="no such part"),
        pytest.param("MC-A", "its parts are none", id="a country without parts"),
    ],
)
def test_a_place_that_is_not_known_is_refused(place, words):
    with pytest.raises(ConfigError, match=words):
        public_holidays(place, 2020, 2020, config_path="here")


def test_a_date_that_stands_for_never_costs_nothing():
    days = public_holidays("US", 2024, 9999, config_path="here")
    assert (days[0][:4], days[-1][:4]) == ("2024", "2100")
