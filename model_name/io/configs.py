"""Config files: parsing, merging (defaults < files < --set < environment) and error messages."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from typing_extensions import override

from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError
from model_name.io import storage

Config = DictConfig | ListConfig
M = TypeVar("M", bound=BaseModel)

SHARED_FILE = "project.yaml"
"""Name of the file with the settings that the jobs of a folder share; merged before the files beside it."""

OVERRIDE_ORIGIN = "--set or the environment"
MISSING = object()

ENVIRONMENT_PREFIX = "MODEL_NAME__"


class Loader(yaml.SafeLoader):
    """YAML loader that reads `1e-3` as a number and a date as text, and rejects duplicate keys."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        duplicate = next((key for position, key in enumerate(keys) if key in keys[:position]), None)
        if duplicate is not None:
            raise yaml.constructor.ConstructorError(problem=f"{duplicate} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?([0-9]+\.?|[0-9]*\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+0123456789.")
)


def parse_file(path: str | Path) -> Config:
    """Parse a YAML or JSON file, local or behind any fsspec URL.

    Raises:
        ConfigError: The file is missing, unreadable or not YAML.
    """
    if not str(path).endswith((".yaml", ".yml", ".json")):
        raise ConfigError(f"{path}: a config is a .yaml, .yml or .json file")
    try:
        with storage.open_file(str(path), "rt", encoding="utf-8") as file:
            text = file.read()
    except storage.OPEN_ERRORS as err:
        raise ConfigError(f"{path}: cannot be read: {err}", hint="check the path") from err
    return parse_string(text, origin=str(path))


def parse_string(text: str, *, origin: str = "the config string") -> Config:
    """Parse YAML from a string.

    Raises:
        ConfigError: The text is not YAML, or neither a mapping nor a list.
    """
    try:
        raw = yaml.load(text, Loader=Loader)  # noqa: S506  a SafeLoader  # nosec B506
        if raw is not None and not isinstance(raw, dict | list):
            raise ConfigError(f"{origin}: is neither a mapping nor a list")
        config: Config = OmegaConf.create({} if raw is None else raw)
    except (yaml.YAMLError, OmegaConfBaseException) as err:
        raise ConfigError(f"{origin}: is not a mapping in YAML: {err}") from err
    return config


def merge_configs(configs: Sequence[Config]) -> Config:
    """Merge configs; later ones take precedence.

    Raises:
        ConfigError: No config is given, or a list would be merged with a mapping.
    """
    if not configs:
        raise ConfigError("there is no config to merge", hint="name at least one config file")
    try:
        merged = OmegaConf.merge(*configs)
    except (OmegaConfBaseException, ValueError, TypeError) as err:
        raise ConfigError(f"the configs do not merge: {err}") from err
    if not isinstance(merged, DictConfig | ListConfig):
        raise ConfigError("the configs merge to neither a mapping nor a list")
    return merged


def to_object(config: Config, *, resolve: bool = True) -> Any:
    """Convert a config to plain dicts and lists, with interpolations resolved.

    Raises:
        ConfigError: An interpolation refers to a missing key.
    """
    try:
        return OmegaConf.to_container(config, resolve=resolve, throw_on_missing=True)
    except OmegaConfBaseException as err:
        raise ConfigError(f"the config cannot be resolved: {err}") from err


