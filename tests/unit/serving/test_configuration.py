from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from serving.config_schema import DRIVER, LATER, Range, Secret, leaves, variable_of
from serving.configuration import ConfigError, Loaded, load
from serving.durations import Duration


@dataclass(frozen=True, slots=True)
class Disk:
    path: str = "/data"


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    secretkey: Secret = Secret("")  # noqa: RUF009  # immutable


@dataclass(frozen=True, slots=True)
class Store:
    disk: Annotated[Disk | None, DRIVER] = None
    bucket: Annotated[Bucket | None, DRIVER] = None
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Mirror:
    source: str
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Web:
    addr: str = ":80"
    workers: Annotated[int, Range(1, 8)] = 1
    ratio: float = 0.5
    wait: Annotated[Duration, Range(1)] = Duration(10)  # noqa: RUF009  # immutable
    level: Literal["info", "none", "1.0"] = "info"
    title: str | None = None
    names: tuple[str, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: {"service": "web"})
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tracing:
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    web: Web = Web()
    store: Store = Store()
    tracing: Annotated[Tracing, LATER] = Tracing()


Environ = Mapping[str, str]


def read(
    text: str | None = None, environ: Environ | None = None, *, strict: bool = False, **more: str
) -> Loaded[Sample]:
    return load(Sample, text, {**(environ or {}), **more}, "APP", strict=strict)


def problems(
    text: str | None = None, environ: Environ | None = None, *, strict: bool = False, **more: str
) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(text, environ, strict=strict, **more)
    return caught.value.problems


@pytest.mark.parametrize(
    "text", [None, "", "web:", "web: {}", "# nothing\n", "web: {addr: }", "{}"]
)
def test_what_is_not_given_has_its_default(text: str | None) -> None:
    assert read(text).config == Sample()


def test_values_are_of_the_stated_types() -> None:
    text = """
    web:
      addr: 1:30
      workers: 3
      ratio: 0.25
      wait: 1h30m
      level: none
      title: no
      names: [yes, 010, "null", 1e3]
      mirrors: [{source: a, mirrors: [b, c]}, {source: d}]
      labels: {on: off, 1: 2}
      headers: {X-A: [a, b]}
    store: {bucket: {name: 2024-01-01, secretkey: 0x10}, readonly: True}
    """
    assert read(text).config == Sample(
        web=Web(
            addr="1:30",
            workers=3,
            ratio=0.25,
            wait=Duration(5400),
            level="none",
            title="no",
            names=("yes", "010", "null", "1e3"),
            mirrors=(Mirror("a", ("b", "c")), Mirror("d")),
            labels={"on": "off", "1": "2"},
            headers={"X-A": ("a", "b")},
        ),
        store=Store(bucket=Bucket("2024-01-01", Secret("0x10")), readonly=True),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("workers: many", "web.workers must be a whole number, not 'many' (line 2)"),
        ("workers: 010", "web.workers must be a whole number, not '010' (line 2)"),
        ("workers: 1_0", "web.workers must be a whole number, not '1_0' (line 2)"),
        ("workers: 9", "web.workers must be at least 1 and at most 8 (line 2)"),
        ("workers: [1]", "web.workers must be a single value (line 2)"),
        ("ratio: nan", "web.ratio must be a number, not 'nan' (line 2)"),
        ("wait: 0s", "web.wait must be at least 1 (line 2)"),
        ("wait: 10", "web.wait must be a duration such as 1h30m, 10s or 0s, not '10' (line 2)"),
        ("level: loud", "web.level must be info or none or 1.0, not 'loud' (line 2)"),
        ("names: a", "web.names must be a list, such as [a, b] (line 2)"),
        ("labels: a", "web.labels must be a mapping of keys to values (line 2)"),
        ("headers: {a: b}", "web.headers must be a list, such as [a, b] (line 2)"),
        ("mirrors: [{mirrors: []}]", "web.mirrors.source is required"),
        ("{a: b}: c", "web has a key that is not a name (line 2)"),
    ],
)
def test_a_bad_value_is_named_by_its_key_and_line(line: str, problem: str) -> None:
    assert problems(f"web:\n  {line}") == (problem,)


