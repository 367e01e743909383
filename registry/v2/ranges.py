"""Range headers of blob reads (RFC 9110, 14) and Content-Range of upload chunks (OCI
distribution-spec, "Chunked")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from oci.errors import RangeInvalid, SizeInvalid, UploadContentInvalid

_BYTES: Final = re.compile(r"bytes=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.ASCII | re.IGNORECASE)
_CONTENT: Final = re.compile(r"(?:bytes )?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `start`."""

    start: int
    length: int


class Unsatisfiable(Exception):
    """No byte of the representation is in the range."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range of a Range header over `size` bytes; None where the whole is to be sent: no
    header, another unit, or several ranges.

    Raises Unsatisfiable, also for a backward range such as `500-0`.
    """
    if header is None:
        return None
    match = _BYTES.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        if length == 0:
            raise Unsatisfiable
        return ByteRange(size - length, length)
    start = int(match[1])
    end = int(match[2]) if match[2] else size - 1
    if start >= size or end < start:
        raise Unsatisfiable
    return ByteRange(start, min(end, size - 1) - start + 1)


def parse_content_range(header: str | None, length: int | None) -> int | None:
    """Where the chunk of a request begins, by its Content-Range; None without one. `length`:
    Content-Length or None.

    Raises UploadContentInvalid (not a range), RangeInvalid (backward), SizeInvalid (Content-Length
    is another).
    """
    if header is None:
        return None
    match = _CONTENT.fullmatch(header.strip())
    if match is None:
        raise UploadContentInvalid("Content-Range must be <first byte>-<last byte>", header[:100])
    start, end = int(match[1]), int(match[2])
    if start > end:
        raise RangeInvalid(f"Content-Range {start}-{end} runs backward")
    if length is not None and end - start + 1 != length:
        raise SizeInvalid(
            f"Content-Range has {end - start + 1} bytes, Content-Length is {length}",
            {"range": end - start + 1, "length": length},
        )
    return start
