"""Repository names, tags and references: the grammar of OCI distribution-spec, "Pulling
manifests"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from oci.digest import Digest
from oci.errors import NameComponentsInvalid, NameInvalid, TagInvalid

NAME_LIMIT: Final = 255
"""bytes of `<host>/<name>`: what Docker's clients accept"""

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_IMAGESTREAM_LIMIT: Final = 253
_NAMESPACED: Final = "repository name must be <namespace>/<name>"


def check_name(name: str, *, host: str = "", namespaced: bool = False) -> str:
    """`name` itself, if it is a repository name that fits after `host` in a reference.

    With `namespaced` it must be exactly `<namespace>/<imagestream>`: an RFC 1123 label and a
    segment of at most 253 bytes. Raises NameInvalid.
    """
    if namespaced and name.count("/") != 1:
        raise NameComponentsInvalid(_NAMESPACED, {"name": name[:NAME_LIMIT]})
    if len(host) + 1 + len(name) > NAME_LIMIT:
        raise NameInvalid(
            f"host and repository name are over {NAME_LIMIT} bytes", {"name": name[:NAME_LIMIT]}
        )
    if _NAME.fullmatch(name) is None:
        raise NameInvalid(
            "a repository name is made of lower-case letters, digits and the separators . _ - /",
            {"name": name},
        )
    if namespaced:
        namespace, _, imagestream = name.partition("/")
        if _LABEL.fullmatch(namespace) is None or len(imagestream) > _IMAGESTREAM_LIMIT:
            raise NameInvalid(_NAMESPACED, {"name": name})
    return name


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def check_tag(tag: str) -> str:
    """`tag` itself, if it is one. Raises TagInvalid."""
    if not is_tag(tag):
        raise TagInvalid(
            "a tag is 1 to 128 letters, digits, and . _ - (not first)", {"tag": tag[:200]}
        )
    return tag


@dataclass(frozen=True, slots=True)
class Reference:
    """What a path names: a tag or a digest, never both."""

    tag: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """A text with `:` is a digest, any other a tag. Raises DigestInvalid or TagInvalid."""
        if ":" in text:
            return cls(None, Digest.parse(text))
        return cls(check_tag(text), None)

    def __str__(self) -> str:
        return self.tag or self.digest or ""
