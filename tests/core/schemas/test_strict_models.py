"""Errors of strict models about unknown keys."""

import pytest
from pydantic import ConfigDict, ValidationError

from model_name.core.schemas.strict_models import FrozenModel, did_you_mean


class Renamed(FrozenModel):
    model_config = ConfigDict(title="Original")

    repeats: int = 1


def test_suggestion_is_the_nearest_word_or_all_words():
    assert did_you_mean("nmae", ["name", "kind"]) == "; did you mean name?"
    assert did_you_mean("zzz", ["name", "kind"]) == "; there are name, kind"


def test_error_shows_the_title_of_a_model():
    with pytest.raises(ValidationError, match="repeat is not a key of Original; did you mean repeats"):
        Renamed.model_validate({"repeat": 2})
