"""HTTP responses out of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.wire import (
    MalformedResponse,
    Response,
    local_path,
    next_page,
    parse_chunks,
    parse_response,
    with_digest,
)

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Name: a: b\r\n\r\nhello"


def test_body_is_cut_by_its_length() -> None:
    answer = parse_response(_OK + b"HTTP/1.1 404", "GET")
    assert answer is not None
    response, end = answer
    assert (response.status, response.body, end) == (200, b"hello", len(_OK))
    assert response.headers["x-name"] == "a: b"


@pytest.mark.parametrize("length", range(len(_OK)))
def test_every_prefix_is_incomplete(length: int) -> None:
    assert parse_response(_OK[:length], "GET") is None


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([b"", b"Digest: x\r\n", b"A: b\r\nC: d\r\n"]),
)
def test_chunks_are_joined_and_no_prefix_is_complete(chunks: list[bytes], trailers: bytes) -> None:
    coded = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    coded += b"0\r\n" + trailers + b"\r\n"
    assert parse_chunks(coded + b"next", 0) == (b"".join(chunks), len(coded))
    assert all(parse_chunks(coded[:length], 0) is None for length in range(len(coded)))


def test_broken_chunk_size_is_malformed() -> None:
    with pytest.raises(MalformedResponse):
        parse_chunks(b"xyz\r\n", 0)


def test_chunked_response_needs_no_length() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    assert parse_response(raw, "GET") == (
        Response(200, {"transfer-encoding": "Chunked"}, b"ab"),
        len(raw),
    )


def test_interim_answer_is_skipped() -> None:
    answer = parse_response(b"HTTP/1.1 100 Continue\r\n\r\n" + _OK, "PUT")
    assert answer is not None
    assert answer[0].status == 200


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)], ids=["head", "204", "304"]
)
def test_answers_without_a_body_end_with_their_head(method: str, status: int) -> None:
    raw = b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\n" % status
    answer = parse_response(raw, method)
    assert answer is not None
    assert (answer[0].body, answer[1]) == (b"", len(raw))


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"]
)
def test_no_length_or_no_status_line_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedResponse):
        parse_response(raw, "GET")


def test_connection_close_is_seen() -> None:
    assert Response(200, {"connection": "Close"}, b"").closes
    assert not Response(200, {}, b"").closes


def test_next_page_is_the_local_part_of_the_link() -> None:
    link = '<https://host:5000/v2/_catalog?n=2&last=b%2Fc>; rel="next"'
    assert next_page(Response(200, {"link": link}, b"")) == "/v2/_catalog?n=2&last=b%2Fc"
    assert next_page(Response(200, {}, b"")) is None


def test_digest_joins_a_location_with_and_without_a_query() -> None:
    assert local_path("http://h/v2/a?x=1") == "/v2/a?x=1"
    assert with_digest("/v2/a", "sha256:0") == "/v2/a?digest=sha256:0"
    assert with_digest("http://h/v2/a?_state=s", "sha256:0") == "/v2/a?_state=s&digest=sha256:0"
