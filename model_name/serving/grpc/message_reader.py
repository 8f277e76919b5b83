"""Reading of the messages of gRPC calls within the byte budget of the server.

A gRPC message has no announced length, and Python sees its bytes only once it is complete. So few calls are read at
once, as many as the budget allows if their messages are large; HTTP/2 flow control holds the others back. Most messages
arrive with their call and are read within a millisecond. A call that takes longer leaves its place to the next one, so
that neither large messages nor clients that send nothing delay others for long. What those calls hold shows in the
resident memory of the process; if it exceeds the budget, the newest of them are refused.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from grpc.aio import EOF, AbortError, BaseError

from model_name.errors import BusyError, DataError, ModelNameError
from model_name.serving.byte_budget import ByteBudget
from model_name.serving.grpc.statuses import Metadata, abort
from model_name.serving.limits import Limits
from model_name.serving.request_errors import RequestTimeoutError
from model_name.serving.runtime.memory import resident_bytes, trim_heap

TICK_SECONDS = 0.01  # between two checks of the calls that are being read
LONG_TICKS = 2  # after which a call may leave its place: its message is large or its client slow
GROWING_TICKS = 100  # after which it leaves its place even if there are many such calls and the memory grows
GROWTH_BYTES = 2**18  # of the resident memory within a tick, by which large messages are arriving
QUIET_TICKS = 100  # without a large message, after which the resident memory is the base of measurements again
PUBLIC_TICKS = 10  # after which a call that needs no token is refused: messages of such methods are tiny
MIN_LONG = 2  # calls that are read even if the budget is used up
WAIT_TICKS = 500  # for which a call waits until others have been read: 5 s
LARGE_BYTES = 2**20  # size of a message that leaves free heap memory worth returning
TRIMS_AFTER_LARGE = 3  # the first ones may come before the last bytes are freed


@dataclass(slots=True, eq=False)
class ReceivingCall:
    """Call whose message is being received.

    Attributes:
        grpc_context: Context of the call.
        trailing_metadata: Trailing metadata of the status with which it may be ended.
        first_tick: Number of the last check before its start.
        is_public: Whether the method needs no token.
        has_place: Whether it takes one of the places at which calls are read.
        refusal: Error that ended the call while its message was being received.
    """

    grpc_context: Any
    trailing_metadata: Metadata
    first_tick: int
    is_public: bool
    has_place: bool = True
    refusal: ModelNameError | None = None


class MessageReader:
    """Reads the messages of all calls. Not thread-safe; use on the event loop."""

    def __init__(self, limits: Limits, budget: ByteBudget, max_message_bytes: int) -> None:
        """Start without calls.

        Args:
            limits: Limits of the server, of which `body_seconds` applies here.
            budget: Budget in which the batcher reserves each message once it is complete.
            max_message_bytes: Maximum size of one message.
        """
        self.limits = limits
        self.budget = budget
        self._max_places = max(2, budget.limit // max_message_bytes // 2)  # and as many calls that take longer
        self._max_ticks = int(limits.body_seconds / TICK_SECONDS) + 1
        self._receiving: dict[ReceivingCall, None] = {}
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._places = 0
        self._tick = 0
        self._last_large_tick = 0
        self._is_checking = False
        self._resident = self._base = self._held = 0
        self._trims_left = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, grpc_context: Any, trailing_metadata: Metadata = (), *, is_public: bool = False) -> bytes:
        """Read the only message of a call.

        Args:
            grpc_context: Context of the call.
            trailing_metadata: Trailing metadata of the status with which the call may be ended.
            is_public: Whether the method needs no token.

        Raises:
            BusyError: The messages that are being received take too much memory.
            RequestTimeoutError: The message is not received in time.
            DataError: The client has sent no message.
        """
        message = await self.read_next(grpc_context, trailing_metadata, is_public=is_public)
        if message is None:
            await asyncio.sleep(TICK_SECONDS)  # a client that has cancelled the call ends it meanwhile
            raise DataError("the call has no message")
        return message

    async def read_next(
        self, grpc_context: Any, trailing_metadata: Metadata = (), *, is_public: bool = False
    ) -> bytes | None:
        """Read the next message of a call; None if the client has sent its last one.

        Args:
            grpc_context: Context of the call.
            trailing_metadata: Trailing metadata of the status with which the call may be ended.
            is_public: Whether the method needs no token.

        Raises:
            BusyError: The messages that are being received take too much memory.
            RequestTimeoutError: The message is not received in time.
        """
        if not self._is_checking:
            self._start_checking()
        if not self._waiting and self._has_free_place():
            self._places += 1
        else:
            await self._wait()
        call = ReceivingCall(grpc_context, trailing_metadata, self._tick, is_public)
        self._receiving[call] = None
        try:
            message = await grpc_context.read()
        except AbortError as err:
            if call.refusal is None:
                raise
            raise call.refusal from err
        finally:
            del self._receiving[call]
            if call.has_place:
                self._leave_place()
        if message is EOF:
            return None
        if len(message) > LARGE_BYTES:
            self._trims_left = TRIMS_AFTER_LARGE
            self._last_large_tick = self._tick
            self._measure()
        return message  # type: ignore[no-any-return]

    def trim_if_needed(self) -> None:
        """Return the memory of large messages to the system after they were received; call each second."""
        if self._trims_left and not self._tasks:
            self._trims_left -= 1
            self._start(asyncio.to_thread(trim_heap))

    # Places

    def _has_free_place(self) -> bool:
        """Return whether another call may be read; at least one at a time is."""
        return not self._places or (self._places < self._max_places and self._held < self.budget.limit)

    async def _wait(self) -> None:
        """Wait for a place.

        Raises:
            BusyError: No place became free within `WAIT_TICKS`.
        """
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, self._tick))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self._leave_place()
            raise

    def _leave_place(self) -> None:
        self._places -= 1
        self._admit()

    def _admit(self) -> None:
        """Give the free places to calls that wait."""
        while self._waiting and self._has_free_place():
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._places += 1

    # Checks

    def _start_checking(self) -> None:
        self._is_checking = True
        self._resident = self._base = resident_bytes()
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._check)

    def _check(self) -> None:
        """Refuse calls that take too much time or memory; once per tick while there are calls.

        The event loop reads sockets between two ticks: a server that was busy refuses no message that has arrived.
        """
        is_quiet = self._tick - self._last_large_tick > QUIET_TICKS
        if is_quiet and not self._receiving and not self._waiting:
            self._is_checking = False
            return
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._check)
        self._tick += 1
        resident = self._resident
        self._measure()
        is_growing = self._resident - resident > GROWTH_BYTES
        if is_quiet:
            self._base, self._held = self._resident, self.budget.used
        long = [call for call in self._receiving if self._age(call) >= LONG_TICKS and call.refusal is None]
        if long:
            self._trims_left = TRIMS_AFTER_LARGE
            self._last_large_tick = self._tick
        free = sum(not call.has_place for call in long)
        for call in long:
            age = self._age(call)
            if call.has_place and (free < self._max_places or not is_growing or age > GROWING_TICKS):
                free += 1
                call.has_place = False
                self._leave_place()
            if age > self._max_ticks or (call.is_public and age >= PUBLIC_TICKS):
                seconds = PUBLIC_TICKS * TICK_SECONDS if call.is_public else self.limits.body_seconds
                self._refuse(call, RequestTimeoutError(f"the message did not come within {seconds:g} s"))
        if self._held > self.budget.limit and not self._tasks:  # else refused calls or their memory are being freed
            self._free_memory([call for call in long if call.refusal is None])
        while self._waiting and self._tick - self._waiting[0][1] > WAIT_TICKS:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(BusyError("too many messages are being received; try again in a second"))
        self._admit()

    def _measure(self) -> None:
        """Measure the memory that messages hold: that of the budget, or the growth of the resident memory."""
        self._resident = resident_bytes()
        self._base = min(self._base, self._resident)
        self._held = max(self._resident - self._base, self.budget.used)

    def _free_memory(self, long: Sequence[ReceivingCall]) -> None:
        """Refuse the newest calls that are being read for long, so that the others fit into the budget."""
        keep = max(MIN_LONG, len(long) * self.budget.limit // self._held)
        for call in long[keep:]:
            self._refuse(call, BusyError("too many bytes of messages are being received; try again in a second"))
        self._start(asyncio.to_thread(trim_heap))

    def _age(self, call: ReceivingCall) -> int:
        return self._tick - call.first_tick

    # Refusals

    def _refuse(self, call: ReceivingCall, err: ModelNameError) -> None:
        call.refusal = err
        self._start(self._abort(call, err))

    async def _abort(self, call: ReceivingCall, err: ModelNameError) -> None:
        """End a call, whose `read` then raises the same error, unless the message has just arrived."""
        if call in self._receiving:
            with suppress(BaseError):  # also if the client has cancelled the call
                await abort(call.grpc_context, err, call.trailing_metadata)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
