"""One split by file or by module for all three tracks: no near-duplicate of a test file is learnt from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


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


def of_one_module(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs that join the files of each folder, as `alike` pairs do: a package's modules, without its subpackages."""
    first: dict[str, str] = {}
    pairs = []
    for path in sorted(paths):
        other = first.setdefault(path.rpartition("/")[0], path)
        if other != path:
            pairs.append((other, path))
    return pairs


class Groups:
    """What is joined to what, directly or through others (union-find)."""

    def __init__(self):
        self._parent: dict = {}

    def first(self, one):
        """The least of all that `one` is joined to, itself included."""
        parent = self._parent
        while (above := parent.get(one, one)) != one:
            parent[one] = parent.get(above, above)  # halves the way for the next
            one = above
        return one

    def join(self, a, b) -> None:
        """From now on a and b, and all that they are joined to, are one group."""
        low, high = sorted((self.first(a), self.first(b)))
        if low != high:
            self._parent[high] = low


def _connected(paths: list[str], alike: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Connected components, each under the alphabetically first path of all that are joined."""
    joined = Groups()
    for pair in alike:
        joined.join(*pair)
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        groups.setdefault(joined.first(path), []).append(path)
    return groups
