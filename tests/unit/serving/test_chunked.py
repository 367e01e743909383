"""RFC 9112, 7.1: the chunked coding taken apart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.body import BodyInvalid
from serving.chunked import LINE_LIMIT, TRAILER_LIMIT, Counted, Dechunker, Framing

FOLLOWING = b"GET / HTTP/1.1\r\n\r\n"


def fed(framing: Framing, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Body and what followed it, by `feed`."""
    body = b""
    for index, piece in enumerate(pieces):
        body += b"".join(framing.feed(piece))
        if framing.ended:
            return body, framing.rest + b"".join(pieces[index + 1 :])
    return body, framing.rest


def squeezed(framing: Framing, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """The same, in one worker's buffer, at moving offsets."""
    body = b""
    for index, piece in enumerate(pieces):
        start = index % 7
        buffer = bytearray(start) + piece
        end = framing.squeeze(buffer, memoryview(buffer), start, len(buffer))
        body += bytes(buffer[start:end])
        if framing.ended:
            return body, framing.rest + b"".join(pieces[index + 1 :])
    return body, framing.rest


def cut(content: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(content) + 1) for place in places}), len(content)]
    return [content[a:b] for a, b in pairwise(bounds) if a < b]


chunk = st.tuples(
    st.binary(min_size=1, max_size=40),
    st.sampled_from([b"", b";a", b" ;a=b", b'\t ; q="x y"']),
    st.sampled_from([b"%x", b"%X", b"0%x", b"000%X"]),
)
trailers = st.lists(st.sampled_from([b"A: b\r\n", b"Digest: sha256=x\r\n", b"X:\r\n"]), max_size=3)


@given(
    st.lists(chunk, max_size=6), trailers, st.lists(st.integers(0, 500), max_size=30), st.booleans()
)
def test_any_chunking_in_any_pieces_gives_the_body_back(
    chunks: list[tuple[bytes, bytes, bytes]],
    trailer_lines: list[bytes],
    places: list[int],
    by_worker: bool,
) -> None:
    coded = b"".join(
        form % len(content) + extension + b"\r\n" + content + b"\r\n"
        for content, extension, form in chunks
    )
    coded += b"0\r\n" + b"".join(trailer_lines) + b"\r\n"
    pieces = cut(coded + FOLLOWING, places)
    framing = Dechunker()
    body, rest = (squeezed if by_worker else fed)(framing, pieces)
    assert framing.ended
    assert body == b"".join(content for content, _, _ in chunks)
    assert rest == FOLLOWING


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_garbage_is_refused_or_waited_on_but_never_a_crash(
    garbage: bytes, places: list[int]
) -> None:
    for take in (fed, squeezed):
        framing = Dechunker()
        try:
            body, rest = take(framing, cut(garbage, places))
        except BodyInvalid:
            continue
        assert len(body) + len(rest) <= len(garbage)


@given(
    st.lists(
        st.sampled_from([b"5\r\n", b"hello", b"\r\n", b"0", b"\n", b"\r", b";x", b"a: b", b"-"]),
        max_size=30,
    ),
    st.lists(st.integers(0, 100), max_size=10),
)
def test_pieces_of_framing_in_any_order_mean_the_same_in_any_cut(
    parts: list[bytes], places: list[int]
) -> None:
    content = b"".join(parts)

    def result(pieces: list[bytes]) -> tuple[bytes, bytes, bool] | None:
        framing = Dechunker()
        try:
            return (*fed(framing, pieces), framing.ended)
        except BodyInvalid:
            return None

    whole, pieced = result([content] if content else []), result(cut(content, places))
    if whole is not None and whole[2]:
        assert pieced == whole


@pytest.mark.parametrize(
    "coded",
    [
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5_0\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"-1\r\n",
        b"\r\n",
        b"5\nhello\r\n",
        b"5\r\nhelloX",
        b"5\r\nhello\n",
        b"5\r\nhello\r\r",
        b"12345678901234567\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n: nameless\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nA: b\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_not_strictly_chunked_is_refused(coded: bytes, size: int) -> None:
    with pytest.raises(BodyInvalid):
        fed(Dechunker(), [coded[start : start + size] for start in range(0, len(coded), size)])


@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_a_line_over_the_limit_is_refused(size: int) -> None:
    coded = b"5;" + b"x" * LINE_LIMIT + b"\r\nhello\r\n0\r\n\r\n"
    with pytest.raises(BodyInvalid):
        fed(Dechunker(), [coded[start : start + size] for start in range(0, len(coded), size)])


def test_a_line_at_the_limit_is_taken() -> None:
    coded = b"5;" + b"x" * (LINE_LIMIT - 4) + b"\r\nhello\r\n0\r\n\r\n"
    assert fed(Dechunker(), [coded]) == (b"hello", b"")


def test_too_many_trailers_are_refused() -> None:
    coded = b"0\r\n" + b"A: b\r\n" * (TRAILER_LIMIT // 6 + 1) + b"\r\n"
    with pytest.raises(BodyInvalid):
        fed(Dechunker(), [coded])


def test_a_piece_that_is_all_body_is_not_copied() -> None:
    framing = Dechunker()
    framing.feed(b"ffff\r\n")
    piece = b"x" * 1000
    assert framing.feed(piece)[0] is piece
    counted = Counted(2000)
    assert counted.feed(piece)[0] is piece
    assert counted.left == 1000


@given(
    st.binary(min_size=1, max_size=100), st.lists(st.integers(0, 200), max_size=10), st.booleans()
)
def test_a_counted_body_ends_at_its_length(
    content: bytes, places: list[int], by_worker: bool
) -> None:
    framing = Counted(len(content))
    if by_worker:  # a worker never asks for more than the body has
        pieces = cut(content, places)
        assert squeezed(framing, pieces) == (content, b"")
    else:
        assert fed(framing, cut(content + FOLLOWING, places)) == (content, FOLLOWING)
    assert framing.ended
