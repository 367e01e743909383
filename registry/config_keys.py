"""The keys of the registry's configuration, with their types and defaults.

The defaults are those of a registry without a cluster; `config` puts those of a cluster in their
place, and says what may not be combined. Keys marked LATER belong to parts that this build has not
got: a file that has them loads. What a key does is said in config.example.yaml, which has all of
them in this order.
"""

# Secret and Duration are immutable, and so as good for defaults as texts and numbers are.
# ruff: noqa: RUF009

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from serving.config_schema import DRIVER, LATER, Range, Secret
from serving.durations import Duration

Number = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Interval = Annotated[Duration, Range(0.1)]

_MIB: Final = 1024 * 1024
_PART_SIZE: Final = Range(5 * _MIB, 5 * 1024 * _MIB)
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]*)):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class AccessLog:
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Log:
    level: Literal["error", "warn", "info", "debug"] = "info"
    formatter: Literal["text", "json", "logstash"] = "text"
    fields: Mapping[str, str] = field(default_factory=lambda: {"service": "registry"})
    accesslog: AccessLog = AccessLog()


@dataclass(frozen=True, slots=True)
class Tls:
    """Both files, or none of them: plain HTTP."""

    certificate: str = ""
    key: str = ""
    minversion: Literal["tls1.2", "tls1.3"] = "tls1.2"
    ciphersuites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Http:
    addr: str = "127.0.0.1:5000"
    net: Literal["tcp"] = "tcp"
    workers: Positive = 1
    secret: Secret = Secret("")
    host: str = ""
    relativeurls: bool = True
    draindelay: Annotated[Duration, Range(0)] = Duration(0)
    draintimeout: Annotated[Duration, Range(0)] = Duration(29)
    tls: Tls = Tls()
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        """Host (empty for all of IPv4 and IPv6) and port of `addr`. Raises ValueError."""
        parts = _ADDRESS.fullmatch(self.addr)
        if parts is None or int(parts[3]) > 65535:
            raise ValueError("must be host:port, [address]:port or :port")
        return parts[1] or parts[2] or "", int(parts[3])


@dataclass(frozen=True, slots=True)
class Filesystem:
    rootdirectory: str = "./data"


@dataclass(frozen=True, slots=True)
class InMemory:
    """Has no keys."""


@dataclass(frozen=True, slots=True)
class S3:
    bucket: str
    region: str = ""
    regionendpoint: str = ""
    accesskey: Secret = Secret("")
    secretkey: Secret = Secret("")
    sessiontoken: Secret = Secret("")
    credentialsconfigpath: str = ""
    forcepathstyle: bool = True
    encrypt: bool = False
    keyid: str = ""
    secure: bool = True
    skipverify: bool = False
    chunksize: Annotated[int, _PART_SIZE] = 10 * _MIB
    multipartcopychunksize: Annotated[int, _PART_SIZE] = 32 * _MIB
    multipartcopymaxconcurrency: Positive = 100
    multipartcopythresholdsize: Number = 32 * _MIB
    rootdirectory: str = ""
    storageclass: str = "STANDARD"
    objectacl: str = "private"
    usedualstack: bool = False
    useragent: str = ""
    redirectendpoint: str = ""


@dataclass(frozen=True, slots=True)
class Gcs:
    bucket: str
    keyfile: str = ""
    rootdirectory: str = ""
    chunksize: Annotated[int, Range(256 * 1024)] = 5 * _MIB


@dataclass(frozen=True, slots=True)
class Azure:
    container: str
    accountname: str
    accountkey: Secret = Secret("")
    realm: str = "core.windows.net"


@dataclass(frozen=True, slots=True)
class Swift:
    authurl: str
    container: str
    username: str = ""
    password: Secret = Secret("")
    tokenid: Secret = Secret("")
    applicationcredentialid: str = ""
    applicationcredentialname: str = ""
    applicationcredentialsecret: Secret = Secret("")
    authversion: Annotated[int, Range(0, 3)] = 0
    domain: str = ""
    domainid: str = ""
    tenant: str = ""
    tenantid: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Redirect:
    disable: bool = False
    skipcidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cache:
    blobdescriptor: Literal["inmemory"] = "inmemory"


@dataclass(frozen=True, slots=True)
class UploadPurging:
    enabled: bool = True
    age: Annotated[Duration, Range(0)] = Duration(168 * 3600)
    interval: Annotated[Duration, Range(1)] = Duration(24 * 3600)
    dryrun: bool = False


@dataclass(frozen=True, slots=True)
class ReadOnly:
    enabled: bool = False


@dataclass(frozen=True, slots=True)
class Maintenance:
    uploadpurging: UploadPurging = UploadPurging()
    readonly: ReadOnly = ReadOnly()


