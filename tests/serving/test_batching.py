"""Requests are computed off the event loop."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

from model_name.core.schemas import Outputs
from model_name.serving.batching import Batcher
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import V1Request
from tests.serving.clients import (
    run,
)

if TYPE_CHECKING:
    from conftest import Row


def test_the_event_loop_is_free_during_a_forward_pass(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    class Blocked(DataPlane):
        may_answer = threading.Event()

        def run(self, matrix: Any, *, interval: float | None = None) -> Outputs:
            assert self.may_answer.wait(30)
            return super().run(matrix, interval=interval)

    async def scenario() -> bytes:
        batcher = Batcher(Blocked(planes["regression"].bundle), Limits())
        answer = asyncio.create_task(batcher.answer(V1Request(json.dumps({"instances": rows}).encode(), "1")))
        await asyncio.sleep(0.05)
        assert not answer.done()
        Blocked.may_answer.set()
        return (await answer).reply

    assert len(json.loads(run(scenario()))["predictions"]) == len(rows)
