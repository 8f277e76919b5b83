"""Commands `model-name bundle ...`. Heavy packages are imported inside the command that needs them."""

from pathlib import Path
from typing import Annotated

import typer

from model_name.cli.options import AsJson

app = typer.Typer(name="bundle", help="Sign bundles and verify them as a server does.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the bundle, or of a registered model.")]


@app.command("sign")
def sign_bundle(
    directory: Folder,
    key: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Ed25519 private key in PEM; by default the one of MODEL_NAME_BUNDLE_PRIVATE_KEY_FILE "
            "or MODEL_NAME_BUNDLE_PRIVATE_KEY.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Verify the hashes of a bundle and sign its manifest."""
    from model_name.io.console import print_result
    from model_name.serving.bundle import read_bundle
    from model_name.serving.bundle_signature import SIGNATURE_FILE, write_signature
    from model_name.training.signing import load_signing_key

    private_key = load_signing_key(key)
    contents = read_bundle(directory, required=None)
    write_signature(directory, contents.text, private_key)
    document = {"signature": str(directory / SIGNATURE_FILE), "files": len(contents.files)}
    print_result(f"{contents.manifest.name} {contents.manifest.semver} is signed", document, as_json=as_json)


@app.command("verify")
def verify_bundle(
    directory: Folder,
    public_key: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Ed25519 public keys in PEM; by default those of MODEL_NAME_BUNDLE_PUBLIC_KEY_FILE. "
            "Without them only the hashes are verified.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Verify the hashes of a bundle, and its signature if public keys are given; exit with 4 if they do not fit."""
    from model_name.io.console import print_result
    from model_name.serving.bundle import read_bundle
    from model_name.serving.bundle_signature import make_verifier

    verifier = make_verifier(public_key)
    contents = read_bundle(directory, verifier, required=None)
    document = {"files": len(contents.files), "signature": "valid" if verifier else "not verified"}
    print_result(f"{contents.manifest.name} {contents.manifest.semver} is unchanged", document, as_json=as_json)