@dataclass(frozen=True, slots=True)
class Storage:
    """One driver is set once the defaults are in place."""

    filesystem: Annotated[Filesystem | None, DRIVER] = None
    inmemory: Annotated[InMemory | None, DRIVER] = None
    s3: Annotated[S3 | None, DRIVER] = None
    gcs: Annotated[Gcs | None, DRIVER] = None
    azure: Annotated[Azure | None, DRIVER] = None
    swift: Annotated[Swift | None, DRIVER] = None
    delete: Delete = Delete()
    redirect: Annotated[Redirect, LATER] = Redirect()
    cache: Cache = Cache()
    maintenance: Maintenance = Maintenance()

    @property
    def driver(self) -> str:
        """The driver's name; empty where none is given yet."""
        names = ("filesystem", "inmemory", "s3", "gcs", "azure", "swift")
        return next((name for name in names if getattr(self, name) is not None), "")


@dataclass(frozen=True, slots=True)
class StorageHealth:
    enabled: bool = True
    interval: Interval = Duration(10)
    threshold: Positive = 3


@dataclass(frozen=True, slots=True)
class HealthChecks:
    storagedriver: StorageHealth = StorageHealth()


@dataclass(frozen=True, slots=True)
class Catalog:
    maxentries: Positive = 1000


@dataclass(frozen=True, slots=True)
class Tags:
    maxtags: Positive = 1000


@dataclass(frozen=True, slots=True)
class Server:
    addr: str = "image-registry.image-registry-system.svc:5000"


@dataclass(frozen=True, slots=True)
class TokenReviews:
    ttl: Duration = Duration(60)
    negativettl: Duration = Duration(5)
    maxentries: Number = 10_000


@dataclass(frozen=True, slots=True)
class AccessReviews:
    ttl: Duration = Duration(30)
    negativettl: Duration = Duration(5)
    maxentries: Number = 10_000


@dataclass(frozen=True, slots=True)
class AuthCache:
    tokenreview: TokenReviews = TokenReviews()
    subjectaccessreview: AccessReviews = AccessReviews()


@dataclass(frozen=True, slots=True)
class Auth:
    mode: Literal["kubernetes", "none"] = "none"
    realm: Annotated[str, LATER] = "alauda"
    tokenrealm: Annotated[str, LATER] = ""
    audiences: Annotated[tuple[str, ...], LATER] = ()
    issuetokens: Annotated[bool, LATER] = False
    cache: Annotated[AuthCache, LATER] = AuthCache()


@dataclass(frozen=True, slots=True)
class Audit:
    enabled: bool = False


@dataclass(frozen=True, slots=True)
class MetricsAccess:
    enabled: bool = True
    secret: Secret = Secret("")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """0 is no limit; a `maxwaitinqueue` of 0 waits for ever."""

    maxrunning: Number = 0
    maxinqueue: Number = 0
    maxwaitinqueue: Duration = Duration(0)


@dataclass(frozen=True, slots=True)
class Requests:
    read: RequestLimits = RequestLimits()
    write: RequestLimits = RequestLimits()


@dataclass(frozen=True, slots=True)
class Quota:
    enabled: bool = True
    cachettl: Duration = Duration(60)


@dataclass(frozen=True, slots=True)
class RepositoryCache:
    blobrepositoryttl: Duration = Duration(600)


@dataclass(frozen=True, slots=True)
class Mirrors:
    source: str
    mirrors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PullThrough:
    enabled: bool = True
    mirror: bool = True
    credentialsfile: str = ""
    mirrors: tuple[Mirrors, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Validation:
    indexes: Literal["complete", "sparse"] = "complete"


@dataclass(frozen=True, slots=True)
class Alauda:
    version: Literal["1.0"] = "1.0"
    kubeconfig: str = ""
    naming: Literal["namespaced", "free"] = "free"
    metadata: Literal["imageapi", "storage"] = "storage"
    server: Annotated[Server, LATER] = Server()
    auth: Auth = Auth()
    audit: Audit = Audit()
    metrics: MetricsAccess = MetricsAccess()
    requests: Requests = Requests()
    quota: Annotated[Quota, LATER] = Quota()
    cache: Annotated[RepositoryCache, LATER] = RepositoryCache()
    pullthrough: Annotated[PullThrough, LATER] = PullThrough()
    validation: Validation = Validation()


@dataclass(frozen=True, slots=True)
class Config:
    version: Literal["0.1"] = "0.1"
    log: Log = Log()
    http: Http = Http()
    storage: Storage = Storage()
    health: HealthChecks = HealthChecks()
    catalog: Catalog = Catalog()
    tags: Tags = Tags()
    alauda: Alauda = Alauda()

    @property
    def has_rights(self) -> bool:
        """Whether callers are asked who they are and what they may do."""
        return self.alauda.auth.mode == "kubernetes"
