"""Check whether a fit can start from the weights of an earlier model."""

from typing import ClassVar, Protocol

from model_name.core.features import Feature, Features
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError

RETRAIN_HINT = "or train afresh: leave warm_start out"


class WarmStartable(Protocol):
    """Attributes of a model that the check needs."""

    KIND: str
    can_warm_start: ClassVar[bool]
    architecture: ClassVar[tuple[str, ...]]

    @property
    def schema_(self) -> TableSchema:
        """Schema of the table that the model was fitted on."""

    @property
    def features(self) -> Features:
        """Features that the model was fitted on."""


def check_transferable(model: WarmStartable, earlier: WarmStartable, schema: TableSchema, features: Features) -> None:
    """Check that the weights of an earlier model have the same meaning in a new one.

    Args:
        model: Unfitted model.
        earlier: Fitted model.
        schema: Schema of the table to fit on.
        features: Features of that table.

    Raises:
        ConfigError: The kind does not support a warm start, or the models differ in their kind, a hyperparameter of
            their `architecture`, the target or a feature; the message names the first difference.
    """
    if not model.can_warm_start:
        raise ConfigError(
            f"{model.KIND} cannot begin from an earlier version: it is fitted as a whole",
            hint="leave warm_start out, or choose a kind that is fitted in steps, such as TabularNetwork",
        )
    if earlier.KIND != model.KIND:
        raise ConfigError(
            f"a {model.KIND} cannot begin from a {earlier.KIND}", hint=f"name a version of its kind, {RETRAIN_HINT}"
        )
    for name in model.architecture:
        new, old = getattr(model, name), getattr(earlier, name)
        if new != old:
            raise ConfigError(
                f"{model.KIND}: {name} is {new}, but {old} in the version to begin from",
                hint=f"set job.model.{name} to {old}, {RETRAIN_HINT}",
            )
    for name in ("name", "task", "classes"):
        new, old = getattr(schema.target, name), getattr(earlier.schema_.target, name)
        if new != old:
            raise ConfigError(
                f"the {name} of the target: {new} here, {old} in the version to begin from",
                hint=f"name a version of the same target, {RETRAIN_HINT}",
            )
    _check_same_features(features.columns, earlier.features.columns)


def _check_same_features(new: tuple[Feature, ...], old: tuple[Feature, ...]) -> None:
    for feature, other in zip(new, old, strict=False):
        if feature.name != other.name:
            raise _feature_mismatch(f"the feature {feature.name} is {other.name} in the version to begin from")
        if feature.kind != other.kind:
            raise _feature_mismatch(
                f"{feature.name} is a {feature.kind} here, a {other.kind} in the version to begin from"
            )
        if feature.values != other.values:
            difference = next(iter(sorted({*feature.values} ^ {*other.values})), "their order")
            raise ConfigError(
                f"{feature.source}: its categories differ from those of the version to begin from: {difference!r}",
                hint=f"list them in the schema as they were then (columns.{feature.source}.values), {RETRAIN_HINT}",
            )
    if len(new) != len(old):
        longer, owner = (new, "this table") if len(new) > len(old) else (old, "the version to begin from")
        raise _feature_mismatch(f"only {owner} has the feature {longer[min(len(new), len(old))].name}")


def _feature_mismatch(message: str) -> ConfigError:
    return ConfigError(message, hint=f"bring the inputs of then, {RETRAIN_HINT}")
