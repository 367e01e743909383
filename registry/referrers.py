"""Which manifests of a repository have another one as their subject (OCI distribution-spec,
"Listing Referrers")."""

from __future__ import annotations

import json
import re

from oci.digest import ALGORITHMS, Digest
from oci.errors import DigestInvalid, ManifestUnknown, NameUnknown
from oci.reference import Reference
from registry.manifests import ManifestStore
from registry.repository import Referrer, StoredManifest
from storage import paths
from storage.driver import StorageDriver
from storage.plan import Names, Plan, perform


class Referrers:
    """The edges that were kept with each push, and the fallback tags that older clients write, as
    one list."""

    def __init__(self, driver: StorageDriver, manifests: ManifestStore) -> None:
        self._driver = driver
        self._manifests = manifests

    async def of(self, name: str, subject: Digest) -> list[Referrer]:
        """In the byte order of digests, without doubles. An edge counts while its referrer is in
        the repository."""
        found = {
            stored.digest: _describe(stored)
            for stored in await perform(self._driver, self._edges(name, subject))
        }
        try:
            fallback = await self._manifests.get(name, Reference(fallback_tag(subject), None))
        except (NameUnknown, ManifestUnknown):
            return [found[digest] for digest in sorted(found)]
        for referrer in _listed(fallback):
            found.setdefault(Digest(referrer.digest), referrer)
        return [found[digest] for digest in sorted(found)]

    def _edges(self, name: str, subject: Digest) -> Plan[list[StoredManifest]]:
        digests = []
        for algorithm in ALGORITHMS:
            names: list[str] = yield Names(f"{paths.referrers(name, subject)}/{algorithm}")
            for text in names:
                try:
                    digests.append(Digest.parse(f"{algorithm}:{text}"))
                except DigestInvalid:
                    continue
        return (yield from self._manifests.members(name, digests))


def fallback_tag(subject: Digest) -> str:
    """The tag that clients without the referrers API use (OCI distribution-spec, "Referrers Tag
    Schema")."""
    tag = f"{subject.algorithm[:32]}-{subject.hex[:64]}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", tag)


def _describe(stored: StoredManifest) -> Referrer:
    manifest = stored.manifest
    return Referrer(
        manifest.media_type,
        stored.digest,
        manifest.size,
        manifest.referrer_type,
        dict(manifest.annotations),
    )


def _listed(fallback: StoredManifest) -> list[Referrer]:
    """The descriptors of a fallback index, with what the parsed manifest does not keep of them."""
    if not fallback.manifest.is_index:
        return []
    entries = json.loads(fallback.content)["manifests"]
    return [
        Referrer(
            child.media_type,
            child.digest,
            child.size,
            entry["artifactType"] if isinstance(entry.get("artifactType"), str) else None,
            {
                key: value
                for key, value in (entry.get("annotations") or {}).items()
                if isinstance(key, str) and isinstance(value, str)
            }
            if isinstance(entry.get("annotations"), dict)
            else {},
        )
        for child, entry in zip(fallback.manifest.manifests, entries, strict=True)
    ]
