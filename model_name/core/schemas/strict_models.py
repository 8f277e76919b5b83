"""The base of every config and record: strict, closed, and helpful about a wrong key."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from math import inf
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple that YAML and JSON may give as a list."""


UNITS = {"s": 1, "m": 60, "h": 3600}
SPELLING = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smh])")


def _read_duration(raw: Any) -> Any:
    found = SPELLING.fullmatch(raw) if isinstance(raw, str) else None
    if isinstance(raw, str) and found is None:
        raise ValueError(f"{raw!r} is not a duration such as 30s, 10m or 1h")
    seconds = float(found[1]) * UNITS[found[2]] if found else raw
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and not 0 < seconds < inf:
        raise ValueError(f"{raw} is no time to do anything in; give it some, such as 30s or 10m")
    return seconds


Duration = Annotated[float, BeforeValidator(_read_duration)]
"""Seconds; a config may also say `30s`, `10m` or `1h`."""


class Closed(BaseModel):
    """Base of what people write in configs: strict, and a key that does not exist is answered with the nearest one."""

    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_its_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            names = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in names and key not in cls.model_fields:
                    raise ValueError(f"{key} is not a key of {cls.__name__}{did_you_mean(str(key), names)}")
        return data


class Frozen(Closed):
    """The same, unchangeable: everything that is configured once or recorded."""

    model_config = ConfigDict(frozen=True)


class LenientModel(BaseModel):
    """Base of recorded results: frozen, and keys that a newer release has added are ignored when they are read back."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`"; did you mean X?"` with the nearest known word, or all of them where none is near."""
    nearest = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(known)}"
