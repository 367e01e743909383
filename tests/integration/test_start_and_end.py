"""How the registry starts and ends: a wrong configuration, a renewed certificate, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import trustme

from oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.e2e.server import PROJECT, Certificate, Server, clean_environment
from tests.fakes.images import image
from tests.integration.api import push_blob, push_manifest, refused, start
from tests.integration.modes import CONTENT, NAME, rest_of, serving, until
from tests.load.fuzz_calls import Call, head_of


def has_ended(server: Server) -> bool:
    """Whether the process is over; it stays to be waited for."""
    return os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


# TLS.


def issue(authority: trustme.CA, folder: Path) -> Certificate:
    """A new certificate in the same files."""
    made = authority.issue_cert("localhost", "127.0.0.1")
    certificate = Certificate(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    for path, content in (
        (certificate.chain, b"".join(part.bytes() for part in made.cert_chain_pems)),
        (certificate.key, made.private_key_pem.bytes()),
        (certificate.authority, authority.cert_pem.bytes()),
    ):
        written = path.with_suffix(".new")
        written.write_bytes(content)
        written.replace(path)
    return certificate


def test_a_renewed_certificate_is_served_and_connections_go_on(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = issue(authority, tmp_path)
    trust = ssl.create_default_context(cafile=certificate.authority)

    def connect(server: Server) -> ssl.SSLSocket:
        wire = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        return trust.wrap_socket(wire, server_hostname="localhost")

    def serial(server: Server) -> str:
        with connect(server) as wire:
            return str((wire.getpeercert() or {})["serialNumber"])

    with serving(tmp_path, certificate=certificate, host="localhost") as (server, client):
        digest = push_blob(client, NAME, CONTENT)
        with connect(server) as old:
            before = serial(server)
            for round_ in range(2):
                old.sendall(head_of(Call("GET", "/v2/")))
                assert old.recv(1000).startswith(b"HTTP/1.1 200 ")
                if round_ == 0:
                    issue(authority, tmp_path)
                    until(lambda: serial(server) != before)
        assert client.get(f"/v2/{NAME}/blobs/{digest}").content == CONTENT


# Ends.


def push_and_pull(server: Server, client: httpx.Client) -> tuple[socket.socket, socket.socket]:
    """A PATCH of CONTENT and a GET of a blob of 16 MiB, both half-way."""
    digest = push_blob(client, NAME, CONTENT * 16)
    location = start(client, NAME)
    push = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    push.sendall(head_of(Call("PATCH", location, body=CONTENT)) + CONTENT[:-1])
    pull = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    pull.sendall(head_of(Call("GET", f"/v2/{NAME}/blobs/{digest}")))
    time.sleep(0.3)
    return push, pull


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_a_push_and_a_pull_end(tmp_path: Path, workers: int) -> None:
    """Not ready at once, accepting for the drain delay, ended when all is answered: exit code 0."""
    with serving(tmp_path, workers=workers, HTTP_DRAINDELAY="1s") as (server, client):
        push, pull = push_and_pull(server, client)
        with push, pull:
            os.kill(server.pid, signal.SIGTERM)
            time.sleep(0.3)
            for _ in range(5):
                with httpx.Client(base_url=server.url) as fresh:
                    answer = fresh.get("/readyz")
                    assert answer.status_code == 503
                    assert answer.json() == {"ready": False, "failing": ["shutdown"]}
                    assert fresh.get("/livez").status_code == 200
                    assert fresh.get("/v2/").status_code == 200

            def refuses() -> bool:
                try:
                    socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
                except ConnectionRefusedError:
                    return True
                return False

            until(refuses)
            assert not has_ended(server)
            push.sendall(CONTENT[-1:])
            head, _, body = rest_of(push).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202 ") and not body
            assert b"connection: close" in head
            assert b"range: 0-%d" % (len(CONTENT) - 1) in head
            assert not has_ended(server)
            head, _, body = rest_of(pull).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert body == CONTENT * 16
        until(lambda: has_ended(server), 5)


def test_sigint_ends_quickly_and_keeps_what_was_pushed(tmp_path: Path) -> None:
    with serving(tmp_path, HTTP_DRAINDELAY="30s") as (server, client):
        push, pull = push_and_pull(server, client)
        with push, pull:
            asked = time.monotonic()
            os.kill(server.pid, signal.SIGINT)
            until(lambda: has_ended(server), 10)
            assert time.monotonic() - asked < 5
    assert "Traceback" not in server.log.read_text()
    data = list((tmp_path / "data").glob("docker/registry/v2/repositories/**/_uploads/*/data"))
    assert [path.stat().st_size for path in data] == [len(CONTENT) - 1]


def test_a_manifest_that_was_taken_is_the_same_to_the_next_process(tmp_path: Path) -> None:
    """Only the bytes are stored: what cannot be told from them must not be taken from a header."""
    whole = json.loads(image())
    plain = {key: value for key, value in whole.items() if key != "mediaType"}
    taken = {}
    with serving(tmp_path) as (_, client):
        push_blob(client, NAME, b"{}")
        for number, (media_type, document) in enumerate(
            (
                (OCI_MANIFEST, whole),
                (OCI_MANIFEST, plain),
                (OCI_INDEX, {"schemaVersion": 2, "manifests": []}),
                (OCI_INDEX, {"schemaVersion": 2}),
                (OCI_INDEX, {"schemaVersion": 2, "manifests": None}),
                (DOCKER_MANIFEST, plain),
                (DOCKER_MANIFEST, {**plain, "mediaType": ""}),
                (DOCKER_MANIFEST, {**plain, "mediaType": None}),
                (DOCKER_LIST, {"schemaVersion": 2, "manifests": []}),
                (DOCKER_LIST, {"schemaVersion": 2}),
            )
        ):
            content = json.dumps({**document, "annotations": {"number": str(number)}}).encode()
            answer = push_manifest(
                client, NAME, f"t{number}", content, **{"Content-Type": media_type}
            )
            if answer.status_code == 201:
                taken[f"/v2/{NAME}/manifests/t{number}"] = (media_type, content)
            else:
                refused(answer, 400, "MANIFEST_INVALID")
    assert len(taken) >= 3
    with serving(tmp_path) as (_, client):
        found = {}
        for target in taken:
            answer = client.get(target)
            found[target] = (answer.headers["content-type"], answer.content)
    assert found == taken


# Starts.


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"REGISTRY_HTTP_ADDR": "nonsense"}, "http.addr"),
        ({"REGISTRY_LOG_LEVEL": "loud"}, "log.level"),
        ({"REGISTRY_HTTP_WORKERS": "0"}, "http.workers"),
        ({"REGISTRY_HTTP_DRAINDELAY": "soon"}, "http.draindelay"),
        ({"REGISTRY_HTTP_TLS_CERTIFICATE": "/x.crt"}, "http.tls.key"),
        ({"REGISTRY_ALAUDA_REQUESTS_WRITE": "{maxrunning: -1}"}, "maxrunning"),
        ({"REGISTRY_ALAUDA_NAMING": "any"}, "alauda.naming"),
        ({"REGISTRY_STORAGE": "tape"}, "storage"),
        ({"REGISTRY_HTTP_HOST": "reg.example.org/path"}, "http.host"),
        ({"REGISTRY_CONFIGURATION_PATH": "/nowhere.yml"}, "/nowhere.yml"),
    ],
)
def test_a_wrong_setting_ends_the_start_and_is_named(
    tmp_path: Path, variables: dict[str, str], named: str
) -> None:
    ended = failing_start(tmp_path, variables)
    assert ended.returncode == 1
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_key_in_the_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("version: 0.1\nhttp: {adr: ':5000'}\n")
    ended = failing_start(tmp_path, {"REGISTRY_CONFIGURATION_PATH": str(file)})
    assert ended.returncode == 1
    assert "http.adr" in ended.stderr and "http.addr" in ended.stderr


def test_an_unreadable_certificate_ends_the_start(tmp_path: Path) -> None:
    tls = {"REGISTRY_HTTP_TLS_CERTIFICATE": "/no.crt", "REGISTRY_HTTP_TLS_KEY": "/no.key"}
    ended = failing_start(tmp_path, tls)
    assert ended.returncode == 1
    assert ended.stderr


def failing_start(folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    settings = {
        "REGISTRY_HTTP_ADDR": "127.0.0.1:0",
        "REGISTRY_ALAUDA_AUTH_MODE": "none",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(folder),
    }
    return subprocess.run(
        [sys.executable, "-m", "registry", "serve"],
        cwd=PROJECT,
        env={**clean_environment(), **settings, **variables},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
