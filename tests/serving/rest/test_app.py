"""Operations of KServe's API that a server does not support."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from tests.support.clients import (
    call_grpc,
)

if TYPE_CHECKING:
    from tests.support.server_processes import Server
    from tests.support.tables import Row


def test_explain_is_unsupported_and_echoes_no_header(servers: dict[str, Server], rows: list[Row]) -> None:
    url = f"/v1/models/{servers['regression'].name}:explain"
    response = servers["regression"].client.post(url, json={"instances": rows}, headers={"x-secret": "do not tell"})
    assert (response.status_code, response.json()) == (
        501,
        {"error": "regression predicts; its explainer is another server"},
    )
    assert "do not tell" not in str(response.headers)


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_the_model_repository_is_disabled_by_default(servers: dict[str, Server], verb: str) -> None:
    server = servers["regression"]
    assert server.client.post(f"/v2/repository/models/{server.name}/{verb}").status_code == 501
    request = getattr(pb, f"RepositoryModel{verb.capitalize()}Request")(model_name=server.name)
    with pytest.raises(grpc.RpcError) as caught:
        call_grpc(server, f"RepositoryModel{verb.capitalize()}", request)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert server.is_ready()


def test_an_unknown_model_is_not_found(servers: dict[str, Server], rows: list[Row]) -> None:
    assert servers["regression"].client.post("/v1/models/nobody:predict", json={"instances": rows}).status_code == 404
