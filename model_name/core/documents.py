"""The base of every config and record: strict, closed, and helpful about a wrong key."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple that YAML and JSON may give as a list."""


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


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`"; did you mean X?"` with the nearest known word, or all of them where none is near."""
    nearest = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(known)}"
