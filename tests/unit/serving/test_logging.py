from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from serving.logging import Formatter, Level, Logs, redact, request_id, write_stderr


class Lines(list[bytes]):
    """What was written, line by line."""

    def write(self, line: bytes) -> None:
        self.append(line)

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self]


def logs(
    lines: Lines,
    formatter: Formatter = "json",
    level: Level = "info",
    *,
    access: bool = True,
    audit: bool = False,
) -> Logs:
    return Logs(
        level=level,
        formatter=formatter,
        fields={"service": "registry"},
        access=access,
        audit=audit,
        write=lines.write,
    )


def scope(
    path: bytes = b"/v2/a/manifests/latest",
    query: bytes = b"",
    *,
    method: str = "GET",
    headers: Mapping[bytes, bytes] | None = None,
) -> dict[str, Any]:
    return {
        "method": method,
        "raw_path": path,
        "query_string": query,
        "client": ("127.0.0.1", 1234),
        "headers": list((headers or {}).items()),
    }


def access(to: Logs, of: Mapping[str, Any], *, status: int = 200, **more: Any) -> None:
    to.access_line(of, request_id="id", status=status, seconds=0.0012345, written=7, **more)


def test_an_access_line_has_what_is_known_of_the_request() -> None:
    lines = Lines()
    access(
        logs(lines),
        scope(
            method="PUT",
            query=b"digest=sha256:1",
            headers={
                b"host": b"registry:5000",
                b"user-agent": b"skopeo/1",
                b"content-type": b"text/plain",
                b"authorization": b"Bearer hunter2",
            },
        ),
        content_type="application/json",
        name="a",
        reference="latest",
        digest="sha256:2",
        upload="u",
        user="system:admin",
        user_id="42",
    )
    (line,) = lines.objects()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "msg": "response completed",
        "alauda.logger": "registry",
        "service": "registry",
        "http.request.id": "id",
        "http.request.method": "PUT",
        "http.request.uri": "/v2/a/manifests/latest?digest=sha256:1",
        "http.request.host": "registry:5000",
        "http.request.remoteaddr": "127.0.0.1:1234",
        "http.request.contenttype": "text/plain",
        "http.request.useragent": "skopeo/1",
        "http.response.status": 200,
        "http.response.duration": 0.001234,
        "http.response.written": 7,
        "http.response.contenttype": "application/json",
        "vars.name": "a",
        "vars.reference": "latest",
        "vars.digest": "sha256:2",
        "vars.uuid": "u",
        "alauda.auth.user": "system:admin",
        "alauda.auth.userid": "42",
    }


def test_an_error_is_in_the_access_line() -> None:
    lines = Lines()
    access(
        logs(lines),
        scope(),
        status=404,
        error_code="BLOB_UNKNOWN",
        error_message="see https://store/x?X-Amz-Signature=hunter2",
        error_detail={"url": "https://store/x?X-Amz-Signature=hunter2"},
    )
    (line,) = lines.objects()
    assert line["err.code"] == "BLOB_UNKNOWN"
    assert line["err.message"] == "see https://store/x?X-Amz-Signature=***"
    assert json.loads(line["err.detail"]) == {"url": "https://store/x?X-Amz-Signature=***"}


def test_upload_state_and_tokens_of_a_query_are_not_logged() -> None:
    lines = Lines()
    query = b"_state=hunter2&digest=d&%5Fstate=hunter2&access_token=hunter2&X-Amz-Signature=hunter2"
    access(logs(lines), scope(query=query), status=202)
    assert b"hunter2" not in lines[0]
    assert b"digest=d" in lines[0]