@pytest.mark.parametrize("word", ["yes", "on", "1", "y", "enabled"])
def test_only_true_and_false_are_switches(word: str) -> None:
    assert "store.readonly must be true or false" in problems(f"store: {{readonly: {word}}}")[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("web: {adr: x}", "web.adr is no known key; the nearest is web.addr (line 1)"),
        (
            "web: {read_only: x}",
            "web.read_only is no known key; the nearest is store.readonly (line 1)",
        ),
        ("store: {readOnly: true}", "the nearest is store.readonly"),
        ("wbe: {}", "wbe is no known key; the nearest is web (line 1)"),
        ("readonly: true", "readonly is no known key; the nearest is store.readonly (line 1)"),
        ("zzz: 1", "zzz is no known key; the nearest is "),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_one(text: str, problem: str) -> None:
    assert problem in problems(text)[0]


def test_all_problems_are_told_at_once() -> None:
    assert len(problems("web: {workers: x, wait: y}\nother: 1", APP_STORE_READONLY="z")) == 4


@pytest.mark.parametrize(
    "text",
    ["web: {addr: a}\nweb: {addr: b}", "web: {addr: a, addr: b}", "web: {labels: {a: 1, a: 2}}"],
)
def test_a_key_that_is_there_twice_is_an_error(text: str) -> None:
    assert "is there twice" in problems(text)[0]


@pytest.mark.parametrize("text", ["- a", "text", "web: []", "web: text"])
def test_a_section_must_be_a_mapping(text: str) -> None:
    assert "must be a mapping" in problems(text)[0]


@pytest.mark.parametrize(
    "text",
    ["store: {bucket: {secretkey: *hunter2}}", "a: [hunter2", "{hunter2: '", "a: @hunter2", "\0"],
)
def test_broken_yaml_is_told_without_quoting_it(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("the file is not valid YAML")
    assert "hunter2" not in problem


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    assert "not valid YAML" in problems("[" * 10_000)[0]


def test_tags_make_no_objects() -> None:
    assert read("web: {addr: !!python/name:os.system x}").config.web.addr == "x"


def test_a_variable_wins_over_the_file() -> None:
    loaded = read("web: {addr: a, workers: 2}", APP_WEB_ADDR="b")
    assert loaded.config.web.addr == "b"
    assert loaded.config.web.workers == 2


@pytest.mark.parametrize("text", ["", "null", "~", " a: b # c", "*x", "'q'", "[a", "yes"])
def test_a_text_in_a_variable_is_taken_as_it_is(text: str) -> None:
    assert read(APP_WEB_ADDR=text).config.web.addr == text


def test_lists_mappings_and_sections_are_given_in_yaml_or_json() -> None:
    config = read(
        APP_WEB_NAMES='["a", "b"]',
        APP_WEB_HEADERS="{X-A: [a]}",
        APP_WEB_MIRRORS='[{"source": "a", "mirrors": ["b"]}]',
        APP_STORE="{readonly: true}",
    ).config
    assert config.web.names == ("a", "b")
    assert config.web.headers == {"X-A": ("a",)}
    assert config.web.mirrors == (Mirror("a", ("b",)),)
    assert config.store.readonly


def test_a_section_in_a_variable_keeps_the_other_keys_of_the_file() -> None:
    web = read("web: {addr: a, workers: 2}", APP_WEB="{workers: 3}").config.web
    assert (web.addr, web.workers) == ("a", 3)


def test_the_more_exact_variable_wins() -> None:
    config = read(APP_STORE="{readonly: true}", APP_STORE_READONLY="false").config
    assert not config.store.readonly


def test_an_entry_of_a_mapping_is_added_by_a_variable() -> None:
    assert read(APP_WEB_LABELS_REGION="eu").config.web.labels == {"service": "web", "region": "eu"}
    web = read("web: {labels: {a: b}}", APP_WEB_LABELS_MY_KEY="c").config.web
    assert web.labels == {"a": "b", "my_key": "c"}


def test_an_entry_of_a_mapping_leaves_the_default_as_it_is() -> None:
    read(APP_WEB_LABELS_REGION="eu")
    assert read().config.web.labels == {"service": "web"}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("APP_WEB_WORKERS", "x", "web.workers must be a whole number, not 'x' (APP_WEB_WORKERS)"),
        ("APP_WEB_WORKERS", "", "web.workers must be a whole number, not '' (APP_WEB_WORKERS)"),
        ("APP_WEB_NAMES", "a, b", "web.names must be a list, such as [a, b] (APP_WEB_NAMES)"),
        ("APP_WEB", "{adr: 1}", "web.adr is no known key; the nearest is web.addr (APP_WEB)"),
        (
            "APP_STORE",
            "{readonly: yes}",
            "store.readonly must be true or false, not 'yes' (APP_STORE)",
        ),
        ("APP_STORE", "{hunter2", "APP_STORE is not valid YAML"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str, problem: str) -> None:
    assert problems(None, {name: value})[0].startswith(problem)


def test_an_unknown_variable_is_warned_of_with_the_nearest_name() -> None:
    assert read(APP_WEB_ADR="x").warnings == (
        "the variable APP_WEB_ADR is no known key; the nearest is APP_WEB_ADDR",
    )


def test_with_strict_an_unknown_variable_is_an_error() -> None:
    assert "APP_PORT is no known key" in problems(strict=True, APP_PORT="tcp://10.0.0.1:80")[0]


@pytest.mark.parametrize("name", ["APP_WEB_ADDR_HOST", "APP_", "APP_WEB_", "APP_STORE_DISK_PATH_X"])
def test_a_variable_below_a_value_is_unknown(name: str) -> None:
    assert f"{name} is no known key" in read(None, {name: "x"}).warnings[0]


def test_other_variables_are_none_of_ours() -> None:
    assert read(APPLE="x", PATH="/bin", APP_CONFIGURATION_PATH="/x").warnings == ()


def test_naming_a_driver_is_enough() -> None:
    assert read("store: {disk: }").config.store == Store(disk=Disk())
    assert read("store: disk").config.store == Store(disk=Disk())
    assert read(APP_STORE="disk").config.store == Store(disk=Disk())


def test_the_variable_of_the_section_chooses_the_driver_and_drops_the_others() -> None:
    loaded = read(
        "store: {disk: {path: /x}, readonly: true}",
        APP_STORE="bucket",
        APP_STORE_BUCKET_NAME="b",
        APP_STORE_DISK_PATH="/y",
    )
    assert loaded.config.store == Store(bucket=Bucket("b"), readonly=True)
    assert loaded.warnings == ("APP_STORE_DISK_PATH has no effect: store is bucket",)
    assert "store.disk" not in loaded.given


def test_a_chosen_driver_keeps_its_keys_of_the_file() -> None:
    store = read("store: {disk: {path: /x}}", APP_STORE="disk").config.store
    assert store == Store(disk=Disk("/x"))


def test_two_drivers_are_an_error() -> None:
    (problem,) = problems("store: {disk: {}, bucket: {name: b}}")
    assert problem == "store has more than one of disk, bucket; APP_STORE=disk would choose one"


def test_an_unknown_driver_is_an_error() -> None:
    assert problems(APP_STORE="buckets") == ("store must be one of disk, bucket (APP_STORE)",)


def test_a_key_without_default_is_required() -> None:
    assert problems(APP_STORE="bucket") == ("store.bucket.name is required",)


def test_keys_for_later_warn_unless_they_are_the_default() -> None:
    assert read("tracing: {endpoint: ''}").warnings == ()
    assert read(APP_TRACING_ENDPOINT="x").warnings == (
        "tracing.endpoint is set, but has no effect in this build",
    )


def test_what_was_given_is_known() -> None:
    loaded = read("web: {addr: a, level: }", APP_STORE="disk", APP_WEB_LABELS_A="b")
    assert loaded.given == {"web", "web.addr", "web.labels", "store", "store.disk"}


def test_secrets_are_not_in_a_repr() -> None:
    config = read(APP_STORE_BUCKET_NAME="b", APP_STORE_BUCKET_SECRETKEY="hunter2").config
    assert "hunter2" not in repr(config)
    assert config.store.bucket is not None
    assert config.store.bucket.secretkey == "hunter2"


def test_a_configuration_can_be_sent_to_another_process() -> None:
    config = read(APP_STORE_BUCKET_NAME="b", APP_STORE_BUCKET_SECRETKEY="x").config
    assert pickle.loads(pickle.dumps(config)) == config


def test_every_leaf_has_a_variable() -> None:
    assert [variable_of(path, "APP") for path, _ in leaves(Store)] == [
        "APP_DISK_PATH",
        "APP_BUCKET_NAME",
        "APP_BUCKET_SECRETKEY",
        "APP_READONLY",
    ]
