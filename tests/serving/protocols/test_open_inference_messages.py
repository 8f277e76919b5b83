"""Messages of the Open Inference Protocol, without the rest of KServe."""

import subprocess
import sys

import pytest

AFTER = """
import sys
from model_name.serving.protocols.open_inference_messages import pb
assert "kserve" not in sys.modules and "fastapi" not in sys.modules, "the package was imported"
import kserve.protocol.grpc.grpc_predict_v2_pb2 as canonical
from kserve import InferenceGRPCClient
assert pb is canonical
"""
BEFORE = """
import kserve.protocol.grpc.grpc_predict_v2_pb2 as canonical
from model_name.serving.protocols.open_inference_messages import pb
assert pb is canonical
"""


@pytest.mark.parametrize(
    "program",
    [pytest.param(AFTER, id="kserve is imported later"), pytest.param(BEFORE, id="kserve was imported")],
)
def test_the_messages_are_those_of_kserve(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from model_name.serving.protocols import open_inference_messages

    monkeypatch.delitem(sys.modules, open_inference_messages.MODULE_NAME)
    monkeypatch.setattr(open_inference_messages, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        open_inference_messages.load_messages()
    assert caught.value.name == "kserve"
