"""The registry with other settings than the usual ones."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from oci.descriptor import OCI_INDEX
from oci.digest import Digest
from tests.e2e.server import Server
from tests.fakes.images import image, index
from tests.integration.api import push_blob, push_image, push_manifest, refused, start
from tests.integration.modes import CONTENT, NAME, entries, rest_of, serving, until
from tests.load.fuzz_calls import Call, head_of

# What may be done.


def test_a_read_only_registry_serves_and_takes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, client):
        digest = push_image(client, NAME, "v1", b"layer")
        upload = start(client, NAME)
    layer, other = Digest.of(b"layer"), Digest.of(b"other")
    with serving(tmp_path, STORAGE_MAINTENANCE_READONLY="{enabled: true}") as (_, client):
        for target in (
            "/v2/",
            "/v2/_catalog",
            f"/v2/{NAME}/tags/list",
            f"/v2/{NAME}/manifests/v1",
            f"/v2/{NAME}/manifests/{digest}",
            f"/v2/{NAME}/blobs/{layer}",
            f"/v2/{NAME}/referrers/{digest}",
        ):
            for method in ("GET", "HEAD"):
                answer = client.request(method, target)
                assert answer.status_code == 200, (target, answer.text)
                warning = answer.headers["warning"]
                assert re.fullmatch(r'299 - "registry is read-only[^"]*"', warning)
        for method, target in (
            ("POST", f"/v2/{NAME}/blobs/uploads/"),
            ("POST", f"/v2/{NAME}/blobs/uploads/?digest={other}"),
            ("POST", f"/v2/team/two/blobs/uploads/?mount={layer}&from={NAME}"),
            ("PATCH", upload),
            ("PUT", f"{upload}&digest={other}"),
            ("DELETE", upload),
            ("DELETE", f"/v2/{NAME}/blobs/{layer}"),
            ("DELETE", f"/v2/{NAME}/manifests/v1"),
            ("DELETE", f"/v2/{NAME}/manifests/{digest}"),
            ("DELETE", f"/admin/blobs/{layer}"),
        ):
            answer = client.request(method, target, content=b"other" if method[0] == "P" else b"")
            error = refused(answer, 405, "UNSUPPORTED")
            assert error["message"] == "registry is read-only"
        for reference in ("v2", Digest.of(image(b"layer"))):
            answer = push_manifest(client, NAME, reference, image(b"layer"))
            error = refused(answer, 405, "UNSUPPORTED")
            assert error["message"] == "registry is read-only"
    with serving(tmp_path) as (_, client):
        assert client.get(f"/v2/{NAME}/tags/list").json()["tags"] == ["v1"]
        assert client.put(f"{upload}&digest={other}", content=b"other").status_code == 201


def test_deletes_can_be_switched_off(tmp_path: Path) -> None:
    with serving(tmp_path, STORAGE_DELETE_ENABLED="false") as (_, client):
        digest = push_image(client, NAME, "v1", b"layer")
        for target in (
            f"/v2/{NAME}/blobs/{Digest.of(b'layer')}",
            f"/v2/{NAME}/manifests/v1",
            f"/v2/{NAME}/manifests/{digest}",
            f"/admin/blobs/{digest}",
        ):
            refused(client.delete(target), 405, "UNSUPPORTED")
        assert client.delete(start(client, NAME)).status_code == 204
        assert client.get(f"/v2/{NAME}/manifests/v1").status_code == 200


def test_namespaced_names_have_two_parts(tmp_path: Path) -> None:
    digest = Digest.of(b"x")
    with serving(tmp_path, ALAUDA_NAMING="namespaced") as (_, client):
        push_image(client, NAME, "v1")
        assert client.get(f"/v2/{NAME}/tags/list").status_code == 200
        for name in ("app", "team/app/more"):
            for method, rest, status in (
                ("GET", "tags/list", 404),
                ("HEAD", "tags/list", 404),
                ("GET", "manifests/v1", 404),
                ("HEAD", f"blobs/{digest}", 404),
                ("GET", f"referrers/{digest}", 404),
                ("POST", "blobs/uploads/", 400),
                ("PUT", "manifests/v1", 400),
                ("DELETE", "manifests/v1", 400),
                ("DELETE", f"blobs/{digest}", 400),
            ):
                error = refused(
                    client.request(method, f"/v2/{name}/{rest}"), status, "NAME_INVALID"
                )
                message = "repository name must be <namespace>/<name>"
                assert method == "HEAD" or error["message"] == message
        for name in ("te_am/app", "te.am/app", f"{'a' * 64}/app", "Team/app"):
            refused(client.post(f"/v2/{name}/blobs/uploads/"), 400, "NAME_INVALID")
        # The source of a mount is no name of a request: what it cannot be is only not found.
        query = f"?mount={digest}&from=app"
        assert client.post(f"/v2/{NAME}/blobs/uploads/{query}").status_code == 202


def test_sparse_indexes_are_taken_with_a_warning(tmp_path: Path) -> None:
    content, kind = index(b"absent"), {"Content-Type": OCI_INDEX}
    with serving(tmp_path) as (_, client):
        answer = push_manifest(client, NAME, "v1", content, **kind)
        refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
    with serving(tmp_path, ALAUDA_VALIDATION_INDEXES="sparse") as (_, client):
        answer = push_manifest(client, NAME, "v1", content, **kind)
        assert answer.status_code == 201, answer.text
        assert re.fullmatch(r'299 - "sparse index[^"]*"', answer.headers["warning"])
        assert client.get(f"/v2/{NAME}/manifests/v1").content == content


# Addresses and headers.


def locations(client: httpx.Client, **headers: str) -> set[str]:
    """What the Locations of a push begin with, before /v2/."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    digest = Digest.of(b"x")
    begun = client.post(f"/v2/{NAME}/blobs/uploads/", headers=sent)
    target = "/v2/" + begun.headers["location"].partition("/v2/")[2]
    answers = [
        begun,
        client.patch(target, content=b"", headers=sent),
        client.get(target, headers=sent),
        client.post(f"/v2/{NAME}/blobs/uploads/?digest={digest}", content=b"x", headers=sent),
    ]
    return {answer.headers["location"].partition("/v2/")[0] for answer in answers}


