"""Model registry: versions of a model in MLflow, resolved by alias, number or semantic version."""

import inspect
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError  # nosec B403
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.pyfunc.model import PythonModel
from mlflow.tracking import MlflowClient
from mlflow.types import DataType
from typing_extensions import override

import model_name
from model_name.core.models import AutoModel, Model
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.core.versions import LATEST, Recipe, Semver, next_semver
from model_name.errors import DataError, NotFoundError

BUNDLE = "bundle"
MODEL = "model"
MODEL_META_FILE = "registered_model_meta"  # that MLflow adds to the model of a version when it downloads it

UNPICKLING_ERRORS = (UnpicklingError, EOFError, AttributeError, ImportError)
"""Errors of loading a pickle whose classes are missing or have changed."""

REQUIREMENTS = ("mlflow", "pandas", "pandera", "pydantic", "scikit-learn", "torch", "onnx", "loguru")


class Version(FrozenModel):
    """Registered version of a model.

    Attributes:
        name: Name of the registered model.
        version: Version number in MLflow.
        semver: Semantic version.
        run_id: Id of the training run.
        aliases: Current aliases.
        kind: KIND of the model.
        recipe: Hashes of the contract and of the settings of the model.
        created: Time of the registration, ISO 8601 in UTC.
    """

    name: str
    version: str
    semver: str
    run_id: str
    aliases: LaxTuple[str]
    kind: str
    recipe: Recipe
    created: str

    @property
    def title(self) -> str:
        """Name and versions for messages."""
        return f"{self.name} {self.semver} (version {self.version})"

    @property
    def uri(self) -> str:
        """URI of the model in MLflow."""
        return f"models:/{self.name}/{self.version}"


class PyfuncModel(PythonModel):
    """MLflow flavor of a model: predicts a frame and returns one with the column `prediction`."""

    def __init__(self, model: Model) -> None:
        """Wrap a fitted model."""
        self.model = model

    @override
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        return self.model.predict(model_input)


class Registry:
    """Registry of the versions of one model. Needs a started `MlflowService`.

    The registered model is created by the first `register`.
    """

    def __init__(self, name: str) -> None:
        """Create a client for the registered model of this name."""
        self.name = name
        self.client = MlflowClient()

    def save(self, model: Model, signature: ModelSignature, example: pd.DataFrame) -> str:
        """Save a fitted model into the open run and return its URI.

        The package is saved with the model, so that `mlflow models serve` does not need it installed.
        """
        info = mlflow.pyfunc.log_model(
            name=MODEL,
            python_model=PyfuncModel(model),
            signature=signature,
            input_example=_with_request_types(example, signature),
            code_paths=_code_paths(model),
            pip_requirements=[_pin_version(name) for name in REQUIREMENTS],
        )
        return str(info.model_uri)

    def register(
        self, model: Model, model_uri: str, run_id: str, tags: dict[str, str], export: tuple[Any, ...] = ()
    ) -> Version:
        """Register a saved model as the next version, with the semantic version that follows from its recipe."""
        recipe = Recipe.for_model(model, export)
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {"kind": model.KIND, "contract": recipe.contract, "recipe": recipe.model} | tags
        number = self.client.create_model_version(self.name, model_uri, run_id=run_id, tags=tags).version
        # The semantic version is set after the number: of two concurrent registrations, the later one sees the earlier.
        history = [(Semver.parse(version.semver), version.recipe) for version in self.versions()]
        self.client.set_model_version_tag(self.name, number, "semver", str(next_semver(history, recipe)))
        return self._version(self.client.get_model_version(self.name, number), {})

    def attach_file(self, model_uri: str, file: Path) -> None:
        """Store a file in the folder of a saved model, such as the manifest that identifies the version."""
        self.client.log_model_artifact(model_uri.removeprefix("models:/"), str(file))

    def hash_files(self, model_uri: str) -> dict[str, str]:
        """Download a saved model and compute the SHA-256 hashes of its files, by their path in its folder."""
        with tempfile.TemporaryDirectory(prefix="model-name-") as target:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=target))
            files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MODEL_META_FILE)
            return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}

    def delete_version(self, version: Version) -> None:
        """Delete a version whose registration failed halfway."""
        self.client.delete_model_version(self.name, version.version)

    def versions(self) -> list[Version]:
        """List the versions, newest first; versions that this project did not register are left out."""
        entries = self.client.search_model_versions(f"name = '{self.name}'")
        own = [entry for entry in entries if "semver" in entry.tags]
        # The search does not return aliases; the registered model does.
        aliases = self.client.get_registered_model(self.name).aliases if own else {}
        return sorted((self._version(entry, aliases) for entry in own), key=lambda version: -int(version.version))

    def resolve(self, ref: str) -> Version:
        """Return the version for an alias, a number, a semantic version or `latest`.

        Raises:
            NotFoundError: The registry holds no such version.
        """
        versions = self.versions()
        if not versions:
            raise NotFoundError(
                f"{self.name}: the registry holds no version of it", hint="train one: python -m pipelines run training"
            )
        for version in versions:
            if ref in (LATEST, version.version, version.semver) or ref in version.aliases:
                return version
        known = [*dict.fromkeys(alias for version in versions for alias in version.aliases), versions[0].semver]
        raise NotFoundError(
            f"{self.name}: no version is called {ref!r}", hint=f"try one of {', '.join(known)}, or a number"
        )

    def find_version(self, ref: str) -> Version | None:
        """Return the version for a reference, or None if it does not exist."""
        try:
            return self.resolve(ref)
        except NotFoundError:
            return None

    def load(self, ref: str) -> Model:
        """Load the fitted model of a version.

        Raises:
            NotFoundError: The version does not exist, or its files were deleted.
            DataError: The model was not saved by this project.
        """
        version = self.resolve(ref)
        return load_model(version.uri, version.title)[0]

    def download_bundle(self, ref: str, directory: Path | None = None) -> Path:
        """Download the bundle of a version and return its folder.

        Raises:
            NotFoundError: The version does not exist, or it has no bundle.
        """
        version = self.resolve(ref)
        return self.download_artifact(version, BUNDLE, directory)

    def download_model(self, ref: str, directory: Path | None = None) -> Path:
        """Download the model of a version and return its folder.

        Raises:
            NotFoundError: The version does not exist, or its files were deleted.
        """
        version = self.resolve(ref)
        target = str(directory) if directory else tempfile.mkdtemp(prefix="model-name-")
        try:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=target))
        except (MlflowException, OSError) as err:
            raise NotFoundError(f"{version.title} has no model: {err}") from err
        if not (folder / MLMODEL_FILE_NAME).is_file():  # MLflow accepts an empty folder
            raise NotFoundError(f"{version.title} has no model: its files are gone")
        return folder

    def download_artifact(self, version: Version, path: str, directory: Path | None = None) -> Path:
        """Download a file or folder of a version's run and return its local path.

        Raises:
            NotFoundError: The run holds no such artifact.
        """
        target = str(directory) if directory else tempfile.mkdtemp(prefix="model-name-")
        uri = f"runs:/{version.run_id}/{path}"
        try:
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=target))
        except (MlflowException, RestException, OSError) as err:
            raise NotFoundError(f"{version.title} has no {path}: {err}") from err

    def set_alias(self, alias: str, version: Version) -> None:
        """Move an alias to a version."""
        self.client.set_registered_model_alias(self.name, alias, version.version)

    def set_tags(self, version: Version, **tags: str) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, version.version, key, value)

    def get_tags(self, version: Version) -> dict[str, str]:
        """Return the tags of a version."""
        return dict(self.client.get_model_version(self.name, version.version).tags)

    def _version(self, entry: ModelVersion, aliases: Mapping[str, str]) -> Version:
        return Version(
            name=self.name,
            version=str(entry.version),
            semver=entry.tags["semver"],
            run_id=str(entry.run_id),
            aliases=tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(entry.version))),
            kind=entry.tags["kind"],
            recipe=Recipe(contract=entry.tags["contract"], model=entry.tags["recipe"]),
            created=pd.Timestamp(entry.creation_timestamp, unit="ms").isoformat(),
        )


