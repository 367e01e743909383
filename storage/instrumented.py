"""What stands in front of every driver: the check of paths, and the metrics.

Drivers trust the paths that they are given; this is the one place where they are checked, those of
a plan's steps too. A `..` that came through here would be outside of the storage.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from oci.digest import Chunk
from storage.driver import (
    GET_LIMIT,
    BlockingWriter,
    Busy,
    FileInfo,
    InvalidPath,
    PathNotFound,
    StorageDriver,
    StorageError,
    Writer,
)
from storage.plan import (
    Append,
    Delete,
    Entry,
    Get,
    LocalPlans,
    Move,
    Names,
    Note,
    Open,
    Plan,
    Publish,
    PutFolder,
    Stat,
    Step,
)

T = TypeVar("T")

DURATION: Final = "storage_duration_seconds"
ERRORS: Final = "storage_errors_total"

GET_CONTENT: Final = "StorageDriver.GetContent"
PUT_CONTENT: Final = "StorageDriver.PutContent"
READER: Final = "StorageDriver.Reader"
WRITER: Final = "StorageDriver.Writer"
STAT: Final = "StorageDriver.Stat"
LIST: Final = "StorageDriver.List"
MOVE: Final = "StorageDriver.Move"
DELETE: Final = "StorageDriver.Delete"
URL_FOR: Final = "StorageDriver.URLFor"
WALK: Final = "StorageDriver.Walk"

UNKNOWN: Final = "UNKNOWN"

CODES: Final = frozenset(
    {
        "PATH_NOT_FOUND",
        "INVALID_PATH",
        "INVALID_OFFSET",
        "READ_ONLY_FILESYSTEM",
        "FILE_TOO_LARGE",
        "DEVICE_OUT_OF_SPACE",
    }
)
"""of the label `code`, which alerts are written for; every other error counts as UNKNOWN"""

_OPERATIONS: Final[dict[type[Step], str]] = {
    Get: GET_CONTENT,
    Stat: STAT,
    Names: LIST,
    Open: READER,
    Append: WRITER,
    Note: PUT_CONTENT,
    Delete: DELETE,
}

_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._-]++)++")
_DOTS: Final = re.compile(r"/\.{1,2}(?:/|\Z)")


class Recorder(Protocol):
    """Where the numbers go. Both methods may be called by any thread."""

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Puts `value` into the histogram `name`."""
        ...

    def add(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Adds to the counter `name`."""
        ...


def instrument(driver: StorageDriver, recorder: Recorder) -> StorageDriver:
    """`driver` behind the checks and the metrics; it runs whole plans if `driver` does."""
    if isinstance(driver, LocalPlans):
        return _LocalInstrumentedDriver(driver, recorder, driver)
    return InstrumentedDriver(driver, recorder)


def check_path(path: str) -> None:
    """Raises InvalidPath unless `path` is one of the storage's grammar, without `.` and `..`."""
    if _PATH.fullmatch(path) is None or ("/." in path and _DOTS.search(path) is not None):
        raise InvalidPath(path, "a path is made of /<letters, digits, '.', '_' and '-'>")


class InstrumentedDriver:
    """A StorageDriver in front of another. `stat`, `list` and `walk` also take the root, `/`."""

    def __init__(self, driver: StorageDriver, recorder: Recorder) -> None:
        self.name = driver.name
        self._driver = driver
        self._record = _Record(recorder)

    async def stat(self, path: str) -> FileInfo | None:
        self._check(STAT, path)
        return await self._timed(STAT, self._driver.stat(path))

    async def get(self, path: str, limit: int = GET_LIMIT) -> bytes:
        self._check(GET_CONTENT, path)
        return await self._timed(GET_CONTENT, self._driver.get(path, limit))

    def read(self, path: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        self._check(READER, path)
        return self._each(READER, self._driver.read(path, offset, length))

    async def put(self, path: str, content: bytes) -> None:
        self._check(PUT_CONTENT, path)
        await self._timed(PUT_CONTENT, self._driver.put(path, content))

    async def writer(self, path: str, *, append: bool) -> Writer:
        self._check(WRITER, path)
        writer = await self._timed(WRITER, self._driver.writer(path, append=append))
        if isinstance(writer, BlockingWriter):
            return _BlockingInstrumentedWriter(writer, self._record, writer)
        return _InstrumentedWriter(writer, self._record)

    async def list(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        self._check(LIST, path)
        return await self._timed(LIST, self._driver.list(path, after, limit))

    def walk(self, path: str) -> AsyncIterator[FileInfo]:
        self._check(WALK, path)
        return self._each(WALK, self._driver.walk(path))

    async def move(self, source: str, target: str) -> None:
        self._check(MOVE, source)
        self._check(MOVE, target)
        await self._timed(MOVE, self._driver.move(source, target))

    async def delete(self, path: str) -> None:
        self._check(DELETE, path)
        await self._timed(DELETE, self._driver.delete(path))

    async def redirect_url(self, path: str, method: str) -> str | None:
        self._check(URL_FOR, path)
        return await self._timed(URL_FOR, self._driver.redirect_url(path, method))

    async def close(self) -> None:
        await self._driver.close()

    def _check(self, operation: str, path: str) -> None:
        if path == "/" and operation in (STAT, LIST, WALK):
            return
        try:
            check_path(path)
        except InvalidPath as error:
            self._record.failed(operation, error)
            raise

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        started = perf_counter()
        try:
            return await call
        except Exception as error:
            self._record.failed(operation, error)
            raise
        finally:
            self._record.took(operation, perf_counter() - started)

    async def _each(self, operation: str, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """The items, with the time spent on the storage and not on their use."""
        spent = 0.0
        started = perf_counter()
        try:
            async for item in items:
                spent += perf_counter() - started
                yield item
                started = perf_counter()
            spent += perf_counter() - started
        except Exception as error:
            self._record.failed(operation, error)
            raise
        finally:
            self._record.took(operation, spent)
            if isinstance(items, AsyncGenerator):
                await items.aclose()


class _LocalInstrumentedDriver(InstrumentedDriver):
    """The same for a driver that runs whole plans: it is given the plan within a plan that checks
    and measures each step."""

    def __init__(self, driver: StorageDriver, recorder: Recorder, plans: LocalPlans) -> None:
        super().__init__(driver, recorder)
        self._plans = plans

    async def perform(self, plan: Plan[T], *, writes: bool) -> T:
        return await self._plans.perform(self._watched(plan), writes=writes)

    def _watched(self, plan: Plan[T]) -> Plan[T]:
        record = self._record
        try:
            asked = next(plan)
            while True:
                steps = asked if isinstance(asked, list) else (asked,)
                results: list[Any] = []
                operation = ""
                started = perf_counter()
                try:
                    for step in steps:
                        operation = _operation(step)
                        _check_step(step)
                        results.append((yield step))
                        ended = perf_counter()
                        record.took(operation, ended - started)
                        started = ended
                except Exception as error:
                    record.took(operation, perf_counter() - started)
                    record.failed(operation, error)
                    asked = plan.throw(error)
                else:
                    asked = plan.send(results if isinstance(asked, list) else results[0])
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # untyped in StopIteration


class _InstrumentedWriter:
    """A Writer whose errors are counted: a full disk is found here first."""

    def __init__(self, writer: Writer, record: _Record) -> None:
        self.size = writer.size
        self._writer = writer
        self._record = record

    async def write(self, chunk: Chunk) -> None:
        try:
            await self._writer.write(chunk)
        except Exception as error:
            self._record.failed(WRITER, error)
            raise
        finally:
            self.size = self._writer.size

    async def commit(self) -> None:
        try:
            await self._writer.commit()
        except Exception as error:
            self._record.failed(WRITER, error)
            raise

    async def cancel(self) -> None:
        try:
            await self._writer.cancel()
        except Exception as error:
            self._record.failed(WRITER, error)
            raise

    async def __aenter__(self) -> Self:
        await self._writer.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._writer.__aexit__(kind, error, trace)


class _BlockingInstrumentedWriter(_InstrumentedWriter):
    def __init__(self, writer: Writer, record: _Record, blocking: BlockingWriter) -> None:
        super().__init__(writer, record)
        self._blocking = blocking

    def write_now(self, chunk: Chunk) -> None:
        try:
            self._blocking.write_now(chunk)
        except Exception as error:
            self._record.failed(WRITER, error)
            raise
        finally:
            self.size = self._writer.size


class _Record:
    """The metrics of one driver."""

    def __init__(self, recorder: Recorder) -> None:
        self._observe = recorder.observe
        self._add = recorder.add

    def took(self, operation: str, seconds: float) -> None:
        self._observe(DURATION, seconds, operation)

    def failed(self, operation: str, error: Exception) -> None:
        """Counts `error`, unless it is an answer: that a file to be read or removed is not there,
        or that another request is writing to it."""
        if isinstance(error, Busy):
            return
        if isinstance(error, PathNotFound) and operation in (GET_CONTENT, DELETE):
            return
        code = error.code if isinstance(error, StorageError) else UNKNOWN
        self._add(ERRORS, operation, code if code in CODES else UNKNOWN)


def _operation(step: Step) -> str:
    if isinstance(step, Publish):
        moves = any(isinstance(entry, Move) for group in step.groups for entry in group)
        return MOVE if moves else PUT_CONTENT
    return _OPERATIONS[type(step)]


def _check_step(step: Step) -> None:
    if isinstance(step, Publish):
        for group in step.groups:
            for entry in group:
                for path in _entry_paths(entry):
                    check_path(path)
    elif step.path != "/" or not isinstance(step, Stat | Names):
        check_path(step.path)
        if isinstance(step, Delete):
            for name in step.files:
                check_path(f"{step.path}/{name}")


def _entry_paths(entry: Entry) -> Iterator[str]:
    if isinstance(entry, Move):
        yield entry.source
        yield entry.target
    else:
        yield entry.path
        if isinstance(entry, PutFolder):
            for name, _ in entry.files:
                yield f"{entry.path}/{name}"
