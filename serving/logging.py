"""One process's log: lines on standard error, as text (logfmt), json or logstash, one write each.

Every line says `alauda.logger` (the process's own name, or `audit`), is ASCII with control
characters escaped, so that client text cannot forge a line or drive a terminal, and has
credentials, upload state and signed queries blanked out. structlog and the standard library's
loggers (uvicorn, asyncio) end up here; the line of a request goes through neither, as there is one
for each request.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final, Literal

import structlog

Level = Literal["error", "warn", "info", "debug"]
Formatter = Literal["text", "json", "logstash"]
Write = Callable[[bytes], object]
"""takes one line, its end included"""

_LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "error": 40}
_NAMES: Final = {"warning": "warn", "critical": "error", "exception": "error"}

_TEXT_LIMIT: Final = 1000
"""characters of one value of a request's line; more is cut, so that a line stays one write"""

AUDIT: Final = "audit"
_HIDDEN: Final = "***"

_PARAMETER: Final = re.compile(r"([?&][^?=&#\s\"'<>]*=)[^&#\s\"'<>]+")
_SECRET_PARAMETER: Final = re.compile(
    r"state|sig|token|secret|passw|credential|key|x-amz-|x-goog-|%", re.IGNORECASE
)
"""found in the name of a query parameter; `%` because a name may be sent encoded"""
_SCHEME: Final = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE)
_USER: Final = re.compile(r"(://)[^/@\s\"']+@")
_SECRET_KEYS: Final = frozenset({"authorization", "password", "token", "secret"})

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_UNSAFE_KEY: Final = re.compile(r"[^!#-<>-~]")


