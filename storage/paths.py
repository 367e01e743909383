"""The layout on storage: the one place that builds its paths. It is that of the CNCF distribution
registry, so that an existing backend is served as it is, and that registry serves what was written
here.

<root>/docker/registry/v2/
  blobs/<alg>/<hex[0:2]>/<hex>/data
  repositories/<name>/
    _layers/<alg>/<hex>/link                        content: "<alg>:<hex>", no newline
    _manifests/revisions/<alg>/<hex>/link
    _manifests/tags/<tag>/current/link
    _manifests/tags/<tag>/index/<alg>/<hex>/link
    _uploads/<uuid>/{startedat,data,hashstates/<alg>/<offset>}
    _referrers/<alg>/<subject hex>/<alg>/<referrer hex>/link   (ours)

distribution skips names with "_", so our own folder does not disturb it. Manifests are ordinary
blobs. A link that is empty or malformed counts as absent.
"""

from __future__ import annotations

from typing import Final

from oci.digest import Digest

ROOT: Final = "/docker/registry/v2"
BLOBS: Final = f"{ROOT}/blobs"
REPOSITORIES: Final = f"{ROOT}/repositories"

LINK: Final = "link"
DATA: Final = "data"
STARTED_AT: Final = "startedat"


def blob_folder(digest: Digest) -> str:
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def blob(digest: Digest) -> str:
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"


def repository(name: str) -> str:
    return f"{REPOSITORIES}/{name}"


def layers(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_layers"


def layer_folder(name: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_layers/{digest.algorithm}/{digest.hex}"


def layer_link(name: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_layers/{digest.algorithm}/{digest.hex}/link"


def manifests(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests"


def revisions(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/revisions"


def revision_folder(name: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/revisions/{digest.algorithm}/{digest.hex}"


def revision_link(name: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/revisions/{digest.algorithm}/{digest.hex}/link"


def tags(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/tags"


def tag_folder(name: str, tag: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/tags/{tag}"


CURRENT_LINK: Final = "current/link"
"""below a tag's folder"""


def tag_current(name: str, tag: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/tags/{tag}/{CURRENT_LINK}"


def index_link(digest: Digest) -> str:
    """Below a tag's folder: that the tag pointed to `digest` once."""
    return f"index/{digest.algorithm}/{digest.hex}/link"


def tag_index(name: str, tag: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/tags/{tag}/{index_link(digest)}"


def uploads(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_uploads"


def upload_folder(name: str, upload: str) -> str:
    return f"{REPOSITORIES}/{name}/_uploads/{upload}"


def upload_started(name: str, upload: str) -> str:
    return f"{REPOSITORIES}/{name}/_uploads/{upload}/startedat"


def upload_data(name: str, upload: str) -> str:
    return f"{REPOSITORIES}/{name}/_uploads/{upload}/data"


def hash_state(name: str, upload: str, algorithm: str, offset: int) -> str:
    return f"{REPOSITORIES}/{name}/_uploads/{upload}/hashstates/{algorithm}/{offset}"


def referrers(name: str, subject: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_referrers/{subject.algorithm}/{subject.hex}"


def referrer_folder(name: str, subject: Digest, referrer: Digest) -> str:
    return f"{referrers(name, subject)}/{referrer.algorithm}/{referrer.hex}"


def referrer_link(name: str, subject: Digest, referrer: Digest) -> str:
    return f"{referrers(name, subject)}/{referrer.algorithm}/{referrer.hex}/link"
