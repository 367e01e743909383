"""Threads for local files. A file system may hang (a lost NFS server), so no file call is made on
the event loop.

`QuickLane` is for jobs of a few system calls: those of one turn of the loop go to a worker in one
list and come back in one list, because waking a thread and waking the loop cost more than the jobs.
`SlowLane` is for jobs that sync, stream or scan: each has a thread to itself.

A job that was handed over runs to its end, also when nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SHARE_AFTER: Final = 0.02
"""seconds after which a worker lets the others have the rest of its list: slow storage, not slow
code"""

_Job = tuple["asyncio.Future[Any]", Callable[[Any], Any], Any]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class _Batch:
    """The jobs of one turn of one loop."""

    __slots__ = ("jobs", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, jobs: Sequence[_Job] = ()) -> None:
        self.loop = loop
        self.jobs = list(jobs)


_Queue = SimpleQueue[_Batch | None]


class QuickLane:
    """Runs short blocking jobs of the running event loop, be it one loop after another."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._queue: _Queue = SimpleQueue()
        self._batch: _Batch | None = None
        self._started = False
        self._closed = False

    def submit(self, job: Callable[[Any], T], argument: Any) -> asyncio.Future[T]:
        """The future result of `job(argument)`. To be called on the loop. Raises RuntimeError after
        `close`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        batch = self._batch
        if batch is None or batch.loop is not loop:
            self._start()
            batch = self._batch = _Batch(loop)
            loop.call_soon(self._flush, batch)
        batch.jobs.append((future, job, argument))
        return future

    def close(self) -> None:
        """Lets the threads end when all that was submitted is done. Does not wait for them."""
        if self._batch is not None:
            self._flush(self._batch)
        self._closed = True
        if self._started:
            for _ in range(self._threads):
                self._queue.put(None)

    def _start(self) -> None:
        if self._closed:
            raise RuntimeError("the storage driver is closed")
        if self._started:
            return
        # Not in the constructor: threads do not survive a fork, and an unused driver needs none.
        self._started = True
        for number in range(self._threads):
            name = f"storage-quick-{number}"
            threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True).start()

    def _flush(self, batch: _Batch) -> None:
        if self._batch is batch:
            self._batch = None
        if batch.jobs:
            self._queue.put(_Batch(batch.loop, batch.jobs))
            batch.jobs = []


class SlowLane:
    """Runs blocking jobs, each in a thread to itself, at most `threads` at once; the others wait
    their turn."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._queue: _Queue = SimpleQueue()
        self._started = 0
        self._unfinished = 0
        self._lock = threading.Lock()
        self._closed = False
        self._pool: ThreadPoolExecutor | None = None

    @property
    def pool(self) -> ThreadPoolExecutor:
        """Threads for what wants an executor of the standard library."""
        if self._closed:
            raise RuntimeError("the storage driver is closed")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="storage-read")
        return self._pool

    def submit(self, job: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """The future result of `job(*args)`. To be called on the loop. Raises RuntimeError after
        `close`."""
        if self._closed:
            raise RuntimeError("the storage driver is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            self._unfinished += 1
            more = self._started < min(self._unfinished, self._threads)
        if more:
            name = f"storage-slow-{self._started}"
            self._started += 1
            threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True).start()
        self._queue.put(_Batch(loop, [(future, self._call, (job, args))]))
        return future

    def close(self) -> None:
        """Lets the threads end when all that was submitted is done. Does not wait for them."""
        self._closed = True
        for _ in range(self._started):
            self._queue.put(None)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _call(self, given: tuple[Callable[..., T], tuple[Any, ...]]) -> T:
        job, args = given
        try:
            return job(*args)
        finally:
            # Here, and not when the future is done: the job of a cancelled caller has its thread
            # until it ends.
            with self._lock:
                self._unfinished -= 1


def _work(queue: _Queue) -> None:
    # No local variable may keep a batch while the thread waits: results that nobody took close
    # their files on release.
    while _run(queue, queue.get()):
        pass


def _run(queue: _Queue, batch: _Batch | None) -> bool:
    """Runs the jobs of a batch and hands the outcomes to its loop; False for the end of the
    thread."""
    if batch is None:
        return False
    jobs = batch.jobs
    outcomes: list[_Outcome] = []
    started = time.monotonic()
    for future, job, argument in jobs:
        outcomes.append((future, *_outcome(job, argument)))
        if time.monotonic() - started > SHARE_AFTER:
            break
    rest = jobs[len(outcomes) :]
    middle = (len(rest) + 1) // 2
    for half in (rest[:middle], rest[middle:]):
        if half:
            queue.put(_Batch(batch.loop, half))
    try:
        batch.loop.call_soon_threadsafe(_deliver, outcomes)
    except RuntimeError:
        outcomes.clear()  # The loop was closed: nobody waits for them.
    # An exception's traceback leads back to this frame; what leads from here to the exception would
    # be a cycle, and hold the job's objects, open files among them, until the next collection.
    del batch, jobs, rest, half, future, outcomes
    return True


def _outcome(job: Callable[[Any], Any], argument: Any) -> tuple[Any, BaseException | None]:
    try:
        return job(argument), None
    except BaseException as error:
        return None, error


def _deliver(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():
            continue  # The caller was cancelled.
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            # Marks it as seen: a caller cancelled in this very turn would have it logged as never
            # retrieved.
            future.exception()
