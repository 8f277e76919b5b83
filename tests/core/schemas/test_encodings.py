"""What a schema may say about how a column becomes features."""

import pytest
from pydantic import ValidationError

from model_name.core.schemas.columns import Column
from model_name.core.schemas.encodings import Encoding

WRONG = [
    pytest.param(
        "numeric", {"code": "one-hot"}, "encode.code does not belong to a numeric column", id="code of a number"
    ),
    pytest.param("boolean", {"scale": "log"}, "encode.scale does not belong", id="scale of a boolean"),
    pytest.param("category", {"impute": "mean"}, "encode.impute does not belong", id="mean of a category"),
    pytest.param("category", {"holidays": "US"}, "encode.holidays does not belong", id="holidays of a category"),
    pytest.param("text-id", {"rare": 5}, "encode.rare does not belong", id="anything of an id"),
    pytest.param("datetime", {"parts": ["hour", "hour"]}, "names one twice", id="a part twice"),
    pytest.param("datetime", {"parts": ["minute"]}, "parts", id="a part that there is not"),
    pytest.param("datetime", {"holidays": False}, 'write "NO" for Norway', id="Norway as YAML reads it"),
    pytest.param("datetime", {"holidays": "Germany"}, "holidays", id="a country by its name"),
    pytest.param("category", {"rare": -1}, "rare", id="fewer rows than none"),
    pytest.param("numeric", {"scal": "log"}, "did you mean scale?", id="a key misspelt"),
]


@pytest.mark.parametrize(("kind", "encode", "words"), WRONG)
def test_what_does_not_belong_to_a_column_is_refused(kind, encode, words):
    with pytest.raises(ValidationError, match=words):
        Column.model_validate({"kind": kind, "encode": encode})


@pytest.mark.parametrize("place", ["", "US", "DE-BY", "DEU-Augsburg", "FR-Zone A"])
def test_a_country_or_part_of_it_names_the_holidays(place):
    assert Encoding(holidays=place).holidays == place
