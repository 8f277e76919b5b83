"""No body is slow for its size: processor time is linear for every protocol and shape of a body."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from model_name.serving.batching.requests import InferenceRequest
from model_name.serving.protocols.cloudevents import EventRequest
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import V2Request
from model_name.serving.protocols.v2_grpc import GrpcRequest
from tests.support import adversarial_bodies
from tests.support.counts import count
from tests.support.linear_time import MAX_GROWTH, assert_linear, growth_per_doubling
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

PLANE = plane_of(manifest_of(table_of()))
ROW = EXAMPLE | {"age": 12.0, "is_let": False, "seen": "2025-03-07T09:30:15"}
SIZES = count(reduced=(2**15, 2**20), full=tuple(2**power for power in range(14, 23)))
EVENT_SIZES = count(reduced=(2**13, 2**18), full=SIZES)  # the JSON of an event is parsed as that of V1
STRUCTURED = {b"content-type": b"application/cloudevents+json"}


class Protocol(NamedTuple):
    """Shapes of the bodies of a protocol, and how a body becomes a request."""

    shapes: dict[str, Callable[[int], Any]]
    to_request: Callable[[Any], InferenceRequest]


PROTOCOLS = {
    "v1": Protocol(adversarial_bodies.v1_shapes(ROW), lambda body: V1Request(body, "1")),
    "v2": Protocol(adversarial_bodies.v2_shapes(ROW), lambda body: V2Request(body, "1", name="flats")),
    "binary": Protocol(
        adversarial_bodies.binary_shapes(ROW),
        lambda body: V2Request(body[0], "1", name="flats", json_length=body[1]),
    ),
    "grpc": Protocol(
        adversarial_bodies.message_shapes(ROW, "flats"), lambda body: GrpcRequest(body, "1", name="flats")
    ),
    "event": Protocol(
        adversarial_bodies.event_shapes(ROW), lambda body: EventRequest(body, "1", headers=STRUCTURED, name="flats")
    ),
}


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        pytest.param(protocol, name, id=f"{protocol}: {name}")
        for protocol, (shapes, _) in PROTOCOLS.items()
        for name in shapes
    ],
)
def test_the_time_of_a_body_is_linear_in_its_size(protocol: str, name: str) -> None:
    shapes, to_request = PROTOCOLS[protocol]
    assert_linear(name, shapes[name], to_request, PLANE, EVENT_SIZES if protocol == "event" else SIZES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_there_are_thirty_shapes_and_more_of_each_protocol(protocol: str) -> None:
    assert len(PROTOCOLS[protocol].shapes) >= (30 if protocol != "binary" else 20)


@pytest.mark.parametrize(
    ("power", "is_linear"),
    [pytest.param(1, True, id="linear"), pytest.param(2, False, id="quadratic")],
)
def test_growth_tells_linear_from_quadratic(power: int, is_linear: bool) -> None:
    sizes = [2**power for power in range(14, 23)]
    seconds = [1e-6 * (size / 2**10) ** power for size in sizes]
    assert (growth_per_doubling(sizes, seconds) <= MAX_GROWTH) is is_linear
