from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from registry.config import ConfigError, load_config, with_defaults
from registry.config_keys import Config, Filesystem, InMemory, Storage
from serving.config_schema import DRIVER, LATER, Key, all_paths, keys_of, leaves, variable_of
from serving.configuration import load
from serving.durations import Duration

EXAMPLE = Path(__file__).parents[3] / "config.example.yaml"
CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
LEAVES = dict(leaves(Config))
DRIVERS = [key.name for key in keys_of(Storage).values() if DRIVER in key.marks]


class Files:
    """Configuration files in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "config.yml"

    def load(self, text: str, **environ: str) -> tuple[Config, list[str]]:
        self._path.write_text(text)
        return load_config(str(self._path), environ)

    def refused(self, text: str, **environ: str) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            self.load(text, **environ)
        return caught.value.problems


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def refused(**environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(None, environ)
    return caught.value.problems


def wanted(environ: Mapping[str, str], text: str | None = None) -> Config:
    """The configuration that is asked for, whether this build can do it or not."""
    loaded = load(Config, text, environ)
    return with_defaults(loaded.config, loaded.given, environ)


def value_at(value: object, path: str) -> object:
    for name in path.split("."):
        value = getattr(value, name)
    return value


# Defaults


def test_without_a_cluster_the_registry_is_local_and_open() -> None:
    config, _ = load_config(None, {})
    assert config.http.addr == "127.0.0.1:5000"
    assert config.http.address == ("127.0.0.1", 5000)
    assert config.http.draindelay == 0.0
    assert config.http.tls.certificate == ""
    assert config.alauda.auth.mode == "none"
    assert config.alauda.metadata == "storage"
    assert config.alauda.naming == "free"
    assert config.storage.filesystem == Filesystem("./data")
    assert not config.has_rights


@pytest.mark.parametrize("environ", [CLUSTER, {"REGISTRY_ALAUDA_KUBECONFIG": "/kubeconfig"}])
def test_in_a_cluster_rights_are_on_and_the_other_defaults_follow(environ: dict[str, str]) -> None:
    config = wanted(environ)
    assert config.has_rights
    assert config.http.addr == ":5000"
    assert config.http.draindelay == 25.0
    assert config.http.tls.certificate == "/etc/secrets/tls.crt"
    assert config.http.tls.key == "/etc/secrets/tls.key"
    assert config.alauda.metadata == "imageapi"
    assert config.alauda.naming == "namespaced"
    assert config.storage.filesystem == Filesystem("/registry")


def test_in_a_cluster_rights_can_be_switched_off_in_writing() -> None:
    config, _ = load_config(None, {**CLUSTER, "REGISTRY_ALAUDA_AUTH_MODE": "none"})
    assert not config.has_rights
    assert config.http.addr == "127.0.0.1:5000"
    assert config.alauda.naming == "free"
    assert config.storage.filesystem == Filesystem("/registry")


def test_an_empty_mode_does_not_switch_rights_off() -> None:
    assert wanted(CLUSTER, "alauda: {auth: {mode: }}").has_rights


def test_what_is_given_is_not_replaced_by_a_clusters_defaults() -> None:
    text = """
    http: {addr: "127.0.0.1:5000", draindelay: 0s, tls: {certificate: "", key: ""}}
    storage: {filesystem: {rootdirectory: ./data}}
    alauda: {metadata: storage, naming: free}
    """
    config = wanted(CLUSTER, text)
    assert config.http == wanted({}).http
    assert config.storage == wanted({}).storage
    assert (config.alauda.metadata, config.alauda.naming) == ("storage", "free")


def test_half_a_certificate_is_not_completed_by_a_default() -> None:
    tls = wanted(CLUSTER, "http: {tls: {certificate: /my.crt}}").http.tls
    assert (tls.certificate, tls.key) == ("/my.crt", "")


def test_another_driver_takes_the_place_of_the_default() -> None:
    config, _ = load_config(None, {"REGISTRY_STORAGE": "inmemory"})
    assert config.storage.inmemory == InMemory()
    assert config.storage.filesystem is None
    assert config.storage.driver == "inmemory"


def test_the_default_driver_has_a_name_too() -> None:
    assert load_config(None, {})[0].storage.driver == "filesystem"


def test_a_filesystem_without_a_root_has_that_of_its_place() -> None:
    assert wanted({}, "storage: {filesystem: }").storage.filesystem == Filesystem("./data")
    assert wanted(CLUSTER, "storage: {filesystem: }").storage.filesystem == Filesystem("/registry")


# Where it is read from


def test_the_file_is_named_by_the_caller_or_a_variable(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    first.write_text("http: {addr: 127.0.0.1:1}")
    second.write_text("http: {addr: 127.0.0.1:2}")
    environ = {"REGISTRY_CONFIGURATION_PATH": str(second)}
    assert load_config(str(first), environ)[0].http.address[1] == 1
    assert load_config(None, environ)[0].http.address[1] == 2
    assert load_config(None, {"REGISTRY_CONFIGURATION_PATH": ""})[0].http.address[1] == 5000


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yml cannot be read: No such file"):
        load_config(str(tmp_path / "missing.yml"), {})
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(str(tmp_path / "binary.yml"), {})


def test_strict_fails_on_variables_that_are_no_key() -> None:
    environ = {"REGISTRY_PORT": "tcp://10.0.0.1:5000"}
    _, warnings = load_config(None, environ)
    assert any("REGISTRY_PORT" in warning for warning in warnings)
    with pytest.raises(ConfigError, match="REGISTRY_PORT"):
        load_config(None, environ, strict=True)


def test_the_operators_variables_are_keys() -> None:
    environ = {
        "REGISTRY_HTTP_ADDR": ":5000",
        "REGISTRY_HTTP_NET": "tcp",
        "REGISTRY_HTTP_SECRET": "s",
        "REGISTRY_HTTP_TLS_CERTIFICATE": "/etc/secrets/tls.crt",
        "REGISTRY_HTTP_TLS_KEY": "/etc/secrets/tls.key",
        "REGISTRY_HTTP_TLS_MINVERSION": "tls1.2",
        "REGISTRY_LOG_LEVEL": "info",
        "REGISTRY_ALAUDA_SERVER_ADDR": "image-registry.image-registry-system.svc:5000",
        "REGISTRY_ALAUDA_QUOTA_ENABLED": "true",
        "REGISTRY_ALAUDA_METRICS_ENABLED": "true",
        "REGISTRY_ALAUDA_AUTH_AUDIENCES": '["image-registry.image-registry-system.svc"]',
        "REGISTRY_ALAUDA_REQUESTS_READ_MAXRUNNING": "10",
        "REGISTRY_ALAUDA_REQUESTS_WRITE_MAXINQUEUE": "10",
        "REGISTRY_ALAUDA_REQUESTS_WRITE_MAXWAITINQUEUE": "30s",
        "REGISTRY_STORAGE": "s3",
        "REGISTRY_STORAGE_S3_BUCKET": "b",
        "REGISTRY_STORAGE_S3_REGION": "r",
        "REGISTRY_STORAGE_S3_REGIONENDPOINT": "https://s3.example.org",
        "REGISTRY_STORAGE_S3_ENCRYPT": "true",
        "REGISTRY_STORAGE_S3_FORCEPATHSTYLE": "true",
        "REGISTRY_STORAGE_S3_CHUNKSIZE": "10485760",
        "REGISTRY_STORAGE_S3_ACCESSKEY": "a",
        "REGISTRY_STORAGE_S3_SECRETKEY": "s",
        "REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR": "inmemory",
        "REGISTRY_STORAGE_DELETE_ENABLED": "true",
        "REGISTRY_STORAGE_REDIRECT_DISABLE": "true",
        "REGISTRY_STORAGE_MAINTENANCE_READONLY": "{enabled: true}",
        "REGISTRY_HEALTH_STORAGEDRIVER_ENABLED": "true",
        "REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL": "10s",
        "REGISTRY_HEALTH_STORAGEDRIVER_THRESHOLD": "3",
    }
    loaded = load(Config, None, {**CLUSTER, **environ}, strict=True)
    assert loaded.config.storage.maintenance.readonly.enabled
    assert loaded.config.storage.driver == "s3"
    assert loaded.config.alauda.requests.write.maxwaitinqueue == 30.0


# What is refused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http: {addr: 5000}", "http.addr must be host:port, [address]:port or :port, not '5000'"),
        ('http: {addr: ":70000"}', "http.addr must be"),
        ("http: {addr: '::1:5000'}", "http.addr must be"),
        ("http: {host: registry.example.org}", "http.host must be a scheme and a host alone"),
        ("http: {host: 'https://h/path'}", "http.host must be a scheme and a host alone"),
        ("alauda: {auth: {tokenrealm: 'https://h/x'}}", "alauda.auth.tokenrealm must be a scheme"),
        ("alauda: {auth: {tokenrealm: 'https://h?x'}}", "alauda.auth.tokenrealm must be a scheme"),
        ("alauda: {auth: {tokenrealm: 'https://h#'}}", "alauda.auth.tokenrealm must be a scheme"),
        (
            "alauda: {auth: {tokenrealm: 'https://u:p@h'}}",
            "alauda.auth.tokenrealm must be a scheme",
        ),
        ("alauda: {auth: {tokenrealm: 'ftp://h'}}", "alauda.auth.tokenrealm must be a scheme"),
        ("alauda: {auth: {tokenrealm: 'https://h:x'}}", "alauda.auth.tokenrealm must be a scheme"),
        ("http: {tls: {certificate: a}}", "http.tls.certificate is set without http.tls.key"),
        ("http: {tls: {key: a}}", "http.tls.key is set without http.tls.certificate"),
        ("http: {tls: {minversion: tls1.1}}", "http.tls.minversion must be tls1.2 or tls1.3"),
        ("http: {workers: 0}", "http.workers must be at least 1"),
        ("storage: {filesystem: {rootdirectory: ''}}", "rootdirectory must not be empty"),
        ("storage: {filesystem: {}, inmemory: {}}", "storage has more than one of"),
        ("storage: {s3: {}}", "storage.s3.bucket is required"),
        ("storage: {s3: {bucket: b}}", "the driver storage.s3 is not in this build yet"),
        ("storage: {swift: {authurl: a, container: b}}", "storage.swift is not in this build yet"),
        ("alauda: {metadata: imageapi}", "alauda.metadata: imageapi needs alauda.auth.mode"),
        ("alauda: {metadata: imageapi}", "alauda.metadata: imageapi is not in this build yet"),
        ("alauda: {metadata: imageapi, naming: free}", "imageapi needs alauda.naming: namespaced"),
        ("alauda: {auth: {mode: kubernetes}, naming: free}", "needs alauda.naming: namespaced"),
        ("alauda: {auth: {mode: kubernetes}}", "kubernetes is not in this build yet"),
        ("alauda: {auth: {mode: kubernetes}}", "http.secret is empty"),
        ("alauda: {kubeconfig: /x}", "kubernetes is not in this build yet"),
        ("version: 0.2", "version must be 0.1, not '0.2'"),
        ("log: {levle: info}", "log.levle is no known key; the nearest is log.level"),
        ("storage: {delete: {enabled: yes}}", "storage.delete.enabled must be true or false"),
    ],
)
def test_what_may_not_be_is_refused(files: Files, text: str, problem: str) -> None:
    assert any(problem in told for told in files.refused(text)), files.refused(text)


def test_a_cluster_without_a_written_mode_is_refused_by_this_build() -> None:
    assert any("alauda.auth.mode: none starts" in problem for problem in refused(**CLUSTER))


def test_a_file_without_rights_loads_in_a_cluster(files: Files) -> None:
    config, _ = files.load("alauda: {auth: {mode: none}}", **CLUSTER)
    assert not config.has_rights


@pytest.mark.parametrize(
    ("addr", "address"),
    [
        (":5000", ("", 5000)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:5000", ("::1", 5000)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses_are_host_and_port(addr: str, address: tuple[str, int]) -> None:
    assert load_config(None, {"REGISTRY_HTTP_ADDR": addr})[0].http.address == address


# What is warned of


@pytest.mark.parametrize("addr", [":5000", "0.0.0.0:5000", "[::]:5000", "10.0.0.1:5000", "host:1"])
def test_an_open_registry_that_others_can_reach_is_warned_of(addr: str) -> None:
    _, warnings = load_config(None, {"REGISTRY_HTTP_ADDR": addr, "REGISTRY_HTTP_SECRET": "s"})
    (warning,) = warnings
    assert "NO RIGHTS ARE CHECKED" in warning


@pytest.mark.parametrize("addr", ["127.0.0.1:5000", "127.1.2.3:1", "[::1]:5000", "localhost:5000"])
def test_an_open_registry_on_loopback_is_not_warned_of(addr: str) -> None:
    environ = {"REGISTRY_HTTP_ADDR": addr, "REGISTRY_HTTP_SECRET": "s"}
    assert load_config(None, environ)[1] == []


def test_a_secret_that_is_made_at_start_is_warned_of() -> None:
    (warning,) = load_config(None, {})[1]
    assert warning.startswith("http.secret is empty")


def test_keys_without_effect_are_warned_of() -> None:
    environ = {"REGISTRY_HTTP_SECRET": "s", "REGISTRY_ALAUDA_PULLTHROUGH_ENABLED": "false"}
    assert load_config(None, environ)[1] == [
        "alauda.pullthrough.enabled is set, but has no effect in this build"
    ]


# The example, and all keys


class Example:
    """config.example.yaml, with the keys that are commented out in it."""

    KEY = re.compile(r"( *)(# )?( *)([a-z0-9]+):(?: |$)")

    def __init__(self) -> None:
        self.text = EXAMPLE.read_text()
        self.lines: dict[str, str] = {}
        section: list[tuple[int, str]] = []
        for line in self.text.splitlines():
            key = self.KEY.match(line)
            if key is not None:
                depth = len(key[1] + key[3])
                section = [*(part for part in section if part[0] < depth), (depth, key[4])]
                self.lines[".".join(name for _, name in section)] = line

    def uncommented(self, *paths: str) -> str:
        """Its text with the keys `paths`, and all that is below them, not commented out."""
        return "\n".join(
            line.replace("# ", "", 1)
            if line.lstrip().startswith("# ")
            and any(f"{path}.".startswith(f"{wanted}.") for wanted in paths)
            else line
            for path, line in self.lines.items()
        )


def other_value(path: str, key: Key) -> str:
    """A text for the key `path` that is not its default, where it can have another."""
    if get_origin(key.type) is Literal:
        return str(next((v for v in get_args(key.type) if v != key.default), key.default))
    if get_origin(key.type) is Mapping:
        return "{x: [y]}" if path == "http.headers" else "{x: y}"
    if get_origin(key.type) is tuple:
        return "[{source: a, mirrors: [b]}]" if path == "alauda.pullthrough.mirrors" else "[x]"
    if key.type is bool:
        return str(not key.default).lower()
    if key.type is int:
        assert isinstance(key.default, int)
        return str(key.default + 1)
    if key.type is Duration:
        return "61m"
    return "x"


def required(driver: str) -> dict[str, str]:
    """The variables without which `driver` cannot be chosen."""
    section = keys_of(Storage)[driver].section
    return {
        "REGISTRY_STORAGE": driver,
        **{
            variable_of(f"storage.{driver}.{path}"): "needed"
            for path, key in leaves(section or InMemory)
            if key.default is MISSING
        },
    }


def is_later(path: str) -> bool:
    section: type[Any] | None = Config
    for name in path.split("."):
        key = keys_of(section or Config)[name]
        if LATER in key.marks:
            return True
        section = key.section
    return False


@pytest.mark.parametrize("environ", [{}, CLUSTER])
def test_the_example_is_the_defaults(environ: dict[str, str]) -> None:
    assert wanted(environ, Example().text) == wanted(environ)


def test_the_example_starts() -> None:
    assert load_config(str(EXAMPLE), {}) == load_config(None, {})


def test_the_example_has_every_key_in_the_order_of_the_code() -> None:
    assert list(Example().lines) == list(all_paths(Config))


def test_every_key_of_the_example_is_explained() -> None:
    lines = Example().lines
    assert [path for path in LEAVES if not re.search(r"\S  # \S", lines[path])] == []


def test_keys_without_effect_are_so_marked_in_the_example() -> None:
    lines = Example().lines
    assert [path for path in LEAVES if is_later(path) and "(later)" not in lines[path]] == []


def test_what_depends_on_the_place_is_commented_out_with_the_value_without_a_cluster() -> None:
    text = Example().uncommented("http", "alauda", "storage.filesystem")
    assert wanted({}, text) == wanted({})
    assert wanted(CLUSTER, text) == wanted({})


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_of_the_example_loads_with_its_defaults(driver: str) -> None:
    storage = wanted({}, Example().uncommented(f"storage.{driver}")).storage
    assert storage.driver == driver
    for path, key in leaves(type(getattr(storage, driver))):
        if key.default is not MISSING:
            assert value_at(storage, f"{driver}.{path}") == key.default, path


@pytest.mark.parametrize("path", LEAVES)
def test_every_key_can_be_set_by_its_variable(path: str) -> None:
    key = LEAVES[path]
    environ = {variable_of(path): other_value(path, key)}
    if path.startswith("storage.") and (driver := path.split(".")[1]) in DRIVERS:
        environ = {**required(driver), **environ}
    loaded = load(Config, None, environ, strict=True)
    assert path in loaded.given
    choices = get_args(key.type) if get_origin(key.type) is Literal else ()
    if len(choices) != 1:
        assert value_at(loaded.config, path) != key.default


def test_keys_can_be_variables() -> None:
    assert [path for path in all_paths(Config) if not re.fullmatch(r"[a-z0-9.]+", path)] == []