def test_locations_begin_with_the_host_that_is_set(tmp_path: Path) -> None:
    with serving(tmp_path, HTTP_HOST="https://reg.example.org:8443") as (_, client):
        assert locations(client) == {"https://reg.example.org:8443"}
        assert locations(client, X_Forwarded_Host="other") == {"https://reg.example.org:8443"}
        config = Digest.of(b"{}")
        client.post(f"/v2/{NAME}/blobs/uploads/?digest={config}", content=b"{}")
        answer = push_manifest(client, NAME, "v1", image())
        assert answer.status_code == 201
        where = f"https://reg.example.org:8443/v2/{NAME}/manifests/v1"
        assert answer.headers["location"] == where


def test_the_host_that_is_set_counts_into_the_length_of_names(tmp_path: Path) -> None:
    """Clients take 255 bytes of host, slash and name at most."""
    host = "reg.example.org:8443"
    room = 255 - len(host) - 1
    with serving(tmp_path, HTTP_HOST=f"https://{host}") as (_, client):
        longest, longer = "a/" + "b" * (room - 2), "a/" + "b" * (room - 1)
        assert client.post(f"/v2/{longest}/blobs/uploads/").status_code == 202
        refused(client.post(f"/v2/{longer}/blobs/uploads/"), 400, "NAME_INVALID")


def test_absolute_locations_are_what_the_proxy_says(tmp_path: Path) -> None:
    with serving(tmp_path, HTTP_RELATIVEURLS="false") as (server, client):
        assert locations(client) == {server.url}
        assert locations(client, Host="reg.example") == {"http://reg.example"}
        forwarded = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "reg.example:8443"}
        assert locations(client, **forwarded) == {"https://reg.example:8443"}
        assert locations(client, X_Forwarded_Proto="https") == {f"https://{server.address}"}
        chain = {"X_Forwarded_Proto": "https, http", "X_Forwarded_Host": "outer.example, inner"}
        assert locations(client, **chain) == {"https://outer.example"}
        for value in (
            "proto=https;host=reg.example:8443",
            'for=1.2.3.4;host="reg.example:8443";proto=https, for=5.6.7.8;proto=http;host=inner',
            'Proto=https; Host="reg.example:8443"',
        ):
            assert locations(client, Forwarded=value) == {"https://reg.example:8443"}


def test_what_is_no_address_never_gets_into_a_location(tmp_path: Path) -> None:
    """RFC 9110, 10.2.2: a Location is a URI reference."""
    with serving(tmp_path, HTTP_RELATIVEURLS="false") as (_, client):
        found = {
            *locations(client, X_Forwarded_Proto="a b"),
            *locations(client, X_Forwarded_Proto="javascript"),
            *locations(client, X_Forwarded_Host="a b"),
            *locations(client, X_Forwarded_Host="user@evil.example/path"),
            *locations(client, Forwarded="proto=x y;host=a\tb"),
        }
    address = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?")
    assert [one for one in sorted(found) if address.fullmatch(one) is None] == []


