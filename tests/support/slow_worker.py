"""A worker whose model takes SECONDS for a batch, more than its client may go without polling."""

import os
import sys
import time
from typing import Any

from model_name import scripts
from model_name.kafka.client import KafkaClientFactory
from model_name.serving.bundle import Bundle

SECONDS = float(os.environ["SECONDS"])
WARM = 1  # predictions, of which the first is the worker's own


def main() -> int:
    calls = []
    scores, consumer = Bundle.scores, KafkaClientFactory.consumer

    def slow_scores(self: Bundle, matrix: Any) -> Any:
        calls.append(len(matrix))
        if len(calls) > WARM:
            time.sleep(SECONDS)
        return scores(self, matrix)

    def impatient_consumer(self: KafkaClientFactory, *topics: str, **options: Any) -> Any:
        return consumer(self, *topics, **options | {"max_poll_interval_ms": int(1000 * SECONDS / 2)})

    Bundle.scores, KafkaClientFactory.consumer = slow_scores, impatient_consumer  # type: ignore[method-assign]
    return scripts.main()


if __name__ == "__main__":
    sys.exit(main())
