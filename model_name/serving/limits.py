"""How much a client may ask of a server."""

import numpy as np
from pydantic import PositiveInt

from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.errors import DataError, TooLargeError
from model_name.serving.dataplane import RawColumns


class Limits(FrozenModel):
    """What bounds the work and the memory of a server.

    Attributes:
        body_bytes: Of one request.
        rows: Of one request.
        text_length: Of one text, in characters.
        queued_requests: That wait to be computed; the next one is told to come again.
        queued_bytes: Of the bodies of all requests that are not answered yet.
        batch_requests: That are computed at once.
        header_seconds: From the start of a connection to the end of a request's headers.
        body_seconds: From there to the end of its body.
        answer_seconds: From there to its answer.
    """

    body_bytes: PositiveInt = 64 * 2**20
    rows: PositiveInt = 250_000
    text_length: PositiveInt = 10_000
    queued_requests: PositiveInt = 1024
    queued_bytes: PositiveInt = 256 * 2**20
    batch_requests: PositiveInt = 64
    header_seconds: Duration = 10.0
    body_seconds: Duration = 30.0
    answer_seconds: Duration = 60.0

    def check_body(self, size: int) -> None:
        """Refuse a body that is too long.

        Raises:
            TooLargeError: It is.
        """
        if size > self.body_bytes:
            raise TooLargeError(f"the body has {size} bytes, this server takes {self.body_bytes}")

    def check_id(self, id: str) -> None:  # noqa: A002  the protocols' word for it
        """Refuse the id of a request, which comes back in its answer, if it is too long.

        Raises:
            DataError: It is.
        """
        if len(id) > self.text_length:
            raise DataError(f"id: the text has {len(id)} characters, this server takes {self.text_length}")

    def check_rows(self, rows: int) -> None:
        """Refuse a request of too many rows.

        Raises:
            TooLargeError: It has.
        """
        if rows > self.rows:
            raise TooLargeError(f"the request has {rows} rows, this server takes {self.rows} at once")

    def check_texts(self, table: RawColumns, size: int) -> None:
        """Refuse a text that is too long.

        Args:
            table: The values by column.
            size: Of the largest body that it came from; no text in it is longer.

        Raises:
            DataError: There is one, by column and row.
        """
        if size <= self.text_length:
            return
        for name, values in table.items():
            if isinstance(values, np.ndarray):
                continue
            kinds = {*map(type, values)}
            if not kinds & {str, bytes} or (kinds <= {str, bytes} and max(map(len, values)) <= self.text_length):
                continue
            for row, value in enumerate(values):
                if isinstance(value, str | bytes) and len(value) > self.text_length:
                    raise DataError(
                        f"{name}, row {row}: the text has {len(value)} characters, this server takes {self.text_length}"
                    )
