"""Links: small files that say "this repository has that digest". An empty or malformed one counts
as absent."""

from __future__ import annotations

from oci.digest import Digest
from oci.errors import DigestInvalid
from storage.driver import FileTooLarge
from storage.plan import Get, Plan

_LINK_LIMIT = 256
"""bytes; the longest link has 135"""


def parse_link(content: bytes | None) -> Digest | None:
    """The digest in a link's content, or None where the link counts as absent."""
    if not content:
        return None
    try:
        return Digest.parse(content.decode("ascii", "replace"))
    except DigestInvalid:
        return None


def read_link(path: str) -> Plan[Digest | None]:
    """The digest in the link at `path`; it may differ from the path's where an older registry
    linked a sha512 name to the sha256 blob."""
    try:
        content = yield Get(path, _LINK_LIMIT)
    except FileTooLarge:
        return None
    return parse_link(content)
