"""Limits of a server on the size of requests and of its queue."""

from collections.abc import Mapping

import numpy as np
from pydantic import PositiveInt

from model_name.core.schemas.decoding import RawValues
from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.errors import DataError, TooLargeError


class Limits(FrozenModel):
    """Limits on the work and the memory of a server.

    Attributes:
        body_bytes: Maximum size of a request body.
        rows: Maximum number of rows of a request.
        text_length: Maximum length of a text, in characters.
        queued_requests: Maximum number of requests that wait for a batch; further ones are rejected.
        queued_bytes: Maximum total size of the bodies of all requests without a response, and of unread responses.
        batch_requests: Maximum number of requests in a batch.
        header_seconds: Maximum time from the start of a connection to the end of the request's headers.
        body_seconds: Maximum time from there to the end of its body.
        answer_seconds: Maximum time from there to its response.
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
        """Check the size of a request body.

        Raises:
            TooLargeError: The body is larger than `body_bytes`.
        """
        if size > self.body_bytes:
            raise TooLargeError(f"the body has {size} bytes, this server takes {self.body_bytes}")

    def check_id(self, id: str) -> None:  # noqa: A002  the protocols' word for it
        """Check the length of the id of a request, which is returned in the response.

        Raises:
            DataError: The id is longer than `text_length`.
        """
        if len(id) > self.text_length:
            raise DataError(f"id: the text has {len(id)} characters, this server takes {self.text_length}")

    def check_rows(self, rows: int) -> None:
        """Check the number of rows of a request.

        Raises:
            TooLargeError: The request has more rows than `rows`.
        """
        if rows > self.rows:
            raise TooLargeError(f"the request has {rows} rows, this server takes {self.rows} at once")

    def check_texts(self, table: Mapping[str, RawValues], size: int) -> None:
        """Check the length of the texts of a request.

        Args:
            table: Raw values by column.
            size: Size of the largest body that the values come from; no text in it is longer.

        Raises:
            DataError: A text is longer than `text_length`; the message names column and row.
        """
        if size <= self.text_length:
            return
        for name, values in table.items():
            if isinstance(values, np.ndarray):
                continue
            types = {*map(type, values)}
            if not types & {str, bytes} or (types <= {str, bytes} and max(map(len, values)) <= self.text_length):
                continue
            for row, value in enumerate(values):
                if isinstance(value, str | bytes) and len(value) > self.text_length:
                    raise DataError(
                        f"{name}, row {row}: the text has {len(value)} characters, this server takes {self.text_length}"
                    )
