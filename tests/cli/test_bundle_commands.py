"""Commands that sign and verify bundles."""

import json
import shutil

import pytest

from model_name.cli.main import main
from model_name.io.osvariables import env
from model_name.serving.bundle_signature import PUBLIC_KEY_ENV, SIGNATURE_FILE
from tests.support.bundles import bundle_of
from tests.support.signing_keys import make_key_pair

__all__ = ["bundle_of"]


@pytest.fixture
def directory(bundle_of, workplace):
    """Return a copy of a bundle."""
    return shutil.copytree(bundle_of("regression"), workplace / "bundle")


@pytest.fixture
def key(workplace):
    """Return a key pair."""
    return make_key_pair(workplace, "key")


def test_bundle_is_signed_and_verified(directory, key, capfd, monkeypatch):
    # given an unsigned bundle
    assert main(["bundle", "verify", str(directory), "--public-key", str(key.public_file)]) == 4
    assert "is not signed, bundle.json.sig is missing" in capfd.readouterr().err
    # when it is signed
    assert main(["bundle", "sign", str(directory), "--key", str(key.private_file), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"signature": str(directory / SIGNATURE_FILE), "files": 1}
    # then the signature is valid, whether the keys come from an option or from the environment
    assert main(["bundle", "verify", str(directory), "--public-key", str(key.public_file), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"files": 1, "signature": "valid"}
    monkeypatch.setenv(PUBLIC_KEY_ENV, str(key.public_file))
    assert main(["bundle", "verify", str(directory)]) == 0
    # and of another bundle it is not
    (directory / "model.onnx").write_bytes(b"another graph")
    assert main(["bundle", "verify", str(directory)]) == 4
    assert "is not the file that the bundle was written with" in capfd.readouterr().err


def test_hashes_alone_are_verified_without_a_key(directory, capfd):
    assert main(["bundle", "verify", str(directory), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"files": 1, "signature": "not verified"}


def test_key_may_come_from_the_environment(directory, key, monkeypatch):
    monkeypatch.setenv("MODEL_NAME_BUNDLE_PRIVATE_KEY_FILE", str(key.private_file))
    env.cache_clear()
    assert main(["bundle", "sign", str(directory)]) == 0
    assert (directory / SIGNATURE_FILE).exists()


def test_missing_key_and_missing_bundle_are_refused(directory, key, workplace, capfd):
    assert main(["bundle", "sign", str(directory)]) == 2
    assert "there is no key that signs bundles" in capfd.readouterr().err
    assert main(["bundle", "sign", str(workplace / "nothing"), "--key", str(key.private_file)]) == 4
    assert "is not a bundle, bundle.json is missing" in capfd.readouterr().err
