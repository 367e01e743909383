"""How many requests of one class (reads, writes) run at once in this process, and how many wait.

First come, first served. A process without limits has no limiter: `request_limiter` gives None.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

RETRY_AFTER: Final = 1
"""seconds after which a refused client is told to try again"""


class LimitExceeded(Exception):
    """No place: the queue is full, or the wait was longer than allowed."""


class RequestLimiter:
    """`max_running` requests hold a place, up to `max_in_queue` more (0 = any number) wait for one.

    Used as `async with limiter:` around a request and the sending of its answer, by any number of
    tasks of one loop. Entering raises LimitExceeded, also after `max_wait` seconds in the queue
    (0 = for ever). A waiter that is cancelled leaves the queue.
    """

    def __init__(self, max_running: int, *, max_in_queue: int = 0, max_wait: float = 0.0) -> None:
        if max_running < 1:
            raise ValueError("a limiter lets at least one request run")
        self._max_running = max_running
        self._max_in_queue = max_in_queue
        self._max_wait = max_wait
        self._running = 0
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def running(self) -> int:
        """Requests that hold a place."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Takes a place if one is free; `leave` gives it back."""
        if self._running >= self._max_running:
            return False
        self._running += 1
        return True

    async def enter(self) -> None:
        """Takes a place, in turn; `leave` gives it back. Raises LimitExceeded."""
        if not self.try_enter():
            await self._wait()

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    async def _wait(self) -> None:
        if self._max_in_queue and len(self._waiting) >= self._max_in_queue:
            raise LimitExceeded("the queue is full")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting[turn] = None
        timer = loop.call_later(self._max_wait, self._expire, turn) if self._max_wait else None
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                # The place was handed over in the very turn of the loop that cancelled the request.
                self.leave()
            raise
        finally:
            self._waiting.pop(turn, None)
            if timer is not None:
                timer.cancel()

    def _expire(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self._waiting.pop(turn, None)
            turn.set_exception(LimitExceeded("waited too long"))

    def leave(self) -> None:
        """Hands the place to the first in the queue, or gives it up."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1


def request_limiter(
    max_running: int, *, max_in_queue: int = 0, max_wait: float = 0.0
) -> RequestLimiter | None:
    """The limiter of one class of requests, or None (no limit, no cost) for 0 `max_running`."""
    if not max_running:
        return None
    return RequestLimiter(max_running, max_in_queue=max_in_queue, max_wait=max_wait)
