"""Search spaces: a list of choices or a range for each hyperparameter."""

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
"""Point of a search space: values by hyperparameter."""

SIGNIFICANT_DIGITS = 14  # of a suggested float: 0.1 instead of 0.09999999999999999


def _check_number(raw: Any) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        raise ValueError(f"{raw!r} is not a finite number")
    return raw


Number = Annotated[StrictInt | StrictFloat, BeforeValidator(_check_number)]


class Choice(RootModel[LaxTuple[JsonValue]]):
    """Dimension of unordered choices; in a config, a plain list."""

    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="after")
    def _check_choices(self) -> Self:
        if not self.root:
            raise ValueError("the list of choices is empty")
        for position, value in enumerate(self.root):
            if self.encode(value) != position:
                raise ValueError(f"{value!r} is among the choices twice")
        return self

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that a model must accept in order to accept every value."""
        return self.root

    def grid(self, points: int) -> list[Any]:
        """List all choices; being unordered, none can be skipped."""
        return list(self.root)

    def contains(self, value: Any) -> bool:
        """Report whether a search could have suggested the value."""
        return any(_is_same(choice, value) for choice in self.root)

    def encode(self, value: Any) -> int:
        """Return the position of a value, because samplers confuse 1 with true and accept no lists as choices."""
        return next(position for position, choice in enumerate(self.root) if _is_same(choice, value))

    def decode(self, position: int) -> Any:
        """Return the value at a position."""
        return self.root[position]


class Range(FrozenModel):
    """Dimension of numbers between two bounds, both included; of integers if bounds and step are integers.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether the logarithm is sampled uniformly, rather than the value.
        step: Distance between neighbouring values, from `low`.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @model_validator(mode="after")
    def _check_range(self) -> Self:
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
        """Whether the values are integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 0))

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value; the latter is below `high` if no step meets it."""
        return self.decode(self.low), self.decode(self.low + self._steps * self.step if self.step else self.high)

    def grid(self, points: int) -> list[float]:
        """List at most `points` values, evenly spaced (by their logarithm for a `log` range), ends included."""
        if self.step is not None:
            counts = np.linspace(0, self._steps, points).round()
            values = self.low + counts * self.step
        else:
            values = (np.geomspace if self.log else np.linspace)(self.low, self.high, points)
        return list(dict.fromkeys(self.decode(value) for value in values))

    def contains(self, value: Any) -> bool:
        """Report whether a search could have suggested the value."""
        if isinstance(value, bool) or not isinstance(value, int if self.is_integer else int | float):
            return False
        if not self.low <= value <= self.extremes[1]:
            return False
        count = (value - self.low) / self.step if self.step else 0
        return math.isclose(count, round(count), abs_tol=1e-8)  # Optuna's own tolerance

    def encode(self, value: float) -> float:
        """Convert a value for a sampler."""
        return value

    def decode(self, value: float) -> float:
        """Convert a sampled value for the model."""
        if self.is_integer:
            return round(value)
        if self.step:
            return float(_exact(self.low) + round((value - self.low) / self.step) * _exact(self.step))
        return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), float(self.low)), float(self.high))

    @property
    def _steps(self) -> int:
        return int((_exact(self.high) - _exact(self.low)) // _exact(self.step)) if self.step else 0


def _exact(number: float) -> Decimal:
    # The decimal value as written: as floats, three steps of 0.1 end above 0.3.
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
"""Dimensions by hyperparameter; every search engine converts them to its own."""


def check_space(space: Space, model: Model) -> None:
    """Check that a model has all hyperparameters of a space and accepts their values.

    Raises:
        ConfigError: The space is empty, names an unknown hyperparameter, or holds a value that the model rejects.
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
            _check_accepted(model, name, value)


def default_params(space: Space, model: Model) -> Params:
    """Return the model's own values of the hyperparameters of a space, as JSON."""
    params = model.model_dump(mode="json")
    return {name: params[name] for name in space}


def _check_accepted(model: Model, name: str, value: Any) -> None:
    try:
        model.with_params(**{name: value})
    except ValidationError as err:
        raise ConfigError(
            f"space.{name}: {model.KIND} does not accept {value!r}: {err.errors()[0]['msg']}",
            hint="a range is one of floats if low, high or step has a point",
        ) from err


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
