"""Key that signs bundles: from the environment, never from a config."""

from pathlib import Path
from typing import TYPE_CHECKING

from model_name.errors import ConfigError
from model_name.io.osvariables import env
from model_name.serving.bundle_signature import KEY_HINT, load_private_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_VARIABLE = "MODEL_NAME_BUNDLE_PRIVATE_KEY"
KEY_FILE_VARIABLE = f"{KEY_VARIABLE}_FILE"


def load_signing_key(key_file: str = "") -> "Ed25519PrivateKey":
    """Load the private key.

    Args:
        key_file: File of the key in PEM; by default the one that the environment names, or the key in the environment.

    Raises:
        ConfigError: The key is missing, or it is not an unencrypted Ed25519 key in PEM.
        DependencyError: The package `cryptography` is not installed.
    """
    variables = env()
    key_file = key_file or variables.model_name_bundle_private_key_file or ""
    if key_file:
        try:
            return load_private_key(Path(key_file).read_bytes(), key_file)
        except OSError as err:
            raise ConfigError(f"{key_file}: the key that signs bundles cannot be read: {err.strerror}") from err
    if variables.model_name_bundle_private_key is None:
        hint = f"set {KEY_FILE_VARIABLE} to its file; {KEY_HINT}"
        raise ConfigError("there is no key that signs bundles", hint=hint)
    return load_private_key(variables.model_name_bundle_private_key.get_secret_value().encode(), KEY_VARIABLE)