def load_model(uri: str, title: str) -> tuple[Model, str]:
    """Load a saved model; return it with the id of its training run.

    Args:
        uri: MLflow URI or folder of the model.
        title: Name of the model for error messages.

    Raises:
        NotFoundError: The model is missing, damaged or needs other packages.
        DataError: The model was not saved by this project.
    """
    try:
        loaded = mlflow.pyfunc.load_model(uri)
        model = loaded.unwrap_python_model()
    except (MlflowException, OSError, *UNPICKLING_ERRORS) as err:
        is_of_other_release = isinstance(err, UNPICKLING_ERRORS) and "model_name" in str(err)
        hint = "another release of model-name registered it: train it again; its bundle can still be served"
        raise NotFoundError(f"{title} cannot be loaded from {uri}: {err}", hint=hint * is_of_other_release) from err
    if not isinstance(model, PyfuncModel):
        raise DataError(f"{title} is not a model of this project but {type(model).__name__}")
    return model.model, str(loaded.metadata.run_id)


def list_model_names() -> list[str]:
    """List the names of all registered models."""
    return sorted(model.name for model in MlflowClient().search_registered_models())


def _with_request_types(example: pd.DataFrame, signature: ModelSignature) -> pd.DataFrame:
    """Convert rows to the types of a request; a validated frame holds booleans as numbers."""
    booleans = [column.name for column in signature.inputs.inputs if column.type == DataType.boolean]
    return example.astype(dict.fromkeys(booleans, bool))


def _code_paths(model: Model) -> list[str]:
    """List the files to save with a model: this package, and the modules of plugins that define kinds of models."""
    members = model.get_internal_model() if isinstance(model, AutoModel) else []
    kinds = [type(each) for each in (model, *members)]
    plugin_files = {inspect.getfile(kind) for kind in kinds if not kind.__module__.startswith("model_name.")}
    return [str(Path(model_name.__file__).parent), *sorted(plugin_files)]


def _pin_version(package: str) -> str:
    from importlib.metadata import version

    # A local tag such as +cpu names a wheel that package indexes do not have.
    return f"{package}=={version(package).split('+')[0]}"
