"""One split, by file or by module, for all three tracks: near-duplicates of test files stay out of training."""

from __future__ import annotations

from collections.abc import Iterable

from common.shuffle import seeded_order
from data.likeness.groups import Groups


def split_files(
    paths: list[str], alike: list[tuple[str, str]], *, test_share: float, validation_share: float, seed: int
) -> dict[str, str]:
    """Maps each path to "train", "validation" or "test"; paths joined by `alike` pairs go to the same side.

    A pair may name a path that is not split: two files alike to the same dropped file are alike.
    Shares are of files. With three files or more, a share above zero gets at least one. A group of alike files that
    exceeds what is left of a share stays in train.
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
    """Pairs that join the files of each folder as `alike` pairs do: a package's modules, without its subpackages."""
    first: dict[str, str] = {}
    pairs = []
    for path in sorted(paths):
        other = first.setdefault(path.rpartition("/")[0], path)
        if other != path:
            pairs.append((other, path))
    return pairs


def _connected(paths: list[str], alike: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Connected components, each under the alphabetically first path of all that are joined."""
    joined = Groups()
    for pair in alike:
        joined.join(*pair)
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        groups.setdefault(joined.first(path), []).append(path)
    return groups
