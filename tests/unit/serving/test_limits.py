from __future__ import annotations

import asyncio

import pytest

from serving.limits import LimitExceeded, RequestLimiter, request_limiter


async def settle() -> None:
    """Lets all tasks that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class Visitor:
    """A task that goes through a limiter, and stays inside until it is told to leave."""

    def __init__(
        self, limiter: RequestLimiter, name: str = "", inside: list[str] | None = None
    ) -> None:
        self._limiter = limiter
        self._name = name
        self._inside = inside if inside is not None else []
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit())

    async def _visit(self) -> None:
        async with self._limiter:
            self._inside.append(self._name)
            await self.leave.wait()


def test_no_limit_needs_no_limiter() -> None:
    assert request_limiter(0, max_in_queue=5, max_wait=1.0) is None


def test_a_limit_makes_a_limiter() -> None:
    assert isinstance(request_limiter(1), RequestLimiter)


def test_a_limiter_that_lets_nobody_in_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        RequestLimiter(0)


async def test_only_as_many_as_allowed_run_at_once() -> None:
    limiter = RequestLimiter(2)
    visitors = [Visitor(limiter) for _ in range(5)]
    await settle()
    assert (limiter.running, limiter.waiting) == (2, 3)
    for visitor in visitors:
        visitor.leave.set()
    await asyncio.gather(*(visitor.task for visitor in visitors))
    assert (limiter.running, limiter.waiting) == (0, 0)


async def test_first_come_first_served() -> None:
    limiter = RequestLimiter(1)
    inside: list[str] = []
    visitors = [Visitor(limiter, name, inside) for name in "abcd"]
    for count, visitor in enumerate(visitors, 1):
        await settle()
        assert inside == list("abcd"[:count])
        visitor.leave.set()
    await asyncio.gather(*(visitor.task for visitor in visitors))


async def test_a_newcomer_does_not_overtake_the_queue() -> None:
    limiter = RequestLimiter(1)
    inside: list[str] = []
    first, second = Visitor(limiter, "first", inside), Visitor(limiter, "second", inside)
    await settle()
    first.leave.set()
    await asyncio.sleep(0)
    third = Visitor(limiter, "third", inside)
    await settle()
    assert inside == ["first", "second"]
    second.leave.set()
    third.leave.set()
    await asyncio.gather(first.task, second.task, third.task)


async def test_a_full_queue_refuses_at_once() -> None:
    limiter = RequestLimiter(1, max_in_queue=1)
    visitors = [Visitor(limiter), Visitor(limiter)]
    await settle()
    with pytest.raises(LimitExceeded, match="full"):
        async with limiter:
            pass
    for visitor in visitors:
        visitor.leave.set()
    await asyncio.gather(*(visitor.task for visitor in visitors))


async def test_a_long_wait_is_refused_and_frees_the_queue() -> None:
    limiter = RequestLimiter(1, max_in_queue=1, max_wait=0.01)
    visitor = Visitor(limiter)
    await settle()
    with pytest.raises(LimitExceeded, match="too long"):
        async with limiter:
            pass
    assert (limiter.running, limiter.waiting) == (1, 0)
    visitor.leave.set()
    await visitor.task
    assert limiter.running == 0


async def test_without_a_longest_wait_one_waits_for_ever() -> None:
    limiter = RequestLimiter(1)
    visitors = [Visitor(limiter), Visitor(limiter)]
    await asyncio.sleep(0.05)
    assert limiter.waiting == 1
    for visitor in visitors:
        visitor.leave.set()
    await asyncio.gather(*(visitor.task for visitor in visitors))


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    limiter = RequestLimiter(1, max_in_queue=1)
    first, second = Visitor(limiter), Visitor(limiter)
    await settle()
    second.task.cancel()
    await settle()
    assert limiter.waiting == 0
    third = Visitor(limiter)
    first.leave.set()
    third.leave.set()
    await asyncio.gather(first.task, third.task)
    assert limiter.running == 0


async def test_a_place_given_to_a_waiter_cancelled_in_the_same_turn_goes_on_to_the_next() -> None:
    limiter = RequestLimiter(1)
    inside: list[str] = []
    visitors = [Visitor(limiter, name, inside) for name in "abc"]
    await settle()
    visitors[0].leave.set()
    await asyncio.sleep(0)  # "a" leaves: the place is "b"'s, whose task has not run yet
    visitors[1].task.cancel()
    await settle()
    assert inside == ["a", "c"]
    visitors[2].leave.set()
    await asyncio.gather(visitors[0].task, visitors[2].task)
    assert (limiter.running, limiter.waiting) == (0, 0)


async def test_a_failed_request_gives_its_place_back() -> None:
    limiter = RequestLimiter(1)
    with pytest.raises(KeyError):
        async with limiter:
            raise KeyError
    assert limiter.running == 0
