"""Validation of encodings."""

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
    pytest.param("text-id", {"rare": 5}, "encode.rare does not belong", id="encoding of a text id"),
    pytest.param("datetime", {"parts": ["hour", "hour"]}, "names one twice", id="a part twice"),
    pytest.param("datetime", {"parts": ["minute"]}, "parts", id="an unknown part"),
    pytest.param("datetime", {"holidays": False}, 'write "NO" for Norway', id="NO as YAML parses it"),
    pytest.param("datetime", {"holidays": "Germany"}, "holidays", id="a country by its name"),
    pytest.param("category", {"rare": -1}, "rare", id="a negative number of rows"),
    pytest.param("numeric", {"scal": "log"}, "did you mean scale?", id="a misspelt key"),
]


@pytest.mark.parametrize(("kind", "encode", "message"), WRONG)
def test_invalid_encoding_is_refused_with_its_reason(kind, encode, message):
    with pytest.raises(ValidationError, match=message):
        Column.model_validate({"kind": kind, "encode": encode})


@pytest.mark.parametrize("location", ["", "US", "DE-BY", "DEU-Augsburg", "FR-Zone A"])
def test_holidays_accept_a_country_and_a_subdivision(location):
    assert Encoding(holidays=location).holidays == location
