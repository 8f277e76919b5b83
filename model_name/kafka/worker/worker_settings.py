"""Define the settings of a worker, and load them without a job, which would import the libraries for tables."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.errors import ConfigError
from model_name.io import configs
from model_name.serving.identifiers import OptionalIdentifier
from model_name.serving.limits import Limits

TOPIC_PATTERN = r"^[A-Za-z0-9._-]{1,249}$"
JOB_KIND = "KafkaInferenceJob"  # KIND of the config files that hold these settings


class WorkerSettings(FrozenModel):
    """Settings of one worker, the same for all workers of a group.

    Attributes:
        bundle: Folder of the bundle, or its fsspec URL.
        bundle_public_key: File of the Ed25519 public keys, one of which must have signed the bundle; by default
            `MODEL_NAME_BUNDLE_PUBLIC_KEY_FILE`, and no signature is required without it.
        bootstrap_servers: Addresses `HOST:PORT`, separated by commas.
        input: Topic of the records.
        output: Topic of the results.
        dead_letter: Topic of the dead letters: records without a result.
        group: Consumer group of the workers.
        delivery: `exactly_once` by transactions, or `at_least_once` for brokers without transactions.
        instance: Name that is unique in the group and survives a restart; by default the host name and the lowest
            number that is free on the host.
        start: Offset at which a group without committed offsets begins.
        max_poll_records: Largest number of records that are predicted at once and share a transaction.
        max_record_bytes: Largest size of a value; a larger one becomes a dead letter.
        max_rows: Largest number of rows of a record.
        max_text_length: Largest length of a text, in characters.
        session_seconds: Time without a heartbeat after which a worker loses its partitions.
        transaction_seconds: Time after which the broker aborts an open transaction, and a worker gives up a delivery.
        stuck_seconds: Time without progress after which the liveness probe fails.
        stop_seconds: Time from SIGTERM until undelivered batches are left to other workers.
        forward_threads: Number of threads of a forward pass; 0 uses all processors.
        prediction_log: Folder or fsspec URL of the prediction log; empty for no log.
        log_sampling: Share of the records that are logged.
        log_text_ids: Whether text-id columns are logged.
        slot: Slot of the deployment, `blue` or `green`, for metrics and logs.
        host: Interface of the metrics and the probes.
        http_port: Port of the metrics and the probes; 0 for none.
    """

    bundle: str
    bundle_public_key: str = ""
    bootstrap_servers: str = Field(min_length=1)
    input: str = Field(pattern=TOPIC_PATTERN)
    output: str = Field(pattern=TOPIC_PATTERN)
    dead_letter: str = Field(pattern=TOPIC_PATTERN)
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
    slot: OptionalIdentifier = ""
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
        """Limits of one record."""
        return Limits(body_bytes=self.max_record_bytes, rows=self.max_rows, text_length=self.max_text_length)


def load_settings(pairs: Sequence[str]) -> WorkerSettings:
    """Load the settings from `job.KEY=VALUE` pairs and the environment.

    Raises:
        ConfigError: A setting is wrong or missing.
    """
    raw = configs.load([], pairs) if pairs else {}
    if unknown := raw.keys() - {"job"}:
        name = min(unknown)
        raise ConfigError(f"--set {name}=...: everything belongs under `job`", hint=f"--set job.{name}=...")
    try:
        return WorkerSettings.model_validate(raw.get("job", {}))
    except ValidationError as err:
        missing = [str(one["loc"][0]) for one in err.errors() if one["type"] == "missing"]
        if missing:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
            hint = "or name a config of KIND KafkaInferenceJob that says it"
            raise ConfigError(f"{options}: missing", hint=hint) from err
        message = configs.explain(err, raw, [], within="job").message.replace(WorkerSettings.__name__, JOB_KIND)
        raise ConfigError(message, hint=f"`model-name schema {JOB_KIND}` lists the keys") from err
