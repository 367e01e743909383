import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import RangeInvalid, RegistryError, SizeInvalid, UploadContentInvalid
from registry.v2.ranges import ByteRange, Unsatisfiable, parse_content_range, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=0-99", ByteRange(0, 10)),
        ("bytes=3-", ByteRange(3, 7)),
        ("bytes=-4", ByteRange(6, 4)),
        ("bytes=-400", ByteRange(0, 10)),
        ("Bytes=2-3", ByteRange(2, 2)),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_over_ten_bytes(header: str | None, expected: ByteRange | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-20", "bytes=5-3", "bytes=-0", "bytes=500-0"]
)
def test_a_range_without_a_byte_is_unsatisfiable(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 10)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_range_is_the_slice_that_it_says(start: int, end: int, size: int) -> None:
    content = bytes(range(size))
    try:
        part = parse_range(f"bytes={start}-{end}", size)
    except Unsatisfiable:
        assert start >= size or end < start
        return
    assert part is not None
    assert content[part.start : part.start + part.length] == content[start : end + 1]


@given(st.text(max_size=30), st.integers(0, 100))
def test_any_range_header_is_a_part_or_nothing(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except Unsatisfiable:
        return
    assert part is None or (
        part.start >= 0 and part.length > 0 and part.start + part.length <= size
    )


@pytest.mark.parametrize("header", ["5-9", "bytes 5-9", "bytes 5-9/10", "5-9/*"])
def test_a_content_range_gives_its_start(header: str) -> None:
    assert parse_content_range(header, 5) == 5
    assert parse_content_range(header, None) == 5
    with pytest.raises(SizeInvalid):
        parse_content_range(header, 4)


def test_no_content_range_is_none() -> None:
    assert parse_content_range(None, 4) is None


@pytest.mark.parametrize("header", ["", "5", "5-", "-5", "a-b", "5-9-1", "bytes=5-9", "٣-٤"])
def test_what_is_no_content_range_is_refused(header: str) -> None:
    with pytest.raises(UploadContentInvalid):
        parse_content_range(header, 5)


def test_a_backward_content_range_is_out_of_order() -> None:
    with pytest.raises(RangeInvalid):
        parse_content_range("9-5", None)


@given(st.text(max_size=30), st.none() | st.integers(0, 100))
def test_any_content_range_is_taken_or_refused(header: str, length: int | None) -> None:
    try:
        start = parse_content_range(header, length)
        assert start is not None and start >= 0
    except RegistryError:
        pass
