"""Removes uploads that nobody goes on with, now and then, beside the serving of requests.

An upload is old when it was started longer ago than the age and nothing of it was written since:
one that is still being sent is spared, however long it takes. One process of all that share a
storage should purge, not each of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from storage import paths
from storage.driver import Busy, FileTooLarge, PathNotFound, StorageDriver, StorageError

DEFAULT_AGE: Final = 168 * 3600.0
"""seconds"""

DEFAULT_INTERVAL: Final = 24 * 3600.0
"""seconds"""

_STARTED_LIMIT: Final = 64
"""bytes; an RFC 3339 time has at most 35"""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PurgeReport:
    """What one round did: uploads looked at, removed (in a dry run: old enough), left to a request
    that is writing to them, and what storage refused."""

    seen: int = 0
    purged: int = 0
    in_use: int = 0
    errors: list[str] = field(default_factory=list)


class UploadPurger:
    """Purges the uploads of all repositories.

    `clock` gives the time now in seconds since the epoch; `age`, `interval` and `first_delay`
    (before the first round: a random time keeps replicas apart) are in seconds. With `dry_run`
    nothing is removed.
    """

    def __init__(
        self,
        driver: StorageDriver,
        *,
        clock: Callable[[], float],
        first_delay: float,
        age: float = DEFAULT_AGE,
        interval: float = DEFAULT_INTERVAL,
        dry_run: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._first_delay = first_delay
        self._age = age
        self._interval = interval
        self._dry_run = dry_run
        self._sleep = sleep

    async def run(self) -> None:
        """Purges again and again, until it is cancelled."""
        await self._sleep(self._first_delay)
        while True:
            report = await self.purge_once()
            log.info(
                "uploads: %d seen, %d %s, %d in use, %d errors",
                report.seen,
                report.purged,
                "old (dry run)" if self._dry_run else "purged",
                report.in_use,
                len(report.errors),
            )
            await self._sleep(self._interval)

    async def purge_once(self) -> PurgeReport:
        """One round. Never raises what storage does: one bad entry must not keep the others."""
        report = PurgeReport()
        async for name in self._repositories(report):
            for upload in await self._names(paths.uploads(name), report):
                try:
                    await self._look_at(name, upload, report)
                except StorageError as error:
                    self._note(error, report)
        return report

    def _note(self, error: StorageError, report: PurgeReport) -> None:
        log.warning("uploads cannot be purged: %s", error)
        report.errors.append(str(error))

    async def _names(self, folder: str, report: PurgeReport) -> list[str]:
        try:
            return await self._driver.list(folder)
        except StorageError as error:
            self._note(error, report)
            return []

    async def _repositories(self, report: PurgeReport) -> AsyncIterator[str]:
        """The names of all folders that have uploads; names nest."""
        folders = [""]
        while folders:
            folder = folders.pop()
            names = await self._names(f"{paths.REPOSITORIES}{folder}", report)
            if folder and "_uploads" in names:
                yield folder[1:]
            folders.extend(f"{folder}/{name}" for name in names if name[0].isalnum())

    async def _look_at(self, name: str, upload: str, report: PurgeReport) -> None:
        folder = paths.upload_folder(name, upload)
        info = await self._driver.stat(folder)
        if info is None or not info.is_folder:
            return
        report.seen += 1
        times = [file.modified async for file in self._driver.walk(folder)] or [info.modified]
        deadline = self._clock() - self._age
        started = await self._started(name, upload)
        if max(times) > deadline or (started is not None and started > deadline):
            return
        if self._dry_run or await self._remove(name, upload, deadline):
            report.purged += 1
        else:
            report.in_use += 1

    async def _started(self, name: str, upload: str) -> float | None:
        """When the upload began; None where that cannot be told: the files' times decide."""
        try:
            content = await self._driver.get(paths.upload_started(name, upload), _STARTED_LIMIT)
            started = datetime.fromisoformat(content.decode("ascii").strip())
        except (PathNotFound, FileTooLarge, ValueError):
            return None
        stamp = started.replace(tzinfo=started.tzinfo or UTC).timestamp()
        return stamp if stamp <= self._clock() else None

    async def _remove(self, name: str, upload: str, deadline: float) -> bool:
        """False where a request has the upload open, or has just written to it."""
        try:
            if not await self._remove_data(paths.upload_data(name, upload), deadline):
                return False
        except Busy:
            return False
        with suppress(PathNotFound):  # The folder may have gone with its last file.
            await self._driver.delete(paths.upload_folder(name, upload))
        return True

    async def _remove_data(self, data: str, deadline: float) -> bool:
        """Removes the upload's bytes under the lock that a request would need to add to them."""
        if await self._driver.stat(data) is None:
            return True
        try:
            writer = await self._driver.writer(data, append=True)
        except PathNotFound:
            return True
        async with writer:
            info = await self._driver.stat(data)
            if info is not None and info.modified > deadline:
                return False
            await writer.cancel()
        return True
