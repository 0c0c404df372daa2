"""One split by file for all three tracks: no near-duplicate of a test file is learnt from."""

from __future__ import annotations

import hashlib


def seeded_order(names: list[str], seed: int) -> list[str]:
    """A shuffle that depends on the names and the seed alone, not on the order in which a file system lists them."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())


def split_files(
    paths: list[str], alike: list[tuple[str, str]], *, test_share: float, validation_share: float, seed: int
) -> dict[str, str]:
    """Maps each path to "train", "validation" or "test"; paths joined by `alike` pairs go to the same side.

    A pair may name a path that is not split: what is alike to a dropped file is alike to its twin.

    Shares are of files. From three files on, a share above zero gets at least one file. A group of alike files that
    is larger than what is left of a share stays in train.
    """
    groups = _connected(paths, alike)
    wanted = {"test": test_share, "validation": validation_share}
    room = {side: max(round(share * len(paths)), len(paths) >= 3) if share else 0 for side, share in wanted.items()}
    split = {}
    for first in seeded_order(sorted(groups), seed):
        group = groups[first]
        side = next((side for side in room if len(group) <= room[side]), "train")
        if side != "train":
            room[side] -= len(group)
        split.update(dict.fromkeys(group, side))
    return split


def _connected(paths: list[str], alike: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Connected components, each under the alphabetically first path of all that are joined."""
    parent = {path: path for path in [*paths, *(path for pair in alike for path in pair)]}

    def find(path: str) -> str:
        while parent[path] != path:
            path = parent[path]
        return path

    for a, b in alike:
        first, second = sorted((find(a), find(b)))
        parent[second] = first
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        groups.setdefault(find(path), []).append(path)
    return groups
