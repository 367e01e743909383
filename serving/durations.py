"""Durations as Go writes them: `1h30m`, `10s`, `0s` (Go, time.ParseDuration)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final, Self

_NANOSECONDS: Final = {
    "h": 3600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "ns": 1,
}
_PART: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{0,19})?|\.[0-9]{1,19})(h|ms|m|s|[uµμ]s|ns)")
_LONGEST: Final = 2**63 - 1
"""nanoseconds, as in Go"""


class Duration(float):
    """A time in seconds that is not negative; its text is Go's."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The duration that `text` spells. Raises ValueError."""
        total = Fraction(0)
        position = 0
        while part := _PART.match(text, position):
            unit = "us" if part[2] in ("µs", "μs") else part[2]
            total += Fraction(part[1]) * _NANOSECONDS[unit]
            position = part.end()
        if text != "0" and (not position or position < len(text) or total > _LONGEST):
            raise ValueError(f"must be a duration such as 1h30m, 10s or 0s, not {text[:40]!r}")
        return cls(Fraction(int(total), 10**9))

    def __str__(self) -> str:
        left = round(Fraction(self) * 10**9)
        text = ""
        for unit, size in _NANOSECONDS.items():
            count, left = divmod(left, size)
            if count:
                text += f"{count}{unit}"
        return text or "0s"
