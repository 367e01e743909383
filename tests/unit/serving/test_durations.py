from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.durations import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("10s", 10),
        ("1h30m", 5400),
        ("168h", 604800),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("300ms", 0.3),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        ("5μs", 5e-6),
        ("7ns", 7e-9),
        ("1m1h", 3660),
    ],
)
def test_go_syntax_is_read(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "10", "s", "1d", "1h 30m", "-5s", "+5s", "1,5s", ".s", "1e3s", "١s", "1S", "9" * 30 + "h"],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        Duration.parse(text)


def test_more_than_go_can_hold_is_refused() -> None:
    assert Duration.parse("2562047h47m16s854ms775us807ns") > 9.2e9
    with pytest.raises(ValueError, match="duration"):
        Duration.parse("2562047h47m16s854ms775us808ns")


@given(st.integers(0, 2**63 - 1))
def test_text_of_a_duration_reads_as_the_same(nanoseconds: int) -> None:
    duration = Duration(nanoseconds / 10**9)
    if duration < 9.2e9:
        assert Duration.parse(str(duration)) == duration


@given(st.text(alphabet="0123456789.hmsunµ", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        duration = Duration.parse(text)
    except ValueError:
        return
    assert Duration.parse(str(duration)) == duration


def test_a_duration_is_a_number_of_seconds_in_other_processes_too() -> None:
    copy = pickle.loads(pickle.dumps(Duration.parse("1m")))
    assert isinstance(copy, Duration)
    assert copy == 60.0
    assert str(copy) == "1m"