def load(
    files: Sequence[str | Path], sets: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Load the config of one job: merge files, `--set` pairs and environment, and insert the schema.

    Args:
        files: Config files; later ones take precedence. The `project.yaml` beside a file is merged before it.
        sets: Overrides `dotted.path=value` with values in YAML.
        environment: Environment variables, by default those of the process; `MODEL_NAME__JOB__SEED=1` sets `job.seed`.

    Raises:
        ConfigError: A file, an override or a variable is invalid.
    """
    all_files = with_shared_files([str(file) for file in files])
    configs = [parse_file(file) for file in all_files]
    variables = os.environ if environment is None else environment
    pairs = [*map(parse_override, sets), *environment_overrides(variables)]
    merged = merge_configs([*configs, *pairs])
    if not isinstance(merged, DictConfig):
        raise ConfigError(f"{', '.join(all_files)}: a list where a mapping with `job:` belongs")
    config: dict[str, Any] = to_object(merged)
    return attach_schema(config)


def with_shared_files(files: Sequence[str]) -> list[str]:
    """Insert before each file the `project.yaml` beside it, without duplicates."""
    all_files: list[str] = []
    for file in files:
        parent, slash, name = file.rpartition("/")
        shared = f"{parent}{slash}{SHARED_FILE}"
        if name != SHARED_FILE and exists(shared):
            all_files.append(shared)
        all_files.append(file)
    return list(dict.fromkeys(all_files))


def exists(path: str) -> bool:
    """Return whether a config file exists, local or behind an fsspec URL.

    Raises:
        ConfigError: The storage cannot be accessed.
    """
    try:
        return storage.exists(path)
    except storage.OPEN_ERRORS as err:
        raise ConfigError(f"{path}: cannot be read: {err}", hint="check the path") from err


def attach_schema(config: dict[str, Any]) -> dict[str, Any]:
    """Replace the path in `job.schema` by the content of that file, so that the config is self-contained.

    Raises:
        ConfigError: The file is missing or invalid.
    """
    job = config.get("job")
    if isinstance(job, dict) and isinstance(job.get("schema"), str):
        return config | {
            "job": job
            | {"schema": load_document(job["schema"], TableSchema).model_dump(mode="json", exclude_defaults=True)}
        }
    return config


def load_document(path: str, kind: type[M]) -> M:
    """Load a typed document, such as a table schema, from a file.

    Raises:
        ConfigError: The file is missing, or its content does not validate.
    """
    raw = to_object(parse_file(path))
    try:
        return kind.model_validate(raw)
    except ValidationError as err:
        raise explain(err, raw, [path]) from err


def parse_override(pair: str) -> Config:
    """Parse `a.b=value` into a config.

    Raises:
        ConfigError: The override has no `=`, or its value is not YAML.
    """
    path, equals, value = pair.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {pair}: is not of the form a.b=value", hint="e.g. --set job.seed=7")
    return unflatten(path.strip().split("."), value, origin=f"--set {pair}")


def environment_overrides(environment: Mapping[str, str]) -> list[Config]:
    """Parse overrides from variables: `MODEL_NAME__JOB__SEED=7` is `job.seed=7`. Keys are lower-cased except KIND."""
    return [
        unflatten(
            [key if key == "KIND" else key.lower() for key in name.removeprefix(ENVIRONMENT_PREFIX).split("__")],
            value,
            origin=name,
        )
        for name, value in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX)
    ]


def unflatten(keys: Sequence[str], text: str, *, origin: str) -> Config:
    """Parse a YAML value and wrap it into the mappings of its path."""
    try:
        value = yaml.load(text, Loader=Loader)  # noqa: S506  a SafeLoader  # nosec B506
        for key in reversed(keys):
            value = {key: value}
        return OmegaConf.create(value)
    except (yaml.YAMLError, OmegaConfBaseException) as err:
        raise ConfigError(f"{origin}: the value is not YAML: {err}") from err


def explain(error: ValidationError, raw: Any, files: Sequence[str], *, within: str = "") -> ConfigError:
    """Turn a failed validation into an error that names file, dotted path, bad value and what is allowed.

    Args:
        error: Error that pydantic raised.
        raw: Plain config that pydantic validated.
        files: Files of the config; later ones take precedence.
        within: Key of the config whose value pydantic validated; empty for the whole config.
    """
    outer = (within,) if within else ()
    sentences = []
    for details in error.errors():
        path, value = resolve_location((*outer, *details["loc"]), raw)
        message = details["msg"].removeprefix("Value error, ")
        is_leaf = details["type"] != "missing" and not isinstance(value, dict | list)
        wrong_key, _, is_key = message.partition(" is not a key of ")
        if is_key:
            origin = find_origin([*path, wrong_key], files, is_written=True)
        else:
            origin = find_origin(path, files, value if is_leaf else None, is_written=is_leaf)
        names_value = repr(value) in message or str(value) in message.split()
        where = f"{origin}: {'.'.join(path) or 'config'}"
        sentences.append(f"{where}: {message}" + (f", not {value!r}" if is_leaf and not names_value else ""))
    return ConfigError("\n".join(dict.fromkeys(sentences)), hint="`model-name schema KIND` lists the keys of a KIND")


def resolve_location(loc: tuple[int | str, ...], raw: Any) -> tuple[list[str], Any]:
    """Return the dotted path of pydantic's location, without the tags of unions, and the value there."""
    path: list[str] = []
    value = raw
    for position, key in enumerate(loc):
        known = key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))
        if known:
            value = value[key]
        elif position < len(loc) - 1 or not isinstance(value, dict) or value.get("KIND") == key:
            continue  # tag of a union
        else:
            value = None
        path.append(str(key))
    return path, value


def find_origin(path: Sequence[str], files: Sequence[str], value: Any = None, *, is_written: bool = False) -> str:
    """Find the file that sets a key.

    Args:
        path: Path of the key.
        files: Config files; later ones take precedence.
        value: Merged value of the key, if it is a scalar.
        is_written: Whether the key was set. A set key that is in no file comes from an override; a missing key is
            attributed to the file that holds its nearest parent.
    """
    configs = {file: to_object(parse_file(file), resolve=False) for file in files}
    setters = [file for file in files if _lookup(configs[file], path) is not MISSING]
    if setters and (value is None or _lookup(configs[setters[-1]], path) == value):
        return setters[-1]
    if is_written and files:
        return OVERRIDE_ORIGIN
    for length in range(len(path) - 1, 0, -1):
        for file in reversed(files):
            if _lookup(configs[file], path[:length]) is not MISSING:
                return file
    return ", ".join(files) or "the config"


def _lookup(raw: Any, path: Sequence[str]) -> Any:
    for key in path:
        if isinstance(raw, list) and key.isdecimal() and int(key) < len(raw):
            raw = raw[int(key)]
        elif isinstance(raw, dict) and key in raw:
            raw = raw[key]
        else:
            return MISSING
    return raw
