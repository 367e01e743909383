"""The short form of the fuzz campaign (tests/load/fuzz.py), and a look at its own eyes."""

from __future__ import annotations

import json

import pytest

from tests.load.fuzz import campaign
from tests.load.fuzz_oracle import problems
from tests.load.fuzz_wire import Answer

SEED = 1
SECONDS = 30.0


@pytest.mark.timeout(240)
def test_no_request_brings_the_registry_out_of_order() -> None:
    result = campaign(seed=SEED, seconds=SECONDS)
    assert not result.findings, result.text()
    assert result.scenarios >= 100


def answer(status: int, code: str = "BLOB_UNKNOWN", *, without: str = "", **more: str) -> Answer:
    """An error as it should be, but for what the test changes."""
    headers = {
        "date": "now",
        "content-type": "application/json",
        "docker-distribution-api-version": "registry/2.0",
        "x-content-type-options": "nosniff",
        "x-request-id": "1",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    headers.pop(without, None)
    body = json.dumps({"errors": [{"code": code, "message": "text"}]}).encode()
    return Answer(status, tuple(headers.items()), body)


TARGET = "/v2/a/b/blobs/sha256:0"


def test_the_oracle_takes_a_good_error() -> None:
    for good in (
        answer(404),
        answer(405, "UNSUPPORTED", allow="GET"),
        answer(416, "RANGE_INVALID", content_range="bytes */5"),
        answer(416, "RANGE_INVALID", location="/v2/a/blobs/uploads/x", range="0-4"),
    ):
        assert list(problems(good, "GET", TARGET, strict=True)) == []


@pytest.mark.parametrize(
    "bad",
    [
        answer(500, "UNKNOWN"),
        answer(503, "UNAVAILABLE"),
        answer(400),
        answer(404, "MADE_UP"),
        answer(405, "UNSUPPORTED"),
        answer(416, "RANGE_INVALID"),
        answer(404, content_type="text/html"),
        answer(404, without="x-request-id"),
        answer(404, without="docker-distribution-api-version"),
        answer(404, x_injected="yes"),
        answer(200, docker_content_digest="sha256:0"),
        answer(206, content_range="bytes 0-9/100"),
        Answer(404, answer(404).headers, b"no JSON"),
        Answer(404, answer(404).headers, b'{"errors":[]}'),
    ],
)
def test_the_oracle_sees_what_is_wrong(bad: Answer) -> None:
    assert list(problems(bad, "GET", TARGET, strict=True))


def test_a_bare_refusal_is_only_for_what_is_not_http() -> None:
    bare = Answer(
        400,
        (("date", "now"), ("content-type", "text/plain"), ("connection", "close")),
        b"this is not HTTP",
    )
    assert list(problems(bare, "GET", TARGET, strict=False)) == []
    assert list(problems(bare, "GET", TARGET, strict=True))
