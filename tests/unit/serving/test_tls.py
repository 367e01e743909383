"""TLS with a certificate that is renewed while the server runs."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from serving.service import ConnectionLimits
from serving.tls import ReloadingContext
from tests.unit.serving.loopback import Authority, Client, Loopback, hello, serving, until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.in_folder(tmp_path)


def serial(client: Client) -> str:
    assert isinstance(client.socket, ssl.SSLSocket)
    certificate = client.socket.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def new_serial(server: Loopback, authority: Authority) -> str:
    with server.connect(authority.client()) as client:
        assert client.get("/hello").content == b"hello"
        return serial(client)


def test_a_renewed_certificate_is_served_and_old_connections_go_on(authority: Authority) -> None:
    limits = ConnectionLimits(linger=0.2)  # makes the ticks short
    with (
        serving({"/hello": hello}, tls=authority.context(), limits=limits) as server,
        server.connect(authority.client()) as old,
    ):
        before = serial(old)
        assert new_serial(server, authority) == before
        authority.issue()
        until(lambda: new_serial(server, authority) != before)
        assert old.get("/hello").content == b"hello"


def test_a_broken_pair_leaves_the_last_good_one_and_is_reported_once(authority: Authority) -> None:
    reports: list[Exception | None] = []
    context = ReloadingContext(
        str(authority.certificate), str(authority.key), reloaded=reports.append
    )
    with serving({"/hello": hello}, tls=context) as server:
        before = new_serial(server, authority)
        good = authority.key.read_bytes()
        authority.issue()
        authority.key.write_bytes(good)  # does not belong to the new certificate
        assert not context.refresh()
        assert not context.refresh()
        assert new_serial(server, authority) == before
        authority.key.unlink()
        assert not context.refresh()
        assert new_serial(server, authority) == before
        assert [type(report) for report in reports] == [ssl.SSLError, FileNotFoundError]
        authority.issue()
        assert context.refresh()
        assert new_serial(server, authority) != before
        assert reports[-1] is None


def test_a_swapped_folder_link_is_followed(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted secret."""
    authority = Authority.in_folder(tmp_path)
    for version in ("..one", "..two"):
        (tmp_path / version).mkdir()
        authority.issue()
        for path in (authority.certificate, authority.key):
            (tmp_path / version / path.name).write_bytes(path.read_bytes())
            path.unlink()
    (tmp_path / "..data").symlink_to("..one")
    for path in (authority.certificate, authority.key):
        path.symlink_to(f"..data/{path.name}")
    context = authority.context()
    assert not context.refresh()
    (tmp_path / "..new").symlink_to("..two")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert context.refresh()


def test_old_protocols_and_renegotiation_are_off_and_only_http_1_1_is_offered(
    authority: Authority,
) -> None:
    context = authority.context().context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    client = authority.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    with (
        serving({"/hello": hello}, tls=authority.context()) as server,
        server.connect(client) as connected,
    ):
        assert isinstance(connected.socket, ssl.SSLSocket)
        assert connected.socket.selected_alpn_protocol() == "http/1.1"


def test_the_minimum_and_the_ciphers_can_be_chosen(authority: Authority) -> None:
    pair = (str(authority.certificate), str(authority.key))
    only = ReloadingContext(*pair, ciphers=["ECDHE-ECDSA-AES256-GCM-SHA384"]).context
    names = [cipher["name"] for cipher in only.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert names == ["ECDHE-ECDSA-AES256-GCM-SHA384"]
    newest = ReloadingContext(*pair, minimum=ssl.TLSVersion.TLSv1_3).context
    assert newest.minimum_version == ssl.TLSVersion.TLSv1_3


def test_a_pair_that_cannot_be_used_at_the_start_is_an_error(authority: Authority) -> None:
    with pytest.raises(ssl.SSLError):
        ReloadingContext(str(authority.key), str(authority.key))
    with pytest.raises(FileNotFoundError):
        ReloadingContext(str(authority.certificate), str(authority.key) + ".not")
