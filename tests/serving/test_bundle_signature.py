"""If a public key is configured, only bundles that were signed with its private key are loaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_name.errors import ConfigError, DataError
from model_name.serving.bundle import GRAPH_FILE, MANIFEST_FILE, Bundle, read_manifest, write_manifest
from model_name.serving.bundle_signature import (
    PUBLIC_KEY_ENV,
    SIGNATURE_FILE,
    SignatureVerifier,
    load_private_key,
    load_public_keys,
    make_verifier,
)
from tests.support.clients import post_v1
from tests.support.graphs import edit_manifest, shift_predictions
from tests.support.signing_keys import KeyPair, make_key_pair, sign

if TYPE_CHECKING:
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

PASSWORD = "hush-hush"


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    """Return a key pair."""
    return make_key_pair(tmp_path, "key")


@pytest.fixture
def directory(bundles: dict[str, Bundle], tmp_path: Path, key: KeyPair) -> Path:
    """Return a copy of a bundle that is signed with the key."""
    directory = Path(shutil.copytree(bundles["regression"].directory, tmp_path / "bundle"))
    sign(directory, key)
    return directory


def load(directory: Path, key: KeyPair) -> Bundle:
    return Bundle.load(directory, verifier=SignatureVerifier(key.public_file))


def test_signed_bundle_is_loaded(directory: Path, key: KeyPair) -> None:
    assert load(directory, key).manifest == Bundle.load(directory).manifest


def remove_signature(directory: Path) -> None:
    (directory / SIGNATURE_FILE).unlink()


def rewrite_manifest(directory: Path) -> None:
    (directory / MANIFEST_FILE).write_bytes((directory / MANIFEST_FILE).read_bytes() + b"\n")


def overwrite_signature(content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / SIGNATURE_FILE).write_bytes(content)


def link_signature_outside(directory: Path) -> None:
    (directory / SIGNATURE_FILE).rename(directory.parent / "signature")
    (directory / SIGNATURE_FILE).symlink_to("../signature")


INVALID = "bundle.json.sig: is not a signature of this manifest by a trusted key"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(remove_signature, "is not signed, bundle.json.sig is missing", id="unsigned"),
        pytest.param(lambda d: sign(d, make_key_pair(d.parent, "other")), INVALID, id="signed with another key"),
        pytest.param(rewrite_manifest, INVALID, id="a changed manifest"),
        pytest.param(lambda d: edit_manifest(d, version="8"), INVALID, id="another version"),
        pytest.param(lambda d: shift_predictions(d, 1000), INVALID, id="a changed graph with a fitting hash"),
        pytest.param(
            lambda d: (d / GRAPH_FILE).write_bytes(b"x"), "is not the file that the bundle was written with", id="graph"
        ),
        pytest.param(overwrite_signature(b""), INVALID, id="an empty signature"),
        pytest.param(overwrite_signature(b64encode(b"\0" * 64)), INVALID, id="a signature of zeros"),
        pytest.param(overwrite_signature(b"no Base64!"), INVALID, id="no Base64"),
        pytest.param(overwrite_signature(b"x" * 10_000), "has 10,000 bytes, more than 1,024", id="a large signature"),
        pytest.param(link_signature_outside, "is a link that leaves the folder", id="a signature elsewhere"),
    ],
)  # fmt: skip
def test_other_bundle_is_refused(directory: Path, key: KeyPair, change: Callable[[Path], object], reason: str) -> None:
    change(directory)
    with pytest.raises(DataError, match=reason):
        load(directory, key)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(position=st.integers(0), bit=st.integers(0, 7), of=st.sampled_from([MANIFEST_FILE, SIGNATURE_FILE]))
def test_signature_covers_every_bit(directory: Path, key: KeyPair, position: int, bit: int, of: str) -> None:
    content = bytearray((directory / of).read_bytes())
    manifest, signature = ((directory / name).read_bytes() for name in (MANIFEST_FILE, SIGNATURE_FILE))
    content[position % (len(content) - 1)] ^= 1 << bit  # the last byte is the line feed after the signature
    target = directory.parent / "changed"
    target.mkdir(exist_ok=True)
    (target / SIGNATURE_FILE).write_bytes(bytes(content) if of == SIGNATURE_FILE else signature)
    verifier = SignatureVerifier(key.public_file)
    with pytest.raises(DataError, match="is not a signature of this manifest by a trusted key"):
        verifier.verify(target, bytes(content) if of == MANIFEST_FILE else manifest)


def test_openssl_verifies_and_makes_signatures(directory: Path, key: KeyPair) -> None:
    # given a signature by OpenSSL
    command = ["openssl", "pkeyutl", "-sign", "-inkey", str(key.private_file), "-rawin"]
    signed = subprocess.run([*command, "-in", str(directory / MANIFEST_FILE)], capture_output=True, check=True).stdout
    # then it is the same
    assert (directory / SIGNATURE_FILE).read_bytes() == b64encode(signed) + b"\n"


def test_any_of_several_public_keys_is_accepted_and_a_new_one_without_a_restart(
    directory: Path, key: KeyPair, tmp_path: Path
) -> None:
    new = make_key_pair(tmp_path, "new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(key.public_file.read_bytes())
    verifier = SignatureVerifier(trusted)
    Bundle.load(directory, verifier=verifier)
    # when the new key is added
    trusted.write_bytes(b"# old\n" + key.public_file.read_bytes() + b"\n# new\n" + new.public_file.read_bytes())
    Bundle.load(directory, verifier=verifier)
    sign(directory, new)
    Bundle.load(directory, verifier=verifier)
    # when the new key is removed again
    trusted.write_bytes(key.public_file.read_bytes())
    with pytest.raises(DataError, match="by a trusted key"):
        Bundle.load(directory, verifier=verifier)


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def public_pem(key: KeyPair) -> bytes:
    return key.public_file.read_bytes()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda key: b"", id="an empty file"),
        pytest.param(lambda key: b"x" * 100, id="no PEM"),
        pytest.param(lambda key: key.private_file.read_bytes(), id="the private key"),
        pytest.param(lambda key: public_pem(key)[:-10], id="a truncated key"),
        pytest.param(lambda key: public_pem(key) + public_pem(key)[:50], id="a second key that is truncated"),
        pytest.param(
            lambda key: (
                public_pem(key)
                + rsa_key()
                .public_key()
                .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            ),
            id="a second key of another algorithm",
        ),
    ],
)
def test_file_without_public_keys_is_refused(key: KeyPair, make: Callable[[KeyPair], bytes]) -> None:
    content = make(key)
    key.public_file.write_bytes(content)
    with pytest.raises(ConfigError, match="does not consist of Ed25519 public keys in PEM"):
        load_public_keys(key.public_file)


def test_missing_file_of_public_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the public keys of bundles cannot be read: No such file"):
        load_public_keys(tmp_path / "nothing.pem")


def private_pem(key: KeyPair | rsa.RSAPrivateKey, password: str = "") -> bytes:
    private = key.private if isinstance(key, KeyPair) else key
    protection = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(
            lambda key: private_pem(key, PASSWORD), "is not an unencrypted private key in PEM", id="encrypted"
        ),
        pytest.param(lambda key: private_pem(rsa_key()), "is not an Ed25519 key", id="another algorithm"),
        pytest.param(public_pem, "is not an unencrypted private key in PEM", id="the public key"),
        pytest.param(lambda key: private_pem(key)[:-40], "is not an unencrypted private key", id="truncated"),
        pytest.param(lambda key: b"", "is not an unencrypted private key in PEM", id="empty"),
    ],
)
def test_unsuitable_private_key_is_refused_and_not_shown(
    key: KeyPair, make: Callable[[KeyPair], bytes], reason: str
) -> None:
    pem = make(key)
    with pytest.raises(ConfigError, match=f"KEY: {reason}") as caught:
        load_private_key(pem, "KEY")
    assert not any(line.decode() in str(caught.value) for line in pem.splitlines()[1:-1])


def test_private_key_is_loaded(key: KeyPair) -> None:
    assert load_private_key(private_pem(key), "KEY").sign(b"") == key.private.sign(b"")


def test_public_keys_come_from_the_option_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PUBLIC_KEY_ENV, raising=False)
    assert make_verifier("") is None
    monkeypatch.setenv(PUBLIC_KEY_ENV, "keys.pem")
    verifier, other = make_verifier(), make_verifier("other.pem")
    assert verifier is not None
    assert verifier.key_file == Path("keys.pem")
    assert other is not None
    assert other.key_file == Path("other.pem")


def test_written_manifest_has_no_signature_of_an_earlier_one(directory: Path) -> None:
    write_manifest(directory, read_manifest(directory))
    assert not (directory / SIGNATURE_FILE).exists()


# The server


def test_server_refuses_an_unsigned_bundle_at_start(
    bundles: dict[str, Bundle], key: KeyPair, serving_env: dict[str, str]
) -> None:
    directory = bundles["regression"].directory
    command = [sys.executable, "-m", "model_name.serving", "--bundle", str(directory)]
    environment = serving_env | {PUBLIC_KEY_ENV: str(key.public_file)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 4
    assert result.stderr.splitlines()[0] == f"error: {directory}: is not signed, bundle.json.sig is missing"


def test_server_keeps_the_old_bundle_until_a_signed_one_comes(
    directory: Path, key: KeyPair, start_server: StartServer, rows: list[Row]
) -> None:
    # given a server that requires a signature
    options = ("--bundle_public_key", str(key.public_file), "--watch_seconds", "0.1", "--drain_seconds", "0")
    server = start_server(directory, "regression", *options).wait()
    # when the bundle is replaced by an unsigned one
    write_manifest(directory, read_manifest(directory).model_copy(update={"version": "8"}))
    wait_for_log(server, "is refused, version 7 stays in service")
    # then the old one stays
    assert "is not signed, bundle.json.sig is missing" in server.output()
    assert post_v1(server, {"instances": rows}).headers["x-model-version"] == "7"
    # and when it is signed, it is served
    sign(directory, key)
    wait_for_log(server, "version 8 (1.2.3) replaced version 7")
    assert post_v1(server, {"instances": rows}).headers["x-model-version"] == "8"


def wait_for_log(server: Server, text: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while text not in server.output():
        assert time.monotonic() < deadline, server.output()
        time.sleep(0.05)


def test_server_without_a_public_key_does_not_import_cryptography(directory: Path, serving_env: dict[str, str]) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from model_name.serving.__main__ import load_plane\n"
        "load_plane(Path(sys.argv[1]), threads=1, verifier=None)\n"
        "print('cryptography' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=serving_env)
    assert result.stdout.split() == ["False"]
