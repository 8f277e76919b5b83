"""From a config to a model, by its KIND; kinds of plugins count."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from model_name.core.models.model import Model, model_kinds
from model_name.core.schemas.strict_models import did_you_mean


def build_model(raw: Any) -> Any:
    """The model of a config; anything but a plain config is handed back for pydantic to judge.

    Raises:
        ValueError: Its KIND or a hyperparameter is wrong.
    """
    if not isinstance(raw, dict):
        return raw
    kinds = model_kinds()
    kind = kinds.get(str(raw.get("KIND")))
    if kind is None:
        raise ValueError(f"{raw.get('KIND')} is not a kind of model{did_you_mean(str(raw.get('KIND')), list(kinds))}")
    if lacking := sorted(getattr(kind, "__abstractmethods__", ())):
        raise ValueError(f"{raw['KIND']} is not a whole kind of model: it does not define {', '.join(lacking)}")
    try:
        return kind.model_validate(raw)
    except ValidationError as err:  # a validator inside a validator would print its whole report
        raise ValueError("; ".join(sentence(found) for found in err.errors())) from err


def sentence(found: Mapping[str, Any]) -> str:
    """One finding of pydantic in a line."""
    place = ".".join(str(key) for key in found["loc"])
    return f"{place}: {found['msg']}".removeprefix(": ").replace("Value error, ", "")


ModelConfig = SerializeAsAny[Annotated[Model, BeforeValidator(build_model)]]
