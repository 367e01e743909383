"""RFC 9112, 2 to 6: heads of requests."""

from __future__ import annotations

import pytest

from serving.request_head import HEAD_LIMIT, HeadInvalid, HeadParser

HEAD = (
    b"PUT /v2/a%2Fb/%C3%A4?digest=sha256%3Aff&x HTTP/1.1\r\nHost: registry\r\n"
    b"Content-Length: 12\r\nX-A:  b \r\nExpect: 100-Continue\r\n\r\n"
)


@pytest.mark.parametrize("step", range(1, 20))
def test_a_head_in_pieces_of_any_size_is_the_same(step: int) -> None:
    parser = HeadParser()
    received = HEAD + b"the body....GET / HTTP/1.1\r\n\r\n"
    position = 0
    while position < len(received):
        piece = received[position : position + step]
        end = parser.feed(piece)
        if end:
            position += end
            break
        position += len(piece)
    assert position == len(HEAD)
    assert parser.method == "PUT"
    assert parser.target() == ("/v2/a/b/ä", b"/v2/a%2Fb/%C3%A4", b"digest=sha256%3Aff&x")
    assert parser.headers == [
        (b"host", b"registry"),
        (b"content-length", b"12"),
        (b"x-a", b"b"),
        (b"expect", b"100-Continue"),
    ]
    assert (parser.length, parser.chunked, parser.expects_continue) == (12, False, True)
    assert parser.keep_alive
    assert not parser.plain


@pytest.mark.parametrize("cut", range(1, len(HEAD)))
def test_a_head_cut_anywhere_ends_at_the_same_byte(cut: int) -> None:
    parser = HeadParser()
    assert parser.feed(HEAD[:cut]) == 0
    assert parser.begun
    assert parser.feed(HEAD[cut:] + b"body") == len(HEAD) - cut


def test_the_same_parser_takes_the_next_head() -> None:
    parser = HeadParser()
    head = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(3):
        assert parser.feed(head + head) == len(head)
        assert parser.plain
        assert parser.target()[0] == "/a"
        parser.reset()
        assert not parser.begun


def test_empty_lines_before_a_request_are_read_over() -> None:
    parser = HeadParser()
    received = b"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\nrest"
    assert parser.feed(received) == len(received) - 4


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a?b?c", ("/a", b"/a", b"b?c")),
        (b"/a#f?x", ("/a", b"/a", b"")),
        (b"/%zz%41", ("/%zzA", b"/%zz%41", b"")),
        (b"http://host:5/p%20q?x=y", ("/p q", b"/p%20q", b"x=y")),
        (b"http://host", ("/", b"/", b"")),
        (b"*", ("*", b"*", b"")),
    ],
)
def test_targets(target: bytes, expected: tuple[str, bytes, bytes]) -> None:
    parser = HeadParser()
    parser.feed(b"OPTIONS " + target + b" HTTP/1.1\r\n\r\n")
    assert parser.target() == expected


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"FETCH / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        (b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\n\r\n", 400),
    ],
)
def test_what_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(HeadInvalid) as refused:
        HeadParser().feed(head)
    assert refused.value.status == status


@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_a_head_over_the_limit_is_431_wherever_it_is_cut(step: int) -> None:
    def feed(size: int) -> int:
        head = b"GET / HTTP/1.1\r\nAuthorization: " + b"x" * (size - 35) + b"\r\n\r\n"
        assert len(head) == size
        parser = HeadParser()
        return sum(parser.feed(head[start : start + step]) for start in range(0, size, step))

    assert feed(HEAD_LIMIT) > 0
    with pytest.raises(HeadInvalid) as refused:
        feed(HEAD_LIMIT + 1)
    assert refused.value.status == 431


def test_an_upgrade_is_an_ordinary_request() -> None:
    parser = HeadParser()
    head = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert parser.feed(head + b"x") == len(head)
    assert not parser.plain
    parser.renew()
    assert parser.feed(b"GET / HTTP/1.1\r\n\r\n") > 0


def test_http_1_0_is_not_kept_alive_and_not_told_to_continue() -> None:
    parser = HeadParser()
    parser.feed(
        b"PUT / HTTP/1.0\r\nConnection: keep-alive\r\n"
        b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    )
    assert not parser.keep_alive
    assert not parser.expects_continue
