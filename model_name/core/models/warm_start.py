"""Whether a fit can begin from what an earlier model has learnt."""

from typing import ClassVar, Protocol

from model_name.core.features.transforms import Feature, Features
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError

AFRESH = "or train afresh: leave warm_start out"


class Learner(Protocol):
    """What is asked of a model here."""

    KIND: str
    can_warm_start: ClassVar[bool]
    architecture: ClassVar[tuple[str, ...]]

    @property
    def schema_(self) -> TableSchema:
        """The schema of the table that it was fitted on."""

    @property
    def features(self) -> Features:
        """The features that it was fitted on."""


def require_transferable(model: Learner, earlier: Learner, schema: TableSchema, features: Features) -> None:
    """See that what an earlier model has learnt means the same in this one.

    Args:
        model: Unfitted.
        earlier: Fitted.
        schema: Of the table to fit on.
        features: Of that table.

    Raises:
        ConfigError: The kind cannot begin from another, or the two differ in their kind, a hyperparameter of their
            `architecture`, the target or a feature; the first difference is named.
    """
    if not model.can_warm_start:
        raise ConfigError(
            f"{model.KIND} cannot begin from an earlier version: it is fitted as a whole",
            hint="leave warm_start out, or choose a kind that is fitted in steps, such as TabularNetwork",
        )
    if earlier.KIND != model.KIND:
        raise ConfigError(
            f"a {model.KIND} cannot begin from a {earlier.KIND}", hint=f"name a version of its kind, {AFRESH}"
        )
    for name in model.architecture:
        mine, theirs = getattr(model, name), getattr(earlier, name)
        if mine != theirs:
            raise ConfigError(
                f"{model.KIND}: {name} is {mine}, but {theirs} in the version to begin from",
                hint=f"set job.model.{name} to {theirs}, {AFRESH}",
            )
    for name in ("name", "task", "classes"):
        mine, theirs = getattr(schema.target, name), getattr(earlier.schema_.target, name)
        if mine != theirs:
            raise ConfigError(
                f"the {name} of the target: {mine} here, {theirs} in the version to begin from",
                hint=f"name a version of the same target, {AFRESH}",
            )
    _require_equal(features.columns, earlier.features.columns)


def _require_equal(mine: tuple[Feature, ...], theirs: tuple[Feature, ...]) -> None:
    for one, other in zip(mine, theirs, strict=False):
        if one.name != other.name:
            raise _differing(f"the feature {one.name} is {other.name} in the version to begin from")
        if one.kind != other.kind:
            raise _differing(f"{one.name} is a {one.kind} here, a {other.kind} in the version to begin from")
        if one.values != other.values:
            strange = next(iter(sorted({*one.values} ^ {*other.values})), "their order")
            raise ConfigError(
                f"{one.source}: its categories differ from those of the version to begin from: {strange!r}",
                hint=f"list them in the schema as they were then (columns.{one.source}.values), {AFRESH}",
            )
    if len(mine) != len(theirs):
        longer, holder = (mine, "this table") if len(mine) > len(theirs) else (theirs, "the version to begin from")
        raise _differing(f"only {holder} has the feature {longer[min(len(mine), len(theirs))].name}")


def _differing(message: str) -> ConfigError:
    return ConfigError(message, hint=f"bring the inputs of then, {AFRESH}")
