from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from serving.health import Health


class Check:
    """A check whose outcome the test sets."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.runs = 0
        self.hang = asyncio.Event()
        self.hang.set()

    async def __call__(self) -> None:
        self.runs += 1
        await self.hang.wait()
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def running(health: Health) -> AsyncIterator[None]:
    task = asyncio.create_task(health.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # a prober knows of no event either
            await asyncio.sleep(0.001)


def status(health: Health, path: str = "/readyz") -> int:
    answer = health.respond(path, "GET")
    assert answer is not None
    return answer[0]


@pytest.mark.parametrize("path", ["/v2/", "/healthz/", "/live", "", "/livez/x"])
def test_other_paths_are_not_answered(path: str) -> None:
    assert Health().respond(path, "GET") is None


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/healthz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_are_200_empty_and_not_cached(path: str, method: str) -> None:
    answer = Health().respond(path, method)
    assert answer is not None
    code, headers, body = answer
    assert (code, body) == (200, b"")
    assert (b"cache-control", b"no-cache") in headers
    assert (b"content-length", b"0") in headers


def test_other_methods_are_405() -> None:
    answer = Health().respond("/readyz", "POST")
    assert answer is not None
    assert answer[0] == 405
    assert (b"allow", b"GET, HEAD") in answer[1]


async def test_not_ready_before_each_check_has_passed_once() -> None:
    health, check = Health(), Check()
    check.hang.clear()
    health.add("storage", check, interval=0.001)
    async with running(health):
        await until(lambda: check.runs == 1)
        assert status(health) == 503
        check.hang.set()
        await until(lambda: status(health) == 200)


async def test_a_failing_check_is_named_but_not_its_cause() -> None:
    health, check = Health(), Check()
    check.error = OSError("https://user:password@store.example.org is down")
    health.add("storage", check, interval=0.001, threshold=1)
    async with running(health):
        await until(lambda: check.runs > 2)
        answer = health.respond("/readyz", "GET")
        assert answer is not None
        assert answer[0] == 503
        assert json.loads(answer[2]) == {"ready": False, "failing": ["storage"]}
        assert status(health, "/healthz") == 503
        assert status(health, "/livez") == 200
        assert status(health, "/") == 200


async def test_head_of_a_failing_probe_has_the_headers_of_get_and_no_body() -> None:
    health = Health()
    health.stop()
    get, head = health.respond("/readyz", "GET"), health.respond("/readyz", "HEAD")
    assert get is not None
    assert head is not None
    assert head[:2] == get[:2]
    assert head[2] == b""
    assert (b"content-length", str(len(get[2])).encode()) in get[1]


async def test_fewer_failures_than_the_threshold_do_not_count() -> None:
    health, check = Health(), Check()
    health.add("storage", check, interval=0.002, threshold=1000)
    async with running(health):
        await until(lambda: status(health) == 200)
        check.error = OSError("down")
        before = check.runs
        await until(lambda: check.runs > before + 5)
        assert status(health) == 200


async def test_one_pass_after_an_outage_makes_ready() -> None:
    health, check = Health(), Check()
    health.add("storage", check, interval=0.001, threshold=2)
    async with running(health):
        await until(lambda: status(health) == 200)
        check.error = OSError("down")
        await until(lambda: status(health) == 503)
        check.error = None
        await until(lambda: status(health) == 200)


async def test_a_hanging_check_fails_and_does_not_pile_up() -> None:
    health, check = Health(), Check()
    health.add("storage", check, interval=0.001, threshold=2, timeout=0.005)
    async with running(health):
        await until(lambda: status(health) == 200)
        check.hang.clear()
        await until(lambda: status(health) == 503)
        runs = check.runs
        await asyncio.sleep(0.05)
        assert check.runs == runs
        check.hang.set()
        await until(lambda: status(health) == 200)


async def test_one_hanging_check_does_not_stop_the_others() -> None:
    health, stuck, other = Health(), Check(), Check()
    stuck.hang.clear()
    health.add("stuck", stuck, interval=0.001, timeout=0.005)
    health.add("other", other, interval=0.001)
    async with running(health):
        await until(lambda: other.runs > 3)
        assert health.failing() == ["stuck"]


async def test_a_stopping_process_is_not_ready_but_alive() -> None:
    health, check = Health(), Check()
    health.add("storage", check, interval=0.001)
    async with running(health):
        await until(lambda: status(health) == 200)
        health.stop()
        assert health.failing() == ["shutdown"]
        assert status(health) == 503
        assert status(health, "/livez") == 200
