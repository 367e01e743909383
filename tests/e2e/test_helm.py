"""helm: charts as OCI artifacts."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.client import Witness
from tests.e2e.conftest import FindClient
from tests.e2e.layout import digest_of
from tests.e2e.server import Certificate, Server

CHART = """\
apiVersion: v2
name: demo
version: 1.2.3
"""
CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
"""


def test_chart_comes_back_as_it_was_pushed(
    client: FindClient,
    certificate: Certificate,
    server: Server,
    repository: str,
    witness: Witness,
    tmp_path: Path,
) -> None:
    helm = client("helm")
    chart = tmp_path / "demo"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(CHART)
    (chart / "templates" / "map.yaml").write_text(CONFIG_MAP)
    helm.run("package", str(chart), "--destination", str(tmp_path))
    package = (tmp_path / "demo-1.2.3.tgz").read_bytes()

    trust = f"--ca-file={certificate.authority}"
    charts = f"oci://{server.address}/{repository}"
    helm.run("push", trust, str(tmp_path / "demo-1.2.3.tgz"), charts)
    assert witness.tags(f"{repository}/demo") == ["1.2.3"]
    (layer,) = witness.manifest(f"{repository}/demo", "1.2.3")["layers"]
    assert layer["digest"] == digest_of(package)

    pulled = tmp_path / "pulled"
    pulled.mkdir()
    helm.run("pull", trust, f"{charts}/demo", "--version=1.2.3", cwd=pulled)
    assert (pulled / "demo-1.2.3.tgz").read_bytes() == package
    rendered = helm.run("template", "named", trust, f"{charts}/demo", "--version=1.2.3")
    assert "name: named" in rendered
