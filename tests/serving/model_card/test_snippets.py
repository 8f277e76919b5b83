"""The code snippets of the model card work as they are shown."""

import json
import shlex
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from model_name.serving.bundle import Bundle, Manifest
from model_name.serving.model_card.snippets import SERVER, CodeSnippet, code_snippets
from tests.support.manifests import manifest_of, plane_of, table_of

if TYPE_CHECKING:
    from tests.support.server_processes import StartServer

HOSTILE = """it's "quoted" $HOME `id` \\ </script> größe"""


def curl(snippet: CodeSnippet) -> tuple[str, list[str], Any]:
    """Parse a curl command as a shell does: URL, headers, body."""
    args = shlex.split(snippet.code.replace("\\\n", ""))
    assert args[:2] == ["curl", "-s"]
    headers = [value for flag, value in pairwise(args) if flag == "-H"]
    return args[2], headers, json.loads(args[args.index("-d") + 1])


@pytest.fixture(params=[pytest.param("heating", id="plain"), pytest.param(HOSTILE, id="hostile")])
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Return a manifest with a column whose name is also one of its categories."""
    name = request.param
    columns = {name: {"kind": "category", "values": [name, "other"], "unseen": "refuse"}, "is_new": {"kind": "boolean"}}
    return manifest_of(table_of(columns=columns), {name: name, "is_new": True})


def test_curl_snippets_send_the_example(manifest: Manifest) -> None:
    v1, v2, _ = code_snippets(manifest, name="flats in Köln", needs_token=False)
    url, headers, body = curl(v1)
    assert (url, headers) == (f"{SERVER}/v1/models/flats%20in%20K%C3%B6ln:predict", ["content-type: application/json"])
    assert body == {"instances": [manifest.example]}
    assert len(plane_of(manifest).predict_rows(body["instances"]).prediction) == 1
    url, _, body = curl(v2)
    assert url == f"{SERVER}/v2/models/flats%20in%20K%C3%B6ln/infer"
    assert [(tensor["name"], tensor["datatype"]) for tensor in body["inputs"]] == [
        (name, datatype) for name, datatype in zip(manifest.example, ["BYTES", "BOOL"], strict=True)
    ]
    assert [tensor["data"] for tensor in body["inputs"]] == [[value] for value in manifest.example.values()]


def test_snippets_read_the_token_from_the_environment(manifest: Manifest) -> None:
    *shell, python = code_snippets(manifest, name="flats", needs_token=True)
    for snippet in shell:
        assert "authorization: Bearer $TOKEN" in curl(snippet)[1]
    assert 'headers={"authorization": f"Bearer {token}"}' in python.code
    compile(python.code, "snippet", "exec")


def test_server_answers_every_snippet(bundles: dict[str, Bundle], start_server: "StartServer") -> None:
    # Given a running server
    bundle = bundles["multiclass"]
    server = start_server(bundle.directory, bundle.manifest.name).wait()
    *shell, python = code_snippets(bundle.manifest, name=server.name, needs_token=False)
    # When every snippet is run
    responses = []
    for url, headers, body in map(curl, shell):
        header_map = dict(header.split(": ") for header in headers)
        responses.append(httpx.post(url.replace(SERVER, server.url), headers=header_map, json=body, timeout=60).json())
    script = python.code.replace(SERVER, server.url)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    # Then all print the same prediction
    (label,) = responses[0]["predictions"]
    assert responses[1]["outputs"][0]["data"] == [label]
    assert process.stdout.splitlines()[0] == f"prediction ['{label}']"
