"""Growth of the processor time of a decoder with the size of its input."""

import gc
from collections.abc import Callable, Sequence
from math import log2
from time import thread_time
from typing import Any

from model_name.errors import ModelNameError
from model_name.serving.batching.requests import InferenceRequest, infer_batch
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.rest.messages import error_response

MAX_GROWTH = 2.5  # of the time when the size doubles; 2 is linear, 4 is quadratic
NEGLIGIBLE_SECONDS = 0.01  # shorter times are noise, and harmless
MIN_DOUBLINGS = 5  # between two sizes that are compared: 32 times the size
ATTEMPTS = 4  # a time may be long because of other processes; the shortest counts
LIMITS = Limits(rows=2**30, body_bytes=2**40)


def assert_linear(
    name: str,
    shape: Callable[[int], Any],
    to_request: Callable[[Any], InferenceRequest],
    plane: DataPlane,
    sizes: Sequence[int],
    limits: Limits = LIMITS,
) -> None:
    """Infer bodies of growing size, and check the growth of the time from decoding to the error or the response.

    Args:
        name: Name of the shape, for the message of a failure.
        shape: Creates a body of a size.
        to_request: Creates the request of a body.
        plane: Data plane that validates and predicts.
        sizes: Sizes of the bodies.
        limits: Limits of a request.
    """
    bodies = [shape(size) for size in sizes]
    seconds = [float("inf")] * len(sizes)
    for _ in range(ATTEMPTS):
        for place, body in enumerate(bodies):
            seconds[place] = min(seconds[place], measure(to_request(body), plane, limits))
        if growth_per_doubling(sizes, seconds) <= MAX_GROWTH:
            return
    table = ", ".join(f"{size} bytes {1000 * time:.1f} ms" for size, time in zip(sizes, seconds, strict=True))
    raise AssertionError(f"{name}: x {growth_per_doubling(sizes, seconds):.2f} per doubling: {table}")


def measure(request: InferenceRequest, plane: DataPlane, limits: Limits) -> float:
    """Measure the processor time of a request, from its body to its response."""
    was_enabled = gc.isenabled()
    gc.disable()  # collections depend on all objects of this process, and their time is linear on average
    try:
        started = thread_time()
        (response,) = infer_batch(plane, [request], limits).responses
        if isinstance(response, ModelNameError):
            assert response.http_status < 500, response.message
            error_response(response)
        return thread_time() - started
    finally:
        if was_enabled:
            gc.enable()


def growth_per_doubling(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Compute the average growth per doubling up to the last size, the largest over the sizes to start from.

    It is an average over `MIN_DOUBLINGS` and more, because the step from one level of the processor's caches to the
    next, or to large allocations, costs up to a factor of ten once.
    """
    times = [max(NEGLIGIBLE_SECONDS, time) for time in seconds]
    doublings = [log2(sizes[-1] / size) for size in sizes]
    return max(
        (times[-1] / time) ** (1 / count)
        for time, count in zip(times, doublings, strict=True)
        if count >= MIN_DOUBLINGS
    )
