"""Open the model registry for a command."""

from typing import TYPE_CHECKING

from model_name.errors import ConfigError

if TYPE_CHECKING:
    from model_name.io.registries import Registry


def open_registry(name: str, mlflow_uri: str) -> "Registry":
    """Open the registry of a model; without a name, that of the only model.

    Raises:
        ConfigError: Several models exist and none is named.
        NotFoundError: The named model does not exist, or the store is empty.
    """
    registries = open_registries(name, mlflow_uri)
    if len(registries) > 1:
        known = ", ".join(registry.name for registry in registries)
        raise ConfigError(f"there are several models: {known}", hint=f"name one, e.g. --name {registries[0].name}")
    return registries[0]


def open_registries(name: str, mlflow_uri: str) -> "list[Registry]":
    """Open the registry of a model; without a name, the registries of all models.

    Raises:
        NotFoundError: The named model does not exist, or the store is empty.
    """
    from model_name.core.schemas.strict_models import did_you_mean
    from model_name.errors import NotFoundError
    from model_name.io.osvariables import env
    from model_name.io.registries import Registry, list_model_names
    from model_name.io.services import LoggerService, MlflowService

    LoggerService().start()
    uri = env().mlflow_tracking_uri or mlflow_uri
    MlflowService(tracking_uri=uri, registry_uri=env().mlflow_registry_uri).start()
    known = list_model_names()
    if not known:
        hint = "train a model: python -m pipelines run training --confs DIR"
        raise NotFoundError(f"the registry at {uri} is empty", hint=hint)
    if name and name not in known:
        raise NotFoundError(f"no model is called {name!r}{did_you_mean(name, known)}")
    return [Registry(model) for model in ([name] if name else known)]
