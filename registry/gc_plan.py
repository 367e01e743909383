"""Decides for one repository what stays and what goes: pure, from the graph that was read to the
verdict.

A manifest that stays keeps what it names (config, layers, children) and what has it as its subject,
to any depth. Every link is judged by the path it lies at, and keeps the blob that its content
names: older registries link a sha512 name to a blob stored under sha256.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from registry.gc_files import Key, Keys, References

_NOTHING = References()


@dataclass(slots=True)
class Link:
    """A link file. `readable`: its size is that of a link; `blob`: the digest in it, None while it
    counts as absent."""

    young: bool
    readable: bool
    blob: Key | None = None


@dataclass(slots=True)
class Tag:
    """A tag's folder: `current` is the tag itself, `history` the digests that it had. Where it is
    `shared` with unknown files, it cannot go as a whole."""

    current: Link | None = None
    history: dict[Key, Link] = field(default_factory=dict)
    shared: bool = False

    def is_old(self) -> bool:
        """True where no file in it is younger than the grace."""
        return not (self.current and self.current.young) and not any(
            link.young for link in self.history.values()
        )


@dataclass(slots=True)
class Graph:
    """What a repository has. `layers` are the layer links older than the grace whose path and
    content say the same, `odd_layers` all others that have to be looked at; `broken` are manifests
    that cannot be read; `held` says that something else lies there that must stay."""

    name: str
    revisions: dict[Key, Link] = field(default_factory=dict)
    tags: dict[str, Tag] = field(default_factory=dict)
    referrers: dict[tuple[Key, Key], Link] = field(default_factory=dict)
    layers: Keys = field(default_factory=Keys)
    odd_layers: dict[Key, Link] = field(default_factory=dict)
    references: dict[Key, References] = field(default_factory=dict)
    broken: set[Key] = field(default_factory=set)
    held: bool = False

    def members(self) -> dict[Key, Key]:
        """The blob of each manifest that the repository has."""
        return {key: link.blob for key, link in self.revisions.items() if link.blob is not None}


@dataclass(slots=True)
class Verdict:
    """What goes from one repository. `revisions` come in levels, those that name others first, each
    with its blob; `is_empty` says that nothing is left of the repository then."""

    name: str
    tags: list[str]
    history: list[tuple[str, Key]]
    revisions: list[list[tuple[Key, Key | None]]]
    referrers: list[tuple[Key, Key]]
    layers: Keys
    is_empty: bool


def settle(
    graph: Graph, *, young_blobs: Collection[Key], delete_untagged: bool
) -> tuple[Verdict, set[Key]]:
    """The verdict on a repository, and the blobs that it keeps.

    Roots are all manifests; with `delete_untagged` those that a tag points to now, or that are
    younger than the grace (their link or their blob, which a push of the same content touches).
    Where a manifest is broken, nobody knows what it names: the repository keeps all others, and all
    layers.
    """
    members = graph.members()
    targets = {name: _target(tag, members) for name, tag in graph.tags.items()}
    roots: Iterable[Key] = members
    if delete_untagged:
        young = (
            key
            for key, blob in members.items()
            if graph.revisions[key].young or blob in young_blobs
        )
        roots = [*young, *(target for target in targets.values() if target is not None)]
    kept = _closure(graph, members, roots)
    marks = kept.union(members[key] for key in kept if key in members)
    tags = [name for name, tag in graph.tags.items() if targets[name] is None and tag.is_old()]
    revisions = [
        key
        for key, link in graph.revisions.items()
        if not link.young
        and (key not in kept or key not in members)
        and (not graph.broken or key in graph.broken or key not in members)
    ]
    staying = members.keys() - set(revisions)
    gone = {name for name in tags if not graph.tags[name].shared}
    history = [
        (name, key)
        for name, tag in graph.tags.items()
        if name not in gone
        for key, link in tag.history.items()
        if not link.young and (link.blob is None or key not in staying)
    ]
    referrers = [
        edge
        for edge, link in graph.referrers.items()
        if not link.young and (link.blob is None or not ({edge[1], link.blob} & staying))
    ]
    layers = Keys()
    for key in graph.layers:
        if key not in kept and key not in young_blobs and not graph.broken:
            layers.append(key)
    for key, link in graph.odd_layers.items():
        if link.blob is None:
            stays = link.young
        else:
            stays = link.young or key in kept or link.blob in young_blobs or bool(graph.broken)
            if stays:
                marks.add(link.blob)
        if not stays:
            layers.append(key)
    return (
        Verdict(
            name=graph.name,
            tags=tags,
            history=history,
            revisions=[
                [(key, members.get(key)) for key in level]
                for level in _levels(revisions, graph.references)
            ],
            referrers=referrers,
            layers=layers,
            is_empty=not graph.held
            and len(tags) == len(graph.tags)
            and len(revisions) == len(graph.revisions)
            and len(referrers) == len(graph.referrers)
            and len(layers) == len(graph.layers) + len(graph.odd_layers),
        ),
        marks,
    )


def _target(tag: Tag, members: Mapping[Key, Key]) -> Key | None:
    """What the tag points to: it counts only while the repository has that manifest."""
    target = None if tag.current is None else tag.current.blob
    return target if target in members else None


def _closure(graph: Graph, members: Mapping[Key, Key], roots: Iterable[Key]) -> set[Key]:
    referrers: dict[Key, list[Key]] = {}
    for (subject, referrer), link in graph.referrers.items():
        if link.blob is not None:
            referrers.setdefault(subject, []).extend({referrer, link.blob} & members.keys())
    for key in members:
        parent = graph.references.get(key, _NOTHING).subject
        if parent is not None:
            referrers.setdefault(parent, []).append(key)
    kept: set[Key] = set()
    waiting = list(roots)
    while waiting:
        named = waiting.pop()
        if named in kept:
            continue
        kept.add(named)
        waiting.extend(graph.references.get(named, _NOTHING).names)
        waiting.extend(referrers.get(named, ()))
    return kept


def _levels(keys: list[Key], references: Mapping[Key, References]) -> list[list[Key]]:
    """`keys` in groups such that no manifest comes before one that names it."""
    level = dict.fromkeys(keys, 0)
    for key in reversed(_named_first(level, references)):
        for child in references.get(key, _NOTHING).names:
            if child in level:
                level[child] = max(level[child], level[key] + 1)
    levels: list[list[Key]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for key, depth in level.items():
        levels[depth].append(key)
    return levels


def _named_first(keys: Collection[Key], references: Mapping[Key, References]) -> list[Key]:
    order: list[Key] = []
    seen: set[Key] = set()
    for start in keys:
        waiting = [(start, False)]
        while waiting:
            key, is_done = waiting.pop()
            if is_done:
                order.append(key)
            elif key not in seen:
                seen.add(key)
                waiting.append((key, True))
                waiting.extend(
                    (child, False) for child in references.get(key, _NOTHING).names if child in keys
                )
    return order