def test_headers_of_the_configuration_are_in_every_answer(tmp_path: Path) -> None:
    headers = "{Strict-Transport-Security: [max-age=86400], X-Team: [a, b]}"
    with serving(tmp_path, HTTP_HEADERS=headers) as (_, client):
        for target in ("/v2/", "/v2/none/tags/list", "/nothing", "/metrics"):
            found = client.get(target).headers
            assert found.get("strict-transport-security") == "max-age=86400", target
            assert found.get_list("x-team") == ["a", "b"], target
            assert found.get("docker-distribution-api-version") == "registry/2.0", target
            assert found.get("x-content-type-options") == "nosniff", target


# Limits.

ONE_WRITE = "{maxrunning: 1, maxinqueue: 1, maxwaitinqueue: %s}"


@contextmanager
def slow_patch(server: Server, location: str) -> Iterator[socket.socket]:
    """A request that has its place, and sends the last byte of its body only at the end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wire:
        wire.sendall(head_of(Call("PATCH", location, body=b"12345")) + b"1234")
        time.sleep(0.2)
        yield wire
        wire.sendall(b"5")
        assert wire.recv(100).startswith(b"HTTP/1.1 202 ")


def test_writes_over_the_limit_wait_and_are_then_refused(tmp_path: Path) -> None:
    with serving(tmp_path, ALAUDA_REQUESTS_WRITE=ONE_WRITE % "1s") as (server, client):
        location = start(client, NAME)
        outcome: list[tuple[httpx.Response, float]] = []

        def wait() -> None:
            with httpx.Client(base_url=server.url, timeout=30) as own:
                asked = time.monotonic()
                answer = own.post(f"/v2/{NAME}/blobs/uploads/")
                outcome.append((answer, time.monotonic() - asked))

        with slow_patch(server, location):
            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.3)
            asked = time.monotonic()
            answer = client.post(f"/v2/{NAME}/blobs/uploads/")  # the queue is full
            assert time.monotonic() - asked < 0.5
            refused(answer, 429, "TOOMANYREQUESTS")
            assert answer.headers["retry-after"] == "1"
            assert client.get("/v2/").status_code == 200
            assert client.get("/readyz").status_code == 200
            waiting.join()
            ((answer, seconds),) = outcome
            refused(answer, 429, "TOOMANYREQUESTS")
            assert 0.8 < seconds < 3
        until(lambda: client.post(f"/v2/{NAME}/blobs/uploads/").status_code == 202)


def test_a_client_that_leaves_frees_its_place_in_the_queue(tmp_path: Path) -> None:
    with serving(tmp_path, ALAUDA_REQUESTS_WRITE=ONE_WRITE % "0s") as (server, client):
        location = start(client, NAME)
        with slow_patch(server, location):
            with socket.create_connection(("127.0.0.1", server.port)) as leaver:
                leaver.sendall(head_of(Call("POST", f"/v2/{NAME}/blobs/uploads/")))
                time.sleep(0.2)
                # A reset: one that only ends its sending may still wait for its answer.
                leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            time.sleep(0.2)
            outcome: list[httpx.Response] = []

            def wait() -> None:
                with httpx.Client(base_url=server.url, timeout=30) as own:
                    outcome.append(own.post(f"/v2/{NAME}/blobs/uploads/"))

            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.3)
        waiting.join()
        assert [answer.status_code for answer in outcome] == [202]


# Metrics and logs.


def test_metrics_ask_for_their_secret(tmp_path: Path) -> None:
    with serving(tmp_path, ALAUDA_METRICS_SECRET="open sesame") as (_, client):
        for target in ("/metrics", "/extensions/v2/metrics"):
            for value in ("", "Bearer", "Bearer open", "Basic open sesame", "Bearer \xff"):
                headers = {b"Authorization": value.encode("latin-1")} if value else {}
                answer = client.get(target, headers=headers)
                refused(answer, 401, "UNAUTHORIZED")
                assert answer.headers["www-authenticate"]
            answer = client.get(target, headers={"Authorization": "Bearer open sesame"})
            assert answer.status_code == 200
            assert "imageregistry_http_requests_total" in answer.text


def test_metrics_can_be_switched_off(tmp_path: Path) -> None:
    with serving(tmp_path, ALAUDA_METRICS_ENABLED="false") as (_, client):
        for target in ("/metrics", "/extensions/v2/metrics"):
            refused(client.get(target), 404, "NAME_UNKNOWN")


def test_what_is_beside_the_api_is_never_redirected(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, client):
        for method, target in (
            ("GET", "/metrics/"),
            ("GET", "/extensions/v2/metrics/"),
            ("DELETE", f"/admin/blobs/{Digest.of(b'x')}/"),
        ):
            refused(client.request(method, target), 404, "NAME_UNKNOWN")


def test_a_scrape_of_any_worker_gives_the_sum_of_all(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as (server, _):
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        assert len(children) == 2

        def fetch(target: str) -> str:
            """Over a connection of its own, and so from either worker."""
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as wire:
                wire.sendall(head_of(Call("GET", target, ((b"Connection", b"close"),))))
                return rest_of(wire).decode()

        for _ in range(60):
            assert fetch("/v2/").startswith("HTTP/1.1 200 ")
        pattern = r'imageregistry_http_requests_total\{code="200",method="GET"\} ([0-9.e+]+)'
        for _ in range(12):
            found = re.findall(pattern, fetch("/metrics"))
            assert [float(value) for value in found] == [60.0]


def test_every_request_has_a_line_without_its_upload_state(tmp_path: Path) -> None:
    with serving(tmp_path, LOG_ACCESSLOG_DISABLED="false") as (server, client):
        location = start(client, NAME)
        state = location.partition("_state=")[2]
        digest = Digest.of(CONTENT)
        requests = [
            ("PATCH", location, CONTENT, 202),
            ("GET", location, b"", 204),
            ("GET", f"/v2/{NAME}/blobs/{digest}", b"", 404),
            ("POST", f"/v2/{NAME}/blobs/uploads/?digest={digest}", CONTENT, 201),
            ("HEAD", f"/v2/{NAME}/blobs/{digest}", b"", 200),
            ("DELETE", f"/v2/{NAME}/manifests/none", b"", 404),
            ("OPTIONS", "/v2/", b"", 405),
        ]
        for number, (method, target, content, status) in enumerate(requests):
            headers = {"X-Request-Id": f"id-{number}", "Authorization": "Bearer " + "s" * 40}
            answer = client.request(method, target, content=content, headers=headers)
            assert answer.status_code == status
            assert answer.headers["x-request-id"] == f"id-{number}"
        made = client.get("/v2/").headers["x-request-id"]
        until(lambda: made in server.log.read_text())
        text = server.log.read_text()
        for number, (method, _, _, status) in enumerate(requests):
            lines = [line for line in text.splitlines() if f'"id-{number}"' in line]
            assert len(lines) == 1
            assert f'http.request.method="{method}"' in lines[0]
            assert f"http.response.status={status} " in lines[0]
        assert "_state=***" in text
        assert state not in text and state[:40] not in text
        assert "s" * 40 not in text


def test_the_log_in_json_is_json(tmp_path: Path) -> None:
    with serving(
        tmp_path,
        LOG_FORMATTER="json",
        LOG_LEVEL="debug",
        LOG_ACCESSLOG_DISABLED="false",
        LOG_FIELDS='{service: "a \\"quoted\\" one"}',
        NO_SUCH_KEY="x",
    ) as (server, client):
        push_image(client, NAME, "v1")
        client.get("/v2/" + "x" * 300 + "/tags/list", headers={"User-Agent": 'a "b" \\ c\td'})
        client.get("/v2/a%0ab%00/tags/list?x=%0d%0a", headers={"Host": 'h"\\x'})
        client.get(f"/v2/{NAME}/manifests/%e2%98%83")
    found = entries(server)
    assert len(found) > 8
    assert all(entry["alauda.logger"] == "registry" for entry in found)
    assert all(entry["service"] == 'a "quoted" one' for entry in found)
    assert any("REGISTRY_NO_SUCH_KEY" in entry["msg"] for entry in found)


def test_the_audit_has_begin_and_end_of_each_operation(tmp_path: Path) -> None:
    with serving(
        tmp_path, LOG_FORMATTER="json", LOG_LEVEL="error", ALAUDA_AUDIT_ENABLED="true"
    ) as (server, client):
        digest = push_blob(client, NAME, b"blob")
        client.get(f"/v2/{NAME}/blobs/{digest}", headers={"X-Request-Id": "good"})
        client.get(f"/v2/{NAME}/manifests/none", headers={"X-Request-Id": "bad"})
        client.get("/v2/", headers={"X-Request-Id": "ping"})
    audit = [entry for entry in entries(server) if entry["alauda.logger"] == "audit"]

    def of(request: str) -> list[tuple[str, str]]:
        return [
            (entry["msg"], entry["alauda.request.status"])
            for entry in audit
            if entry["http.request.id"] == request
        ]

    assert of("good") == [("BlobStore.ServeBlob", "begin"), ("BlobStore.ServeBlob", "success")]
    assert of("bad") == [("ManifestService.Get", "begin"), ("ManifestService.Get", "error")]
    assert of("ping") == []
    errors = [entry["alauda.request.error"] for entry in audit if "alauda.request.error" in entry]
    assert len(errors) == 1 and "none" in errors[0]
    served = [entry for entry in audit if entry["http.request.id"] == "good"]
    assert all(entry["vars.name"] == NAME for entry in served)
    assert all(entry["vars.digest"] == digest for entry in served)
    operations = {entry["msg"] for entry in audit}
    assert {"BlobStore.Create", "BlobWriter.Commit"} <= operations
