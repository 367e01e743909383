"""What must hold for every answer, whatever was asked: the forms of the specification."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from oci.digest import Digest
from tests.load.fuzz_wire import Answer

CODES: Final[Mapping[str, frozenset[int]]] = {
    "UNAUTHORIZED": frozenset({401}),
    "DENIED": frozenset({403}),
    "NAME_INVALID": frozenset({400, 404}),
    "NAME_UNKNOWN": frozenset({404}),
    "MANIFEST_UNKNOWN": frozenset({404}),
    "MANIFEST_INVALID": frozenset({400, 413}),
    "MANIFEST_BLOB_UNKNOWN": frozenset({400}),
    "BLOB_UNKNOWN": frozenset({404}),
    "BLOB_UPLOAD_UNKNOWN": frozenset({404}),
    "BLOB_UPLOAD_INVALID": frozenset({400, 404}),
    "DIGEST_INVALID": frozenset({400}),
    "SIZE_INVALID": frozenset({400, 413}),
    "RANGE_INVALID": frozenset({416}),
    "TAG_INVALID": frozenset({400, 414}),
    "PRECONDITION_FAILED": frozenset({412}),
    "PAGINATION_NUMBER_INVALID": frozenset({400}),
    "UNSUPPORTED": frozenset({405}),
    "UNKNOWN": frozenset({414}),
}
"""error codes with their statuses; 429 and all of 5xx are not here, since nothing in the campaign
is a reason for them. UNKNOWN is also the code of a query with too many parameters."""

BARE: Final = frozenset({400, 408, 431, 501, 505})
"""statuses of the server's own refusals of what is not HTTP/1.x"""

REQUIRED: Final[Mapping[str, str]] = {
    "docker-distribution-api-version": "registry/2.0",
    "x-content-type-options": "nosniff",
}
_LOCATION: Final = re.compile(r"(?:[!-~\x80-\xff]+://[!-~\x80-\xff]*)?/v2/[!-~]+")
_RANGE: Final = re.compile(r"0-(0|[1-9]\d*)")
_INJECTED: Final = "x-injected"
"""the header that requests try to smuggle into answers"""


def is_api(target: str) -> bool:
    """True for the target of a request that the `/v2` API answers, in any of its spellings."""
    return target == "/v2" or target.startswith(("/v2/", "/v2?"))


def problems(answer: Answer, method: str, target: str, *, strict: bool) -> Iterator[str]:
    """What is wrong with the answer to a request that is HTTP for certain (`strict`), or may not
    be."""
    if answer.status >= 500 and answer.status not in (501, 505):
        yield f"status {answer.status}"
        return
    if 300 <= answer.status < 400 and answer.status != 304:
        yield f"status {answer.status}: nothing redirects here"
    if answer.header(_INJECTED) is not None:
        yield "a header of the client's making"
    if answer.header("date") is None:
        yield "no date"
    if answer.bare and not is_json(answer):
        if strict:
            yield f"a bare {answer.status} for a well-formed request: {answer.body[:100]!r}"
        elif answer.status not in BARE:
            yield f"a bare {answer.status}"
        return
    if answer.status in BARE - {400, 408}:
        yield f"status {answer.status} from the application"
    # What is not HTTP for certain may have another target by now.
    if is_api(target) and (strict or answer.header("x-request-id")):
        yield from _api_problems(answer, method)


def _api_problems(answer: Answer, method: str) -> Iterator[str]:
    for name, value in REQUIRED.items():
        if answer.header(name) != value:
            yield f"{name} is {answer.header(name)}"
    if not answer.header("x-request-id"):
        yield "no x-request-id"
    location = answer.header("location")
    if location is not None and _LOCATION.fullmatch(location) is None:
        yield "location is no address"
    if answer.status >= 400:
        yield from _error_problems(answer, method)
        return
    if answer.status in (201, 202) and answer.body:
        yield f"{answer.status} with a body"
    digest = answer.header("docker-content-digest")
    if digest is not None and answer.status == 200 and method == "GET":
        algorithm = digest.partition(":")[0]
        if algorithm not in ("sha256", "sha512") or Digest.of(answer.body, algorithm) != digest:
            yield "the body has another digest than docker-content-digest"
    if answer.status == 206 and not _is_right_part(answer, method):
        yield f"206 with content-range {answer.header('content-range')}"


def _is_right_part(answer: Answer, method: str) -> bool:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.header("content-range") or "")
    if match is None or method != "GET":
        return False
    first, last, size = map(int, match.groups())
    return first <= last < size and last - first + 1 == len(answer.body)


def _error_problems(answer: Answer, method: str) -> Iterator[str]:
    status = answer.status
    if not is_json(answer):
        yield f"{status} with content-type {answer.header('content-type')}"
    if status == 405 and not answer.header("allow"):
        yield "405 without allow"
    if status == 416:
        yield from _range_problems(answer)
    if method == "HEAD":
        return
    try:
        codes = error_codes(answer)
    except ValueError as error:
        yield f"{status} with a body that is {error}: {answer.body[:200]!r}"
        return
    for code in codes:
        if code not in CODES:
            yield f"{status} with the code {code}"
    if status not in CODES.get(codes[0], frozenset({status})):
        yield f"{status} with the code {codes[0]}"
    if codes[0] == "NAME_INVALID" and status == 404 and method != "GET":
        yield "404 NAME_INVALID for a request that does not read"


def _range_problems(answer: Answer) -> Iterator[str]:
    """416 says how to go on: the size of a blob, or where an upload stands."""
    stands = answer.header("location") is not None and _RANGE.fullmatch(
        answer.header("range") or ""
    )
    size = re.fullmatch(r"bytes \*/\d+", answer.header("content-range") or "")
    if not stands and not size:
        yield "416 without where to go on"


def is_json(answer: Answer) -> bool:
    return answer.header("content-type") == "application/json"


def error_codes(answer: Answer) -> list[str]:
    """The codes of all entries. Raises ValueError if the body has another form."""
    document = json.loads(answer.body)
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list) or not errors or set(document) != {"errors"}:
        raise ValueError("no list of errors")
    codes = []
    for error in errors:
        if not isinstance(error, dict) or not set(error) <= {"code", "message", "detail"}:
            raise ValueError("not made of errors")
        code, message = error.get("code"), error.get("message")
        if not isinstance(code, str) or not isinstance(message, str) or not message:
            raise ValueError("not made of code and message")
        codes.append(code)
    return codes
