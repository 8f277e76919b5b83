"""Identifiers of a served model that go into HTTP headers, gRPC metadata, metric labels and folder names."""

import re
from typing import Annotated

from pydantic import AfterValidator

from model_name.errors import ConfigError

MAX_NAME_CHARACTERS = 256  # as in MLflow
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}")
IDENTIFIER_RULE = "letters, digits and ._:+-, beginning with a letter or digit, at most 128 characters"
NAME_RULE = f"printable characters, without spaces at the ends, at most {MAX_NAME_CHARACTERS} characters"
SHOWN_CHARACTERS = 60  # of an invalid value


def check_identifier(value: str) -> str:
    """Check a version, a semantic version, a run id or a slot.

    These are sent as headers and name folders of the prediction log. Version numbers and run ids of MLflow, semantic
    versions with pre-release and build, dates and commit ids satisfy the rule.

    Raises:
        ValueError: The value has other characters, or is empty or too long.
    """
    if IDENTIFIER.fullmatch(value) is None:
        raise ValueError(f"{_shorten(value)} is not an identifier: {IDENTIFIER_RULE}")
    return value


def check_optional_identifier(value: str) -> str:
    """Check a slot or another identifier that may be empty.

    Raises:
        ValueError: The value is neither empty nor an identifier.
    """
    return value and check_identifier(value)


def check_model_name(value: str) -> str:
    """Check the name of a model.

    It goes into paths and headers percent-encoded, and into JSON, protobuf and metric labels as it is. So it may have
    spaces, slashes and any letters, but no control characters, as the names of MLflow and of `job.name`.

    Raises:
        ValueError: The name has a character that cannot be printed, or is empty or too long.
    """
    if not value or len(value) > MAX_NAME_CHARACTERS or not value.isprintable() or value != value.strip():
        raise ValueError(f"{_shorten(value)} is not a name of a model: {NAME_RULE}")
    return value


Identifier = Annotated[str, AfterValidator(check_identifier)]
"""Text that is valid as a header value and as the name of a folder, see `check_identifier`."""
OptionalIdentifier = Annotated[str, AfterValidator(check_optional_identifier)]
"""Identifier, or the empty text."""
ModelName = Annotated[str, AfterValidator(check_model_name)]
"""Name of a model, see `check_model_name`."""


def check_option(option: str, value: str, *, is_name: bool = False) -> None:
    """Check the identifier or the name of a model in an option; an empty one counts as not given.

    Raises:
        ConfigError: The value is invalid.
    """
    try:
        (check_model_name if is_name and value else check_optional_identifier)(value)
    except ValueError as err:
        raise ConfigError(f"{option}: {err}", hint="name another") from err


def _shorten(value: str) -> str:
    return repr(value[:SHOWN_CHARACTERS]) + "..." * (len(value) > SHOWN_CHARACTERS)