@pytest.mark.parametrize("formatter", ["text", "json", "logstash"])
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\x1b[2J", b"\x7f", b"\x85", b"\x9b", b'"', b"\\"])
def test_client_text_cannot_forge_a_line_or_drive_a_terminal(
    formatter: Formatter, end: bytes
) -> None:
    lines = Lines()
    text = b"x" + end + b'level="error"'
    access(
        logs(lines, formatter),
        scope(path=b"/v2/" + text, headers={b"host": text, b"user-agent": text}),
        name=text.decode("latin-1"),
    )
    assert re.fullmatch(rb"[ -~]*\n", lines[0])
    assert lines[0].count(b' level="error"') == 0
    if formatter != "text":
        assert json.loads(lines[0])["http.request.useragent"] == text.decode("latin-1")


def test_a_long_client_text_is_cut() -> None:
    lines = Lines()
    text = b"x" * 60_000
    access(
        logs(lines),
        scope(path=text, query=text, headers={b"host": text, b"user-agent": text}),
        status=500,
        error_code="UNKNOWN",
        error_message="x" * 60_000,
    )
    assert len(lines[0]) < 6000


@pytest.mark.parametrize(
    ("level", "status", "written"),
    [("info", 200, 1), ("debug", 404, 1), ("warn", 200, 0), ("error", 404, 0), ("error", 503, 1)],
)
def test_the_level_decides_on_access_lines(level: Level, status: int, written: int) -> None:
    lines = Lines()
    access(logs(lines, level=level), scope(), status=status)
    assert len(lines) == written


def test_access_lines_can_be_switched_off() -> None:
    lines = Lines()
    access(logs(lines, access=False), scope(), status=500)
    assert lines == []


def test_a_peer_without_address_is_logged() -> None:
    lines = Lines()
    access(logs(lines), {**scope(), "client": None})
    assert "http.request.remoteaddr" not in lines.objects()[0]


def test_text_lines_are_logfmt() -> None:
    lines = Lines()
    logs(lines, "text").record("warn", 'say "hi"', {"a b=": 1, "c": None, "d": True, "e": [1]})
    assert re.fullmatch(
        rb'time="[^"]*" level="warn" msg="say \\"hi\\"" alauda.logger="registry" '
        rb'service="registry" a_b_=1 c=null d=true e="\[1\]"\n',
        lines[0],
    )


def test_logstash_lines_have_its_keys() -> None:
    lines = Lines()
    logs(lines, "logstash").record("warn", "x", {})
    (line,) = lines.objects()
    assert line["@version"] == "1"
    assert line["@timestamp"].endswith("Z")
    assert (line["message"], line["level"]) == ("x", "warn")


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none()))
def test_any_record_is_one_line_of_json(message: str, fields: dict[str, object]) -> None:
    lines = Lines()
    Logs(formatter="json", write=lines.write).record("info", message, fields)
    assert lines[0].count(b"\n") == 1
    assert isinstance(json.loads(lines[0]), dict)


def test_structlog_and_the_standard_library_end_up_in_the_log() -> None:
    lines = Lines()
    with logs(lines).installed():
        structlog.get_logger().warning("one", path="/x")
        logging.getLogger("uvicorn.error").error("two %d", 2)
    one, two = lines.objects()
    assert (one["level"], one["msg"], one["path"]) == ("warn", "one", "/x")
    assert (two["level"], two["msg"], two["logger"]) == ("error", "two 2", "uvicorn.error")
    assert one["alauda.logger"] == two["alauda.logger"] == "registry"


def test_lines_below_the_level_are_not_written() -> None:
    lines = Lines()
    with logs(lines, level="warn").installed():
        structlog.get_logger().info("no")
        logging.getLogger("x").info("no")
        structlog.get_logger().error("yes")
    assert [line["msg"] for line in lines.objects()] == ["yes"]


def test_after_use_the_loggers_are_as_before() -> None:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    with logs(Lines()).installed():
        assert (root.level, root.handlers) != before
    assert (root.level, root.handlers) == before
    assert not structlog.is_configured()


@pytest.mark.parametrize("formatter", ["text", "json", "logstash"])
def test_a_traceback_is_in_its_line(formatter: Formatter) -> None:
    lines = Lines()
    with logs(lines, formatter).installed():
        for log in (structlog.get_logger(), logging.getLogger("x")):
            try:
                raise KeyError("cause")
            except KeyError:
                log.exception("failed")
    assert len(lines) == 2
    for line in lines:
        assert line.count(b"\n") == 1
        assert b"KeyError: 'cause'" in line


