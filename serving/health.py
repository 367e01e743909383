"""Is this process alive, and is it ready? Answers for probes, outside limits and rights.

`/livez` says only that the event loop runs: a storage outage must not restart the process.
`/readyz` (and `/healthz`, for older tools) is 503 while a check fails, before each check has passed
once, and from the begin of a shutdown on. `/` is a plain 200. The cause of a failure may hold
addresses and paths: it goes to the log, never into an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
"""status, headers, body"""

LIVE: Final = frozenset({"/", "/livez"})
READY: Final = frozenset({"/readyz", "/healthz"})
STOPPING: Final = "shutdown"
"""what stands in the place of a check's name once the process is stopping"""


@dataclass(slots=True)
class _Check:
    name: str
    run: Callable[[], Awaitable[object]]
    interval: float
    threshold: int
    timeout: float
    failures: int = 0
    ready: bool = False
    running: asyncio.Task[None] | None = None


class Health:
    """The checks of one process, and what probes are told."""

    def __init__(self) -> None:
        self._checks: list[_Check] = []
        self._stopping = False
        self._log = structlog.get_logger()

    def add(
        self,
        name: str,
        check: Callable[[], Awaitable[object]],
        *,
        interval: float = 10.0,
        threshold: int = 3,
        timeout: float = 5.0,
    ) -> None:
        """Has `check` run with pauses of `interval` seconds.

        It passes by returning and fails by raising, or by taking more than `timeout` seconds. After
        `threshold` failures in a row the process is not ready; one pass makes it ready.
        """
        self._checks.append(_Check(name, check, interval, threshold, timeout))

    async def run(self) -> None:
        """Runs the checks until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for check in self._checks:
                group.create_task(self._repeat(check))

    def stop(self) -> None:
        """From now on the process is not ready: it is about to end."""
        self._stopping = True

    def failing(self) -> list[str]:
        """The names of the checks that make the process not ready; empty when it is ready."""
        names = [check.name for check in self._checks if not check.ready]
        return [STOPPING, *names] if self._stopping else names

    def respond(self, path: str, method: str) -> Answer | None:
        """The answer to a probe, or None for any other path."""
        if path in LIVE:
            status, body = 200, b""
        elif path in READY:
            failing = self.failing()
            status, body = (
                (503, json.dumps({"ready": False, "failing": failing}).encode())
                if failing
                else (200, b"")
            )
        else:
            return None
        if method not in ("GET", "HEAD"):
            return (
                405,
                [
                    (b"allow", b"GET, HEAD"),
                    (b"content-length", b"0"),
                    (b"cache-control", b"no-cache"),
                ],
                b"",
            )
        headers = [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-cache")]
        if body:
            headers += [(b"content-type", b"application/json"), (b"retry-after", b"1")]
        return status, headers, b"" if method == "HEAD" else body

    async def _repeat(self, check: _Check) -> None:
        try:
            while True:
                await self._once(check)
                await asyncio.sleep(check.interval)
        finally:
            if check.running is not None:
                check.running.cancel()
                await asyncio.wait({check.running}, timeout=1.0)

    async def _once(self, check: _Check) -> None:
        """One round.

        A run that is still going after its time has failed and is left alone: were it cancelled, a
        thread that hangs in it would stay, and each round would add another. When it ends at last,
        that says nothing about now: it only makes room for the next run.
        """
        if check.running is not None:
            if not check.running.done():
                self._count(check, "no answer in time")
                return
            _outcome(check.running)
        check.running = asyncio.create_task(_call(check.run))
        await asyncio.wait({check.running}, timeout=check.timeout)
        if not check.running.done():
            self._count(check, "no answer in time")
            return
        task, check.running = check.running, None
        self._count(check, _outcome(task))

    def _count(self, check: _Check, cause: str | None) -> None:
        if cause is None:
            if not check.ready and check.failures:
                self._log.info("health check passes again", check=check.name)
            check.failures = 0
            check.ready = True
            return
        check.failures += 1
        if check.failures == 1:
            self._log.warning("health check failed", check=check.name, cause=cause)
        if check.failures == check.threshold:
            self._log.error("not ready: health check keeps failing", check=check.name, cause=cause)
        if check.failures >= check.threshold:
            check.ready = False


async def _call(run: Callable[[], Awaitable[object]]) -> None:
    await run()


def _outcome(task: asyncio.Task[None]) -> str | None:
    """Why the finished `task` failed, or None."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return None if error is None else f"{type(error).__name__}: {error}"
