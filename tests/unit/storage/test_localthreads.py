from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from storage.localthreads import QuickLane, SlowLane


@pytest.fixture
def quick() -> Iterator[QuickLane]:
    lane = QuickLane(2)
    yield lane
    lane.close()


@pytest.fixture
def slow() -> Iterator[SlowLane]:
    lane = SlowLane(2)
    yield lane
    lane.close()


class Thing:
    """Can be referred to weakly."""


def until(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.005)
    return happened()


async def test_jobs_of_one_turn_run_in_one_thread_and_give_their_own_results(
    quick: QuickLane,
) -> None:
    def job(number: int) -> tuple[int, int]:
        return number, threading.get_ident()

    results = await asyncio.gather(*(quick.submit(job, number) for number in range(50)))
    assert [number for number, _ in results] == list(range(50))
    assert len({thread for _, thread in results}) == 1
    assert results[0][1] != threading.get_ident()


async def test_errors_reach_only_their_caller(quick: QuickLane) -> None:
    def job(number: int) -> float:
        return 1 / number

    jobs = [quick.submit(job, number) for number in (1, 0, 2)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], ZeroDivisionError)
    assert results[2] == 0.5


async def test_a_slow_job_does_not_hold_back_those_behind_it_for_long(quick: QuickLane) -> None:
    hung, release = threading.Event(), threading.Event()

    def hang(_: None) -> None:
        hung.set()
        release.wait(5)

    blocked = quick.submit(hang, None)
    await asyncio.sleep(0.01)
    assert hung.is_set()
    assert await asyncio.gather(*(quick.submit(abs, -n) for n in range(5))) == list(range(5))

    threads = set()

    def sleep(_: int) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.03)

    release.set()
    await blocked
    await asyncio.gather(*(quick.submit(sleep, n) for n in range(6)))
    assert len(threads) == 2


async def test_the_job_of_a_cancelled_caller_still_runs(quick: QuickLane, slow: SlowLane) -> None:
    done: list[str] = []

    async def call(lane: str) -> None:
        if lane == "quick":
            await quick.submit(done.append, lane)
        else:
            await slow.submit(done.append, lane)

    release = threading.Event()
    blockers = [slow.submit(release.wait, 5) for _ in range(2)]
    tasks = [asyncio.create_task(call(lane)) for lane in ("quick", "slow")]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await asyncio.gather(*blockers)
    assert until(lambda: sorted(done) == ["quick", "slow"])
    assert await quick.submit(abs, -1) == 1


async def test_results_that_nobody_took_are_let_go(quick: QuickLane) -> None:
    made: list[weakref.ref[Thing]] = []

    def make(error: bool) -> Thing:
        thing = Thing()
        made.append(weakref.ref(thing))
        if error:
            raise ZeroDivisionError
        return thing

    gc.disable()
    try:
        for error in (False, True):
            quick.submit(make, error).cancel()
        await asyncio.sleep(0)
        assert until(lambda: len(made) == 2)
        await asyncio.sleep(0.05)
        assert until(lambda: all(ref() is None for ref in made))
    finally:
        gc.enable()


def test_one_lane_serves_one_loop_after_the_other(quick: QuickLane, slow: SlowLane) -> None:
    async def both() -> list[int]:
        return [await quick.submit(abs, -1), await slow.submit(abs, -2)]

    async def leave_work_behind() -> None:
        quick.submit(time.sleep, 0.05)
        await asyncio.sleep(0)

    assert asyncio.run(both()) == [1, 2]
    asyncio.run(leave_work_behind())
    assert asyncio.run(both()) == [1, 2]


def test_a_batch_of_a_loop_that_ended_is_not_mixed_with_that_of_the_next(quick: QuickLane) -> None:
    async def never_flushed() -> None:
        quick.submit(abs, -5)

    async def call() -> int:
        return await quick.submit(abs, -1)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(never_flushed())
    loop.close()
    assert asyncio.run(call()) == 1


async def test_a_closed_lane_takes_no_jobs_and_its_threads_end() -> None:
    quick, slow = QuickLane(3), SlowLane(3)
    before = threading.active_count()
    last = quick.submit(abs, -3)
    assert await slow.submit(abs, -1) == 1
    quick.close()
    slow.close()
    assert await last == 3
    with pytest.raises(RuntimeError):
        quick.submit(abs, -1)
    with pytest.raises(RuntimeError):
        slow.submit(abs, -1)
    assert until(lambda: threading.active_count() <= before)


def test_no_thread_is_started_before_the_first_job() -> None:
    before = threading.active_count()
    QuickLane(4).close()
    SlowLane(4).close()
    assert threading.active_count() == before


async def test_the_loop_goes_on_while_a_thread_hangs(quick: QuickLane) -> None:
    reader, writer = os.pipe()
    try:
        hanging = quick.submit(lambda fd: os.read(fd, 1), reader)
        started = time.monotonic()
        await asyncio.sleep(0.01)
        assert await quick.submit(abs, -1) == 1
        assert time.monotonic() - started < 1
        assert not hanging.done()
        os.write(writer, b"x")
        assert await hanging == b"x"
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_cancelled_job_that_hangs_holds_up_no_other(slow: SlowLane) -> None:
    release = threading.Event()
    slow.submit(release.wait, 5).cancel()
    assert await asyncio.wait_for(slow.submit(abs, -1), 2) == 1
    release.set()


async def test_jobs_beyond_the_number_of_threads_wait_their_turn(slow: SlowLane) -> None:
    threads = set()

    def job(number: int) -> int:
        threads.add(threading.get_ident())
        time.sleep(0.01)
        return number

    assert await asyncio.gather(*(slow.submit(job, n) for n in range(8))) == list(range(8))
    assert len(threads) == 2
