"""How a process stops, and how it stands in for others that stop (signals, drain, workers)."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.unit.serving.loopback import PATIENCE, Client, expected_digest, hello, serving, until


class Process:
    def __init__(self, *, workers: int = 1, delay: float = 0.0, timeout: float = 5.0) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.unit.serving.process"),
                *(str(workers), str(delay), str(timeout)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.port = int(self.word())
        for _ in range(workers):
            self.expect("started")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._words.put(line.strip())
        self._words.put("")

    def word(self) -> str:
        return self._words.get(timeout=PATIENCE)

    def expect(self, word: str) -> None:
        assert self.word() == word

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE))

    def listens(self) -> bool:
        try:
            self.connect().socket.close()
        except ConnectionRefusedError:
            return False
        return True

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int:
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def process(*, workers: int = 1, delay: float = 0.0, timeout: float = 5.0) -> Iterator[Process]:
    made = Process(workers=workers, delay=delay, timeout=timeout)
    try:
        yield made
    finally:
        made.end()


def test_sigterm_within_a_get_lets_it_end() -> None:
    with process() as server, server.connect() as client, server.connect() as idle:
        idle.get("/pid")
        client.send(b"GET /slow?0.5 HTTP/1.1\r\n\r\n")
        server.expect("slow")
        server.signal(signal.SIGTERM)
        server.expect("stopping")
        assert idle.closed()
        until(lambda: not server.listens())
        response = client.response()
        assert (response.content, response.headers["connection"]) == (b"slow", "close")
        assert client.closed()
        server.expect("closed")
        assert server.exit_code() == 0


def test_sigterm_within_a_push_lets_it_end() -> None:
    with process() as server, server.connect() as client:
        content = b"x" * (10 << 20)
        client.send(b"PUT /digest HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(content))
        client.send(content[: 5 << 20])
        server.signal(signal.SIGTERM)
        server.expect("stopping")
        time.sleep(0.1)
        client.send(content[5 << 20 :])
        assert client.response().content == expected_digest(content)
        server.expect("closed")
        assert server.exit_code() == 0


@pytest.mark.parametrize("moving", [True, False])
def test_a_push_that_does_not_end_in_time_is_cancelled_with_what_it_had(moving: bool) -> None:
    with process(timeout=0.3) as server, server.connect() as client:
        client.send(b"PUT /pump HTTP/1.1\r\nContent-Length: 9000000000\r\n\r\n")
        client.send(b"x" * 1000)
        server.expect("pumping")
        server.signal(signal.SIGTERM)
        server.expect("stopping")
        sent = 1000
        with contextlib.suppress(OSError):
            while moving:
                client.send(b"x" * 100_000)
                sent += 100_000
        error, _, received = server.word().partition(":")
        assert error == "CancelledError"
        assert 1000 <= int(received) <= sent + 100_000
        server.expect("closed")
        assert server.exit_code() == 0


def test_the_drain_delay_goes_on_accepting_and_says_goodbye_to_each_client() -> None:
    with process(delay=0.6) as server, server.connect() as idle:
        idle.get("/pid")
        server.signal(signal.SIGTERM)
        server.expect("stopping")
        begun = time.monotonic()
        with server.connect() as client:
            response = client.get("/pid")
            assert response.status == 200
            assert response.headers["connection"] == "close"
        assert idle.closed()
        assert time.monotonic() - begun > 0.4
        server.expect("closed")
        assert server.exit_code() == 0


def test_a_second_sigterm_skips_the_delay() -> None:
    with process(delay=30) as server:
        server.signal(signal.SIGTERM)
        server.expect("stopping")
        server.signal(signal.SIGTERM)
        server.expect("closed")
        assert server.exit_code() == 0


def test_sigint_ends_at_once() -> None:
    with process(delay=30, timeout=30) as server, server.connect() as client:
        client.send(b"GET /slow?30 HTTP/1.1\r\n\r\n")
        server.expect("slow")
        begun = time.monotonic()
        server.signal(signal.SIGINT)
        server.expect("stopping")
        server.expect("closed")
        assert server.exit_code() == 0
        assert time.monotonic() - begun < 4
        assert client.closed()


def test_a_connection_that_was_just_made_gets_its_first_answer() -> None:
    with serving({"/hello": hello}, drain_timeout=3) as server:
        client = server.connect()
        time.sleep(0.1)
        server.stop()
        time.sleep(0.2)
        response = client.get("/hello")
        assert (response.content, response.headers["connection"]) == (b"hello", "close")
        client.socket.close()
    assert server.exit_code == 0


def test_an_application_that_cannot_start_is_an_exit_code() -> None:
    script = (
        "from serving.listening import listen\n"
        "from serving.server import HTTPServer, ServerOptions\n"
        "async def broken(scope, receive, send): raise RuntimeError('no storage')\n"
        "raise SystemExit(HTTPServer(broken, ServerOptions(listen('127.0.0.1:0'))).run())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 3


# Worker processes.


def pids(server: Process, count: int) -> set[int]:
    """Process ids behind the port, until `count` of them were seen."""
    seen: set[int] = set()
    end = time.monotonic() + PATIENCE
    while len(seen) < count:
        assert time.monotonic() < end
        clients = [server.connect() for _ in range(4)]
        for client in clients:
            client.send(b"GET /pid HTTP/1.1\r\n\r\n")
        for client in clients:
            seen.add(int(client.response().content))
            client.socket.close()
    return seen


def test_two_workers_share_the_port_and_end_with_their_parent() -> None:
    with process(workers=2) as server:
        workers = pids(server, 2)
        assert server.pid not in workers
        with server.connect() as client:
            client.send(b"GET /slow?0.3 HTTP/1.1\r\n\r\n")
            server.expect("slow")
            server.signal(signal.SIGTERM)
            assert client.response().content == b"slow"
        assert sorted(server.word() for _ in range(4)) == ["closed"] * 2 + ["stopping"] * 2
        assert server.exit_code() == 0
        assert not any(alive(pid) for pid in workers)
        assert not server.listens()


def test_a_worker_that_dies_is_replaced() -> None:
    with process(workers=2) as server:
        first = pids(server, 2)
        os.kill(min(first), signal.SIGKILL)
        server.expect("started")
        second = pids(server, 2)
        assert len(first & second) == 1
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0


def test_workers_do_not_outlive_a_parent_that_was_killed() -> None:
    with process(workers=2) as server:
        workers = pids(server, 2)
        server.signal(signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in workers))


def test_workers_that_cannot_start_end_the_whole() -> None:
    script = (
        "from serving.listening import listen\n"
        "from serving.workers import run\n"
        "raise SystemExit(run(2, listen('127.0.0.1:0'), lambda index: 3))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 3


def test_one_worker_is_this_process() -> None:
    from serving.workers import run

    assert run(1, [], lambda index: index + os.getpid()) == os.getpid()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
