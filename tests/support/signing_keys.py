"""Ed25519 keys for signed bundles."""

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_name.serving.bundle import read_bundle
from model_name.serving.bundle_signature import write_signature


class KeyPair(NamedTuple):
    """Private key, and the files of both keys in PEM."""

    private: Ed25519PrivateKey
    private_file: Path
    public_file: Path


def make_key_pair(folder: Path, name: str) -> KeyPair:
    """Generate a key pair and write both keys to files."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    return KeyPair(key, private, public)


def sign(directory: Path, key: KeyPair) -> None:
    """Sign the bundle or the model of a directory."""
    write_signature(directory, read_bundle(directory, required=None).text, key.private)
