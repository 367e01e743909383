"""What each file on storage is to the garbage collector: pure functions of paths and manifest
bytes.

The layout is that of `storage/paths.py`; what is not of it is unknown, and an unknown file is never
deleted. Digests are held as keys, their raw 32 bytes (sha256) or 64 (sha512): a backend of 10
million blobs has to fit into memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from oci.descriptor import MANIFESTS, OCI_MANIFEST
from oci.digest import HEX_LENGTH, SHA256, SHA512, Digest
from oci.errors import DigestInvalid
from storage import paths

Key = bytes

LINK_SIZES: Final = {
    length // 2: len(f"{algorithm}:") + length for algorithm, length in HEX_LENGTH.items()
}
"""bytes in a link, by the length of the key in it: a file of any other size is malformed"""

PARTS: Final = ("_layers", "_manifests", "_referrers", "_uploads")
"""the folders of a repository"""

_SHORT: Final = HEX_LENGTH[SHA256] // 2
_LONG: Final = HEX_LENGTH[SHA512] // 2


def key_of(digest: Digest) -> Key:
    return bytes.fromhex(digest.hex)


def digest_of(key: Key) -> Digest:
    return Digest(f"{SHA256 if len(key) == _SHORT else SHA512}:{key.hex()}")


class Keys:
    """A list of keys at 32 or 64 bytes each."""

    __slots__ = ("_long", "_short")

    def __init__(self) -> None:
        self._short = bytearray()
        self._long = bytearray()

    def append(self, key: Key) -> None:
        (self._short if len(key) == _SHORT else self._long).extend(key)

    def __len__(self) -> int:
        return len(self._short) // _SHORT + len(self._long) // _LONG

    def __iter__(self) -> Iterator[Key]:
        for packed, width in ((self._short, _SHORT), (self._long, _LONG)):
            for start in range(0, len(packed), width):
                yield bytes(packed[start : start + width])


class What(Enum):
    """The kinds of files. Every path is exactly one of them."""

    BLOB = auto()
    LAYER = auto()
    REVISION = auto()
    CURRENT = auto()
    INDEX = auto()
    REFERRER = auto()
    UPLOAD = auto()
    LEFTOVER = auto()
    UNKNOWN = auto()


class Place(NamedTuple):
    """Where a path is in the layout. `key` is the digest that the path spells, the subject's one
    for a referrer link; a leftover's `path` is the topmost file or folder that goes with it."""

    what: What
    path: str
    repository: str = ""
    key: Key = b""
    tag: str = ""
    referrer: Key = b""


_DIGEST: Final = r"sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128}"
_NAME_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME: Final = rf"{_NAME_PART}(?:/{_NAME_PART})*"
_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_BLOB: Final = re.compile(
    rf"{re.escape(paths.BLOBS)}/(?:"
    rf"sha256/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})|sha512/([0-9a-f]{{2}})/(\3[0-9a-f]{{126}})"
    rf")/data"
)
_OF_REPOSITORY: Final = re.compile(
    rf"{re.escape(paths.REPOSITORIES)}/(?P<name>{_NAME})/_(?:"
    rf"layers/(?P<layer>{_DIGEST})/link"
    rf"|manifests/revisions/(?P<revision>{_DIGEST})/link"
    rf"|manifests/tags/(?P<current>{_TAG})/current/link"
    rf"|manifests/tags/(?P<tag>{_TAG})/index/(?P<index>{_DIGEST})/link"
    rf"|referrers/(?P<subject>{_DIGEST})/(?P<referrer>{_DIGEST})/link"
    rf"|(?P<upload>uploads)/.*"
    rf")"
)
_UUID: Final = r"[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}"
_LEFTOVER: Final = re.compile(rf"(.*?/\.(?:new|del)-[^/]+)(?:/.*)?|(.*/[^/]+\.{_UUID}\.tmp)")
"""what a killed process leaves: folders on their way in or out, and files not renamed yet"""


def locate(path: str) -> Place:
    """What the file at `path` is."""
    blob = _BLOB.fullmatch(path)
    if blob is not None:
        return Place(What.BLOB, path, "", bytes.fromhex(blob[2] or blob[4]))
    found = _OF_REPOSITORY.fullmatch(path)
    if found is None:
        return _other(path)
    kind = found.lastgroup
    if kind == "layer":
        return Place(What.LAYER, path, found["name"], _key(found["layer"]))
    if kind == "revision":
        return Place(What.REVISION, path, found["name"], _key(found["revision"]))
    if kind == "index":
        return Place(What.INDEX, path, found["name"], _key(found["index"]), found["tag"])
    if kind == "current":
        return Place(What.CURRENT, path, found["name"], tag=found["current"])
    if kind == "referrer":
        subject, referrer = _key(found["subject"]), _key(found["referrer"])
        return Place(What.REFERRER, path, found["name"], subject, referrer=referrer)
    return Place(What.UPLOAD, path, found["name"])


def _other(path: str) -> Place:
    leftover = _LEFTOVER.fullmatch(path) if "/." in path or path.endswith(".tmp") else None
    if leftover is None:
        return Place(What.UNKNOWN, path)
    return Place(What.LEFTOVER, leftover[1] or leftover[2])


def is_name_part(text: str) -> bool:
    """Whether a folder called so may be part of a repository's name."""
    return re.fullmatch(_NAME_PART, text) is not None


def _key(text: str) -> Key:
    return bytes.fromhex(text[len("sha256/") :])


def folders_above(path: str) -> Iterator[str]:
    """The folders that hold `path`, the nearest first, below the layout's root."""
    while (path := path.rpartition("/")[0]) and path != paths.ROOT:
        yield path


@dataclass(frozen=True, slots=True)
class References:
    """What a manifest names. `names` has config, layers and children; `manifests` those of them
    that say they are manifests."""

    names: tuple[Key, ...] = ()
    manifests: tuple[Key, ...] = ()
    subject: Key | None = None


def references(content: bytes) -> References | None:
    """What the manifest in `content` names, or None where it is no JSON object.

    Read with more patience than a push: schema 1, artifact manifests and types yet to come keep
    their blobs as well.
    """
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    names = [_named(document.get("config"), "digest")]
    for field, digest in (("layers", "digest"), ("blobs", "digest"), ("fsLayers", "blobSum")):
        names += [_named(entry, digest) for entry in _entries(document, field)]
    children = _entries(document, "manifests")
    names += [_named(child, "digest") for child in children]
    manifests = [
        _named(child, "digest")
        for child in children
        if child.get("mediaType", OCI_MANIFEST) in MANIFESTS
    ]
    return References(_unique(names), _unique(manifests), _named(document.get("subject"), "digest"))


def _entries(document: dict[str, Any], field: str) -> list[dict[str, Any]]:
    entries = document.get(field)
    return (
        [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )


def _named(entry: object, field: str) -> Key | None:
    text = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(text, str):
        return None
    try:
        return key_of(Digest.parse(text))
    except DigestInvalid:
        return None  # another algorithm: its files are unknown ones to us, and stay


def _unique(names: list[Key | None]) -> tuple[Key, ...]:
    return tuple(dict.fromkeys(name for name in names if name is not None))