def test_a_message_that_does_not_fit_its_arguments_is_no_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    with logs(lines).installed():
        logging.getLogger("x").error("%d", "text")
    assert lines == []
    assert "TypeError" in capsys.readouterr().err


def test_bound_context_is_in_all_lines() -> None:
    lines = Lines()
    with logs(lines).installed(), structlog.contextvars.bound_contextvars(request="r"):
        structlog.get_logger().info("one")
        logging.getLogger("x").info("two")
    assert [line["request"] for line in lines.objects()] == ["r", "r"]


def test_secrets_are_blanked_out_everywhere() -> None:
    lines = Lines()
    with logs(lines).installed():
        structlog.get_logger().info(
            "to https://user:hunter2@store/?sig=hunter2", token="hunter2", Authorization="hunter2"
        )
        logging.getLogger("x").info("header Bearer hunter2hunter2hunter2")
    assert all(b"hunter2" not in line for line in lines)


def test_audit_records_are_written_at_any_level() -> None:
    lines = Lines()
    log = logs(lines, level="error", audit=True)
    log.audit("ManifestService.Put", "begin", fields={"vars.name": "a", "alauda.auth.user": "u"})
    log.audit("ManifestService.Put", "error", fields={"vars.name": "a"}, error="DENIED")
    begin, end = lines.objects()
    assert begin["alauda.logger"] == end["alauda.logger"] == "audit"
    assert begin["msg"] == "ManifestService.Put"
    assert begin["alauda.request.status"] == "begin"
    assert (begin["vars.name"], begin["alauda.auth.user"]) == ("a", "u")
    assert (end["alauda.request.status"], end["alauda.request.error"]) == ("error", "DENIED")


def test_without_audit_there_are_no_records() -> None:
    lines = Lines()
    logs(lines).audit("BlobStore.Get", "begin", fields={})
    assert lines == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/v2/?n=5&last=a", "/v2/?n=5&last=a"),
        ("/x?_state=a", "/x?_state=***"),
        ("/x?a?_state=a", "/x?a?_state=***"),
        ("?X-Amz-Credential=a&X-Amz-Date=b", "?X-Amz-Credential=***&X-Amz-Date=***"),
        ("see <http://h/?Signature=a>", "see <http://h/?Signature=***>"),
        ("http://u:p@h/x", "http://***@h/x"),
        ("Basic dXNlcjpwYXNzd29yZA==", "Basic ***"),
        ("Basic authentication", "Basic authentication"),
        ('Bearer realm="https://h/token"', 'Bearer realm="https://h/token"'),
    ],
)
def test_only_what_is_secret_is_blanked_out(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text", ["?" * 50_000 + "=", "?" + "state" * 10_000 + "=", "://" * 20_000, "bearer " * 10_000]
)
@pytest.mark.timeout(5)
def test_blanking_out_takes_no_longer_for_nasty_texts(text: str) -> None:
    redact(text)


@pytest.mark.parametrize("given_id", [b"a", b"A-b_c.9", b"x" * 128])
def test_a_harmless_request_id_is_kept(given_id: bytes) -> None:
    assert request_id(given_id) == given_id.decode()


@pytest.mark.parametrize("given_id", [None, b"", b"x" * 129, b"a b", b"a\n", b"\xe4", b"a,b"])
def test_any_other_request_id_is_replaced(given_id: bytes | None) -> None:
    new = request_id(given_id)
    assert re.fullmatch(r"[0-9a-f]{32}", new)
    assert new != request_id(given_id)


def test_a_line_is_one_write_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    write_stderr(b"line\n")
    assert capfd.readouterr().err == "line\n"


def test_a_log_that_cannot_be_written_fails_nothing() -> None:
    kept = os.dup(2)
    try:
        os.close(2)
        write_stderr(b"line\n")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
