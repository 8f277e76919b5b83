"""Base classes of configs and records: strict and closed pydantic models that name the nearest valid key."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from math import inf
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

T = TypeVar("T")
LaxTuple = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple in pydantic's lax mode, which also accepts the lists that YAML and JSON have."""


SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600}
DURATION_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smh])")


def _parse_duration(raw: Any) -> Any:
    match = DURATION_PATTERN.fullmatch(raw) if isinstance(raw, str) else None
    if isinstance(raw, str) and match is None:
        raise ValueError(f"{raw!r} is not a duration such as 30s, 10m or 1h")
    seconds = float(match[1]) * SECONDS_PER_UNIT[match[2]] if match else raw
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and not 0 < seconds < inf:
        raise ValueError(f"{raw} is no time to do anything in; give it some, such as 30s or 10m")
    return seconds


Duration = Annotated[float, BeforeValidator(_parse_duration)]
"""Seconds; a config may also say `30s`, `10m` or `1h`."""


class StrictModel(BaseModel):
    """Base of what people write in configs: types are strict, and an error about an unknown key suggests the nearest.

    A class whose name differs from what its config calls it sets `title` in its `model_config`: errors show the title.
    """

    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            names = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in names and key not in cls.model_fields:
                    title = cls.model_config.get("title") or cls.__name__
                    raise ValueError(f"{key} is not a key of {title}{did_you_mean(str(key), names)}")
        return data


class FrozenModel(StrictModel):
    """Base of immutable configs and records."""

    model_config = ConfigDict(frozen=True)


class LenientModel(BaseModel):
    """Base of recorded results: frozen, and keys that a newer release has added are ignored when a result is loaded."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Suggest a correction of a misspelt word.

    Returns:
        `"; did you mean X?"` with the nearest known word, or a list of all known words if none is near.
    """
    nearest = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(known)}"
