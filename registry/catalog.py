"""The repositories in byte order, a page at a time, from the folders themselves.

Names nest (`a` and `a/b` may both be repositories) and `a-b` stands between `a` and `a/b` in byte
order: so a folder is met twice on the way, once as the name `a` and once as the range of names that
begin with `a/`.
"""

from __future__ import annotations

from bisect import bisect_left

from registry.repository import Page
from storage import paths
from storage.plan import Names, Plan

_MARK = "_manifests"


def _has_manifests(names: list[str]) -> bool:
    at = bisect_left(names, _MARK)
    return at < len(names) and names[at] == _MARK


def _walk_order(names: list[str]) -> list[str]:
    """Child folders as they come in byte order of full names: `a` (the repository) and `a/` (what
    is below it)."""
    children = [name for name in names if name[0] != "_"]
    entries = children + [f"{name}/" for name in children]
    entries.sort()
    return entries


def repositories_after(after: str, limit: int) -> Plan[Page]:
    """At most `limit` repositories that have manifests, after the name `after`, and whether there
    are more."""
    found: list[str] = []
    # Each level of the walk: the folder's prefix, its entries in order, and the next one to look
    # at.
    top: list[str] = yield Names(paths.REPOSITORIES, keep=True)
    levels: list[tuple[str, list[str], int]] = [("", _walk_order(top), 0)]
    below: dict[str, list[str]] = {}
    while levels:
        prefix, entries, at = levels.pop()
        while at < len(entries):
            entry = entries[at]
            at += 1
            name = prefix + entry
            if entry[-1] == "/":
                if name < after and not after.startswith(name):
                    continue
                children = below.pop(name, None)
                if children is None:
                    children = yield Names(f"{paths.REPOSITORIES}/{name[:-1]}", keep=True)
                order = _walk_order(children)
                if order:
                    levels.append((prefix, entries, at))
                    prefix, entries, at = name, order, 0
                continue
            if name <= after:
                continue
            names: list[str] = yield Names(f"{paths.REPOSITORIES}/{name}", keep=True)
            below[f"{name}/"] = names
            if _has_manifests(names):
                if len(found) == limit:
                    return Page(found, True)
                found.append(name)
    return Page(found, False)
