"""Lookup of model kinds by name, and construction of models from their configuration; kinds of plugins included."""

from collections.abc import Mapping
from inspect import get_annotations
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from model_name.core.models.model import Model
from model_name.core.schemas.strict_models import did_you_mean


def model_kinds() -> dict[str, type[Model]]:
    """Return the imported kinds of models by KIND, those of plugins included."""
    kinds: dict[str, type[Model]] = {}
    stack = list(Model.__subclasses__())
    while stack:
        kind = stack.pop()
        stack += kind.__subclasses__()
        # A subclass without a KIND of its own must not replace its parent.
        has_own_kind = "KIND" in get_annotations(kind)
        if has_own_kind and isinstance(default := kind.model_fields["KIND"].default, str):
            kinds[default] = kind
    return dict(sorted(kinds.items()))


def build_model(raw: Any) -> Any:
    """Build a model from its configuration; return anything but a dict unchanged, for pydantic to validate.

    Raises:
        ValueError: The KIND is unknown or abstract, or a hyperparameter is invalid.
    """
    if not isinstance(raw, dict):
        return raw
    kinds = model_kinds()
    kind = kinds.get(str(raw.get("KIND")))
    if kind is None:
        raise ValueError(f"{raw.get('KIND')} is not a kind of model{did_you_mean(str(raw.get('KIND')), list(kinds))}")
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        raise ValueError(f"{raw['KIND']} is not a whole kind of model: it does not define {', '.join(missing)}")
    try:
        return kind.model_validate(raw)
    except ValidationError as err:  # a ValidationError raised inside a validator would print as a whole report
        raise ValueError("; ".join(format_validation_error(details) for details in err.errors())) from err


def format_validation_error(details: Mapping[str, Any]) -> str:
    """Format one error of pydantic as a line."""
    path = ".".join(str(key) for key in details["loc"])
    return f"{path}: {details['msg']}".removeprefix(": ").replace("Value error, ", "")


ModelConfig = SerializeAsAny[Annotated[Model, BeforeValidator(build_model)]]