def request_id(given: bytes | None) -> str:
    """The client's X-Request-Id if it is 1 to 128 harmless characters, else a new random one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return os.urandom(16).hex()


def redact(text: str) -> str:
    """`text` without what would let its reader act for another.

    That is: values of query parameters that hold a signature, a token or upload state, and the
    credentials in an Authorization header or an address.
    """
    if "=" in text:
        text = _PARAMETER.sub(_hide_value, text)
    if "://" in text:
        text = _USER.sub(rf"\1{_HIDDEN}@", text)
    if " " in text:
        text = _SCHEME.sub(rf"\1 {_HIDDEN}", text)
    return text


def _hide_value(parameter: re.Match[str]) -> str:
    name = parameter[1]
    return f"{name}{_HIDDEN}" if _SECRET_PARAMETER.search(name) else parameter[0]


def write_stderr(line: bytes) -> None:
    """Writes in one system call, so that the lines of several processes do not mix.

    A log that cannot be written must not fail what is logged: the line is lost then.
    """
    try:  # noqa: SIM105  # contextlib.suppress costs as much as the rest of this function
        os.write(2, line)
    except OSError:
        pass


class Logs:
    """Where this process's lines go, and in which form.

    `name` is the value of `alauda.logger`, `fields` are put into every line. Lines below `level`
    are not written, but for those of the audit, which `audit` switches on; `access` is for the
    lines of requests.
    """

    def __init__(
        self,
        *,
        level: Level = "info",
        formatter: Formatter = "text",
        fields: Mapping[str, str] | None = None,
        access: bool = True,
        audit: bool = False,
        name: str = "registry",
        write: Write = write_stderr,
    ) -> None:
        self._level = _LEVELS[level]
        self._audit = audit
        self._access = access
        self._write = write
        self._form = _Form(formatter)
        self._static = self._form.pairs(fields or {})
        self._name = self._form.pair("alauda.logger", name) + self._static
        self._audit_name = self._form.pair("alauda.logger", AUDIT) + self._static
        self._request = _RequestKeys(self._form)
        self._second = -1
        self._clock = ""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """structlog and the standard library's root logger write here until the context is left."""
        root = logging.getLogger()
        before = root.level, root.handlers[:]
        bridge = _Bridge(self)
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.format_exc_info,
                self._render,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
            logger_factory=lambda *_: _Output(self._write),
            cache_logger_on_first_use=False,
        )
        root.setLevel(self._level)
        root.handlers[:] = [bridge]
        try:
            yield
        finally:
            root.setLevel(before[0])
            root.handlers[:] = before[1]
            structlog.reset_defaults()

    def record(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        """Writes one line, whatever its level."""
        self._write(self._line(level, message, self._name, fields))

    def audit(
        self,
        operation: str,
        status: Literal["begin", "success", "error"],
        *,
        fields: Mapping[str, object],
        error: str = "",
    ) -> None:
        """One record of the audit: `operation` on the things that `fields` name began or ended."""
        if not self._audit:
            return
        more: dict[str, object] = {"alauda.request.status": status, **fields}
        if error:
            more["alauda.request.error"] = error
        self._write(self._line("info", operation, self._audit_name, more))

    def access_line(
        self,
        scope: Mapping[str, Any],
        *,
        request_id: str,
        status: int,
        seconds: float,
        written: int,
        content_type: str = "",
        name: str = "",
        reference: str = "",
        digest: str = "",
        upload: str = "",
        user: str = "",
        user_id: str = "",
        error_code: str = "",
        error_message: str = "",
        error_detail: object = None,
    ) -> None:
        """The one line of a request that has ended: level error for a 5xx, else info.

        `scope` is ASGI's; `seconds` to the end of the answer; `written` bytes of body.
        """
        level = "error" if status >= 500 else "info"
        if not self._access or _LEVELS[level] < self._level:
            return
        host = agent = sent_type = b""
        for key, value in scope["headers"]:
            if key == b"host":
                host = value
            elif key == b"user-agent":
                agent = value
            elif key == b"content-type":
                sent_type = value
        uri = scope["raw_path"]
        if scope["query_string"]:
            uri = b"%b?%b" % (uri, scope["query_string"])
        client = scope["client"]
        keys = self._request
        line = (
            f"{self._head(level)}{keys.message}{self._name}"
            f"{keys.id}{quoted(request_id)}"
            f"{keys.method}{quoted(scope['method'])}"
            f"{keys.uri}{quoted(redact(_text(uri)))}"
            f"{keys.status}{status}{keys.seconds}{seconds:.6f}{keys.written}{written}"
        )
        if client is not None:
            line += f'{keys.address}"{client[0]}:{client[1]}"'
        for prefix, text in (
            (keys.host, _text(host)),
            (keys.agent, _text(agent)),
            (keys.sent_type, _text(sent_type)),
            (keys.content_type, content_type),
            (keys.name, name),
            (keys.reference, reference),
            (keys.digest, digest),
            (keys.upload, upload),
            (keys.user, user),
            (keys.user_id, user_id),
        ):
            if text:
                line += f"{prefix}{quoted(text)}"
        if error_code:
            line += f"{keys.error_code}{quoted(error_code)}"
            line += f"{keys.error_message}{quoted(redact(error_message)[:_TEXT_LIMIT])}"
            if error_detail is not None:
                detail = json.dumps(error_detail, default=str)
                line += f"{keys.error_detail}{quoted(redact(detail)[:_TEXT_LIMIT])}"
        self._write(f"{line}{self._form.end}".encode("ascii"))

    def _line(self, level: str, message: str, name: str, fields: Mapping[str, object]) -> bytes:
        form = self._form
        text = form.pair(form.message_key, redact(message))
        return f"{self._head(level)}{text}{name}{form.pairs(fields)}{form.end}".encode("ascii")

    def _head(self, level: str) -> str:
        """Begin of a line: time and level."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        form = self._form
        return (
            f'{form.begin}"{self._clock}.{int((now - second) * 1000):03d}Z"'
            f"{form.level}{quoted(level)}"
        )

    def _render(self, _: object, method: str, event: MutableMapping[str, Any]) -> bytes:
        """structlog's last step."""
        message = str(event.pop("event", ""))
        stack = event.pop("exception", None)
        if stack is not None:
            event["error.stack"] = stack
        return self._line(_NAMES.get(method, method), message, self._name, event)


def _text(sent: bytes) -> str:
    """What a client sent, as far as it is logged."""
    return sent[:_TEXT_LIMIT].decode("latin-1")


class _Form:
    """How a formatter writes keys. Values are JSON in all of them."""

    def __init__(self, formatter: Formatter) -> None:
        self._braces = formatter != "text"
        self.message_key = "message" if formatter == "logstash" else "msg"
        if formatter == "logstash":
            self.begin = '{"@version":"1","@timestamp":'
        else:
            self.begin = '{"time":' if self._braces else "time="
        self.end = "}\n" if self._braces else "\n"
        self.level = self.key("level")

    def key(self, key: str) -> str:
        """What stands before the value of `key`, which is not the first."""
        return f",{quoted(key)}:" if self._braces else f" {_UNSAFE_KEY.sub('_', key)}="

    def pair(self, key: str, value: object) -> str:
        if key.lower() in _SECRET_KEYS:
            value = _HIDDEN
        if isinstance(value, str):
            return f"{self.key(key)}{quoted(redact(value))}"
        if value is None or isinstance(value, bool | int | float):
            return f"{self.key(key)}{json.dumps(value)}"
        # As text: what is nested would get past the blanking-out.
        return f"{self.key(key)}{quoted(redact(json.dumps(value, default=str)))}"

    def pairs(self, fields: Mapping[str, object]) -> str:
        return "".join([self.pair(key, value) for key, value in fields.items()])


class _RequestKeys:
    """The keys of a request's line, ready to be put before their values."""

    def __init__(self, form: _Form) -> None:
        self.message = form.pair(form.message_key, "response completed")
        self.id = form.key("http.request.id")
        self.method = form.key("http.request.method")
        self.uri = form.key("http.request.uri")
        self.host = form.key("http.request.host")
        self.address = form.key("http.request.remoteaddr")
        self.sent_type = form.key("http.request.contenttype")
        self.agent = form.key("http.request.useragent")
        self.status = form.key("http.response.status")
        self.seconds = form.key("http.response.duration")
        self.written = form.key("http.response.written")
        self.content_type = form.key("http.response.contenttype")
        self.name = form.key("vars.name")
        self.reference = form.key("vars.reference")
        self.digest = form.key("vars.digest")
        self.upload = form.key("vars.uuid")
        self.user = form.key("alauda.auth.user")
        self.user_id = form.key("alauda.auth.userid")
        self.error_code = form.key("err.code")
        self.error_message = form.key("err.message")
        self.error_detail = form.key("err.detail")


class _Output:
    """structlog's idea of a logger: a method for each level, called with the rendered line."""

    def __init__(self, write: Write) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write


class _Bridge(logging.Handler):
    """Takes the records of the standard library's loggers."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = record.levelname.lower()
            fields: dict[str, object] = {"logger": record.name}
            fields.update(structlog.contextvars.get_contextvars())
            if record.exc_info and record.exc_info[0] is not None:
                fields["error.stack"] = "".join(traceback.format_exception(*record.exc_info))
            self._logs.record(_NAMES.get(level, level), record.getMessage(), fields)
        except Exception:
            self.handleError(record)
