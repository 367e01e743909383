"""Addresses."""

from __future__ import annotations

import contextlib
import socket

import pytest

from serving.listening import listen, split


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (":5000", ("", 5000)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:5000", ("::1", 5000)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert split(address) == expected


@pytest.mark.parametrize(
    "address", ["", "5000", "::1:5000", "a:", "a:b", "a:-1", "a:65536", "a:٣", "[::1]"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError):
        split(address)


def test_a_bare_port_listens_on_both_families() -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(made) for made in listen(":0")]
        assert len({made.getsockname()[1] for made in sockets}) == 1
        for made in sockets:
            host = "127.0.0.1" if made.family == socket.AF_INET else "::1"
            socket.create_connection((host, made.getsockname()[1])).close()


def test_a_host_is_one_socket() -> None:
    [made] = listen("localhost:0")
    with made:
        socket.create_connection(made.getsockname()[:2]).close()


def test_a_port_in_use_is_an_error() -> None:
    [made] = listen("127.0.0.1:0")
    with made, pytest.raises(OSError):
        listen(f"127.0.0.1:{made.getsockname()[1]}")
