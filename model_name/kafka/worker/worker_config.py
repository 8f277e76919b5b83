"""What a worker is told: where the records come from, where the answers go, and what it may take on."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.serving.limits import Limits

TOPIC = r"^[A-Za-z0-9._-]{1,249}$"


class WorkerSettings(FrozenModel):
    """How one worker works; all workers of a group are told the same.

    Attributes:
        bundle: The folder of the bundle, or any fsspec URL of it.
        bootstrap_servers: `HOST:PORT`, several separated by commas.
        input: The topic of the records.
        output: The topic of the results.
        dead_letter: The topic of the records that have no result.
        group: Of the consumers that share the input.
        delivery: `exactly_once` by transactions, or `at_least_once` for brokers that have none.
        instance: What sets this worker apart from others of its group and stays when it starts again; by default the
            host's name and a number that is free on it.
        start: Where a group without offsets begins.
        max_poll_records: That are predicted at once and share a transaction.
        max_record_bytes: Of one value; a longer one is a dead letter.
        max_rows: Of one record.
        max_text_length: Of one text, in characters.
        session_seconds: Without a heartbeat, after which others get the partitions of a worker.
        transaction_seconds: After which the broker aborts what a dead worker began, and a worker what has no answer.
        stuck_seconds: Without progress, after which the worker says that it is not alive.
        stop_seconds: From SIGTERM until what is not delivered is left to others.
        forward_threads: Of one forward pass; 0 takes all processors.
        prediction_log: A folder, or any fsspec URL, for the prediction log; there is none else.
        log_sampling: The share of records in the log.
        log_text_ids: Whether text-id columns are in the log.
        slot: blue or green, for metrics and logs.
        host: The interface of the metrics and the probes.
        http_port: Their port; 0 for none.
    """

    bundle: str
    bootstrap_servers: str = Field(min_length=1)
    input: str = Field(pattern=TOPIC)
    output: str = Field(pattern=TOPIC)
    dead_letter: str = Field(pattern=TOPIC)
    group: str = Field(min_length=1, max_length=200)
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    instance: str = Field(default="", max_length=200)
    start: Literal["earliest", "latest"] = "earliest"
    max_poll_records: PositiveInt = 500
    max_record_bytes: PositiveInt = 2**20
    max_rows: PositiveInt = 10_000
    max_text_length: PositiveInt = 10_000
    session_seconds: Duration = 10.0
    transaction_seconds: Duration = 20.0
    stuck_seconds: Duration = 300.0
    stop_seconds: Duration = 8.0
    forward_threads: int = Field(default=1, ge=0)
    prediction_log: str = ""
    log_sampling: float = Field(default=1.0, ge=0, le=1)
    log_text_ids: bool = False
    slot: str = ""
    host: str = "127.0.0.1"
    http_port: int = Field(default=8082, ge=0, le=65535)

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        topics = (self.input, self.output, self.dead_letter)
        if len({*topics}) < len(topics):
            raise ValueError(f"input, output and dead_letter are three topics, not {', '.join(topics)}")
        return self

    @property
    def is_exact(self) -> bool:
        """Whether results and offsets share a transaction."""
        return self.delivery == "exactly_once"

    @property
    def limits(self) -> Limits:
        """What one record may ask for."""
        return Limits(body_bytes=self.max_record_bytes, rows=self.max_rows, text_length=self.max_text_length)
