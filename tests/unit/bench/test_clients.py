"""Requests as they go over the wire."""

from __future__ import annotations

import pytest

from bench.clients import RequestFailed, Target, check
from bench.wire import Response


def _lines(
    method: str, headers: str = "", body: bytes = b"", length: int | None = None
) -> list[str]:
    wire = Target(5000).wire(method, "/v2/", headers, body, length=length)
    assert wire.method == method
    return wire.data.decode().split("\r\n")


def test_request_without_a_body_has_no_length() -> None:
    assert _lines("GET", "Accept: x\r\n") == [
        *("GET /v2/ HTTP/1.1", "Host: 127.0.0.1:5000", "Accept: x"),
        *("", ""),
    ]


def test_empty_upload_request_says_so() -> None:
    assert "Content-Length: 0" in _lines("POST")


def test_body_follows_with_its_length() -> None:
    assert _lines("PUT", body=b"abc")[-3:] == ["Content-Length: 3", "", "abc"]


def test_length_of_a_body_sent_later_is_the_callers() -> None:
    assert "Content-Length: 99" in _lines("PATCH", length=99)


def test_chunked_body_has_no_length() -> None:
    lines = _lines("PATCH", "Transfer-Encoding: chunked\r\n")
    assert not [line for line in lines if line.startswith("Content-Length")]


def test_url_follows_the_scheme() -> None:
    assert Target(5000).url == "http://127.0.0.1:5000"


def test_unexpected_status_is_refused_with_the_servers_words() -> None:
    check(Response(201, {}, b""), "PUT blob", (201,))
    with pytest.raises(RequestFailed, match=r"PUT blob: 400 .*DIGEST_INVALID"):
        check(Response(400, {}, b"DIGEST_INVALID"), "PUT blob", (201,))
