"""A reproducible shuffle."""

from __future__ import annotations

import hashlib


def seeded_order(names: list[str], seed: int) -> list[str]:
    """The names in an order that depends on them and the seed alone, not on how a file system lists them."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
