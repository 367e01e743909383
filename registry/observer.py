"""Tells metrics, access log and audit log of each request."""

from __future__ import annotations

from registry.record import CLIENT_CLOSED, RequestRecord
from serving.logging import Logs
from serving.metrics import Metrics


class RequestObserver:
    """Implements `record.Observer`. With `audit`, each operation on a repository leaves a record
    when it begins and one when it ends."""

    def __init__(self, metrics: Metrics, logs: Logs, *, audit: bool = False) -> None:
        self._metrics = metrics
        self._logs = logs
        self._audit = audit

    def started(self, record: RequestRecord) -> None:
        self._metrics.request_started()

    def parsed(self, record: RequestRecord) -> None:
        if record.operation.startswith("BlobWriter."):
            self._metrics.add("upload_active")
        if self._audit and record.name:
            self._logs.audit(record.operation, "begin", fields=self._audited(record))

    def ended(self, record: RequestRecord) -> None:
        self._metrics.observe_request(
            record.scope["method"],
            record.status,
            record.seconds,
            record.first_byte,
            record.received,
            record.sent,
        )
        if record.operation:
            self._metrics.observe("request_duration_seconds", record.seconds, record.operation)
            if record.operation.startswith("BlobWriter."):
                self._metrics.add("upload_active", by=-1.0)
        error = record.error
        self._logs.access_line(
            record.scope,
            request_id=record.id,
            status=record.status,
            seconds=record.seconds,
            written=record.sent,
            content_type=record.content_type,
            name=record.name,
            reference=record.reference,
            digest=record.digest,
            upload=record.upload,
            error_code="" if error is None else error.code,
            error_message="" if error is None else error.message,
            error_detail=None if error is None else error.detail,
        )
        if self._audit and record.name:
            failed = error is not None or record.status == CLIENT_CLOSED
            self._logs.audit(
                record.operation,
                "error" if failed else "success",
                fields=self._audited(record),
                error=error.message if error is not None else "",
            )

    def _audited(self, record: RequestRecord) -> dict[str, object]:
        client = record.scope["client"]
        return {
            "http.request.id": record.id,
            "http.request.method": record.scope["method"],
            "http.request.remoteaddr": f"{client[0]}:{client[1]}" if client else "",
            "vars.name": record.name,
            "vars.reference": record.reference,
            "vars.digest": record.digest,
            "vars.uuid": record.upload,
        }
