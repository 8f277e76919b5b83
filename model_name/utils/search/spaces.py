"""What a search may choose from: a list or a range for each hyperparameter."""

import math
from decimal import Decimal
from typing import Annotated, Any, Self

import numpy as np
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    JsonValue,
    RootModel,
    StrictFloat,
    StrictInt,
    Tag,
    ValidationError,
    model_validator,
)

from model_name.core.models import Model
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple, did_you_mean
from model_name.errors import ConfigError

Params = dict[str, Any]
"""One point of a space."""

DIGITS = 14  # that a proposed float keeps: 0.1 instead of 0.09999999999999999


def _require_number(raw: Any) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        raise ValueError(f"{raw!r} is not a finite number")
    return raw


Number = Annotated[StrictInt | StrictFloat, BeforeValidator(_require_number)]


class Choice(RootModel[LaxTuple[JsonValue]]):
    """One of the values of a list, which have no order: in a config a plain list."""

    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="after")
    def _offers_something(self) -> Self:
        if not self.root:
            raise ValueError("the list of choices is empty")
        for place, value in enumerate(self.root):
            if self.encode(value) != place:
                raise ValueError(f"{value!r} is among the choices twice")
        return self

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values that a model must accept for it to accept all."""
        return self.root

    def grid(self, points: int) -> list[Any]:
        """All values: they have no order to leave any out by."""
        return list(self.root)

    def contains(self, value: Any) -> bool:
        """Whether a search could have proposed the value."""
        return any(_is_same(choice, value) for choice in self.root)

    def encode(self, value: Any) -> int:
        """Where a value is in the list, since samplers take 1 and true for the same, and lists for no choice at all."""
        return next(place for place, choice in enumerate(self.root) if _is_same(choice, value))

    def decode(self, place: int) -> Any:
        """The value at a place of the list."""
        return self.root[place]


class Range(FrozenModel):
    """A number between two others, both included; an integer where all that is given are integers.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Whether orders of magnitude are equally likely, rather than equal distances.
        step: The distance between neighbours, counted from `low`.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, not {self.low}")
        if self.step is not None and self.log:
            raise ValueError("log and step exclude each other")
        if self.step is not None and (self.step <= 0 or not self._steps):
            raise ValueError(f"step {self.step} is not between 0 and the width of the range, {self.high - self.low:g}")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether its values are integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 0))

    @property
    def extremes(self) -> tuple[float, float]:
        """Its smallest and its largest value; the latter is below `high` where the steps do not meet it."""
        return self.decode(self.low), self.decode(self.low + self._steps * self.step if self.step else self.high)

    def grid(self, points: int) -> list[float]:
        """At most so many values, evenly spaced (by their logarithm where it is a `log` range), ends included."""
        if self.step is not None:
            counts = np.linspace(0, self._steps, points).round()
            values = self.low + counts * self.step
        else:
            values = (np.geomspace if self.log else np.linspace)(self.low, self.high, points)
        return list(dict.fromkeys(self.decode(value) for value in values))

    def contains(self, value: Any) -> bool:
        """Whether a search could have proposed the value."""
        if isinstance(value, bool) or not isinstance(value, int if self.is_integer else int | float):
            return False
        if not self.low <= value <= self.extremes[1]:
            return False
        count = (value - self.low) / self.step if self.step else 0
        return math.isclose(count, round(count), abs_tol=1e-8)  # Optuna's own tolerance

    def encode(self, value: float) -> float:
        """A number of the range as a sampler gets it."""
        return value

    def decode(self, value: float) -> float:
        """A number of the range as the model gets it."""
        if self.is_integer:
            return round(value)
        if self.step:
            return float(_exact(self.low) + round((value - self.low) / self.step) * _exact(self.step))
        return min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high))

    @property
    def _steps(self) -> int:
        return int((_exact(self.high) - _exact(self.low)) // _exact(self.step)) if self.step else 0


def _exact(number: float) -> Decimal:
    # As it is written: as floats, three steps of 0.1 end above 0.3.
    return Decimal(str(number))


def _dimension_kind(raw: Any) -> str | None:
    if isinstance(raw, list | tuple | Choice):
        return "choice"
    return "range" if isinstance(raw, dict | Range) else None


Dimension = Annotated[
    Annotated[Choice, Tag("choice")] | Annotated[Range, Tag("range")],
    Discriminator(
        _dimension_kind,
        custom_error_type="dimension",
        custom_error_message="A dimension is a list of choices, or a range with low and high",
    ),
]
Space = dict[str, Dimension]
"""What is searched, by hyperparameter; every engine translates it from here."""


def check_space(space: Space, model: Model) -> None:
    """Refuse a space that names what the model does not have, or offers what it does not accept.

    Raises:
        ConfigError: Naming the hyperparameter, and the nearest right one.
    """
    names = list(model.get_params())
    if not space:
        raise ConfigError("the space of the search is empty", hint=f"{model.KIND} has {', '.join(names)}")
    for name, dimension in space.items():
        if name not in names:
            raise ConfigError(
                f"space: {name} is not a hyperparameter of {model.KIND}{did_you_mean(name, names)}",
                hint=f"it has {', '.join(names)}",
            )
        for value in dimension.extremes:
            _require_accepted(model, name, value)


def default_params(space: Space, model: Model) -> Params:
    """What the model itself has where the space offers something else, as a journal can keep it."""
    own = model.model_dump(mode="json")
    return {name: own[name] for name in space}


def _require_accepted(model: Model, name: str, value: Any) -> None:
    try:
        model.with_params(**{name: value})
    except ValidationError as err:
        raise ConfigError(
            f"space.{name}: {model.KIND} does not accept {value!r}: {err.errors()[0]['msg']}",
            hint="a range is one of floats if low, high or step has a point",
        ) from err


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
