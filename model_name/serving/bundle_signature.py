"""Signature of a bundle: Ed25519 over the bytes of its manifest, which has the hashes of all other files.

`cryptography` is imported only where a key is configured.
"""

import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from model_name.errors import ConfigError, DataError, DependencyError, NotFoundError
from model_name.serving.runtime.contained_files import read_contained_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_FILE = "bundle.json.sig"
PUBLIC_KEY_ENV = "MODEL_NAME_BUNDLE_PUBLIC_KEY_FILE"
KEY_HINT = (
    "make a pair: openssl genpkey -algorithm ed25519 -out private.pem; "
    "openssl pkey -in private.pem -pubout -out public.pem"
)
PEM_END = b"-----END PUBLIC KEY-----"
MAX_SIGNATURE_BYTES = 1024
MAX_KEY_FILE_BYTES = 2**20


class SignatureVerifier:
    """Verifies that manifests were signed with one of the trusted keys.

    The keys are read from their file for each bundle, so that a key is replaced without a restart: while both the old
    and the new one are in the file, bundles of both are accepted.
    """

    def __init__(self, key_file: Path) -> None:
        """Create a verifier.

        Args:
            key_file: File of one or several Ed25519 public keys in PEM.
        """
        self.key_file = key_file

    def verify(self, directory: Path, manifest: bytes) -> None:
        """Verify the signature beside a manifest.

        Args:
            directory: Directory of the bundle.
            manifest: Bytes of its manifest.

        Raises:
            ConfigError: The file of the keys cannot be read, or holds other keys.
            DataError: The bundle has no signature, or one of another key or manifest.
            DependencyError: The package `cryptography` is not installed.
        """
        keys = load_public_keys(self.key_file)
        path = directory / SIGNATURE_FILE
        try:
            text = read_contained_file(directory, SIGNATURE_FILE, max_bytes=MAX_SIGNATURE_BYTES)
        except NotFoundError as err:
            hint = "sign it: model-name bundle sign DIR"
            raise DataError(f"{directory}: is not signed, {SIGNATURE_FILE} is missing", hint=hint) from err
        if not any(_is_valid(key, text, manifest) for key in keys):
            hint = f"fetch the bundle again, or add the key that signed it to {self.key_file}"
            raise DataError(f"{path}: is not a signature of this manifest by a trusted key", hint=hint)


def make_verifier(key_file: str = "") -> SignatureVerifier | None:
    """Create the verifier of a file of public keys, by default that of the environment; None if neither is given."""
    key_file = key_file or os.environ.get(PUBLIC_KEY_ENV, "")
    return SignatureVerifier(Path(key_file)) if key_file else None


def write_signature(directory: Path, manifest: bytes, key: "Ed25519PrivateKey") -> None:
    """Write the signature of a manifest beside it: Base64 of the 64 bytes that Ed25519 defines."""
    temporary = directory / f"{SIGNATURE_FILE}.part"
    temporary.write_bytes(b64encode(key.sign(manifest)) + b"\n")
    temporary.replace(directory / SIGNATURE_FILE)


def load_private_key(pem: bytes, source: str) -> "Ed25519PrivateKey":
    """Load the key that signs bundles.

    Args:
        pem: Unencrypted key in PEM.
        source: Name of the file or variable that it comes from, for error messages, which never show the key.

    Raises:
        ConfigError: The text is not an Ed25519 private key.
        DependencyError: The package `cryptography` is not installed.
    """
    ed25519, serialization, exceptions = _import_cryptography()
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm) as err:  # TypeError: the key is encrypted
        raise ConfigError(f"{source}: is not an unencrypted private key in PEM", hint=KEY_HINT) from err
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{source}: is not an Ed25519 key", hint=KEY_HINT)
    return cast("Ed25519PrivateKey", key)


def load_public_keys(path: Path) -> "list[Ed25519PublicKey]":
    """Load the trusted keys.

    Raises:
        ConfigError: The file cannot be read, or holds something else than Ed25519 public keys in PEM.
        DependencyError: The package `cryptography` is not installed.
    """
    ed25519, serialization, exceptions = _import_cryptography()
    try:
        with path.open("rb") as file:
            text = file.read(MAX_KEY_FILE_BYTES)
    except OSError as err:
        raise ConfigError(f"{path}: the public keys of bundles cannot be read: {err.strerror}") from err
    *keys, rest = text.split(PEM_END)
    blocks = [*keys, rest] if b"-----BEGIN" in rest else keys
    try:
        loaded = [serialization.load_pem_public_key(block + PEM_END) for block in blocks]
    except (ValueError, exceptions.UnsupportedAlgorithm) as err:
        raise ConfigError(f"{path}: does not consist of Ed25519 public keys in PEM", hint=KEY_HINT) from err
    if not loaded or not all(isinstance(key, ed25519.Ed25519PublicKey) for key in loaded):
        raise ConfigError(f"{path}: does not consist of Ed25519 public keys in PEM", hint=KEY_HINT)
    return loaded


def _is_valid(key: "Ed25519PublicKey", text: bytes, manifest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(b64decode(text.strip(), validate=True), manifest)
    except (InvalidSignature, ValueError):  # ValueError: the text is not Base64
        return False
    return True


def _import_cryptography() -> tuple[Any, Any, Any]:
    """Import the modules of `cryptography` that load keys, and its exceptions.

    Raises:
        DependencyError: The package is not installed.
    """
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as err:
        raise DependencyError(f"signatures of bundles need the package cryptography: {err}") from err
    return ed25519, serialization, exceptions
