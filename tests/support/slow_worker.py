"""A worker whose model takes SECONDS per batch, which exceeds `max_poll_interval_ms` of its consumer."""

import os
import sys
import time
from typing import Any

from model_name import scripts
from model_name.kafka.client import KafkaClientFactory
from model_name.serving.bundle import Bundle

SECONDS = float(os.environ["SECONDS"])
WARM_UP_CALLS = 1  # fast calls at the start: the warm-up prediction of the worker


def main() -> int:
    calls = []
    scores, create_consumer = Bundle.scores, KafkaClientFactory.create_consumer

    def slow_scores(self: Bundle, matrix: Any) -> Any:
        calls.append(len(matrix))
        if len(calls) > WARM_UP_CALLS:
            time.sleep(SECONDS)
        return scores(self, matrix)

    def impatient_consumer(self: KafkaClientFactory, *topics: str, **options: Any) -> Any:
        return create_consumer(self, *topics, **options | {"max_poll_interval_ms": int(1000 * SECONDS / 2)})

    Bundle.scores = slow_scores  # type: ignore[method-assign]
    KafkaClientFactory.create_consumer = impatient_consumer  # type: ignore[method-assign]
    return scripts.main()


if __name__ == "__main__":
    sys.exit(main())
