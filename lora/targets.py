"""Which layers get an adapter, and of what rank. Names are matched as PEFT does, so that its files mean the same.

Checked against peft's `check_target_module_exists` (tuners_utils.py) and `get_pattern_key` (utils/other.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from common.console import UserError

ALL_LINEAR = "all-linear"
HEAD = "lm_head"
Number = TypeVar("Number", int, float)


def is_target(
    name: str,
    targets: str | Iterable[str],
    *,
    exclude: str | Iterable[str] = (),
    layers: int | Iterable[int] | None = None,
    layers_pattern: str | Iterable[str] | None = None,
) -> bool:
    """Whether the linear layer called `name` gets an adapter.

    targets         a regular expression for the full name; or names, full or their last parts; or "all-linear", all
                    but the head
    exclude         the same first two forms; layers that match get none
    layers          only in these blocks, counted from 0 (None: in all); with names, not with an expression
    layers_pattern  the name of the list of blocks (None: any name)
    """
    if _matches(name, exclude):
        return False
    # an expression or "all-linear" decides alone
    if isinstance(targets, str):
        return name != HEAD if targets == ALL_LINEAR else _matches(name, targets)
    if not _matches(name, targets):
        return False

    # names may be limited to some blocks: model.layers.3.mlp.up_proj is in block 3
    if layers is None:
        return True
    blocks = [layers_pattern] if isinstance(layers_pattern, str) else list(layers_pattern or [r"[^.]*"])
    found = (re.match(rf"(?:^|.*?\.){block}\.(\d+)\.", name) for block in blocks)
    number = next((int(match[1]) for match in found if match), None)
    return number in ([layers] if isinstance(layers, int) else list(layers))


def _matches(name: str, wanted: str | Iterable[str]) -> bool:
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == other or name.endswith(f".{other}") for other in wanted)


def matches_key(name: str, key: str) -> bool:
    """Whether a pattern's key, a regular expression, matches a layer's name or the last parts of it."""
    return re.match(rf"(.*\.)?({key})$", name) is not None


def pattern_value(name: str, pattern: Mapping[str, Number], default: Number) -> Number:
    """The value of the first key that matches the name; else the default."""
    return next((value for key, value in pattern.items() if matches_key(name, key)), default)


def as_pattern(values: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """The inverse: the most common value, and the shortest exact pattern for layers with another."""
    default = Counter(values.values()).most_common(1)[0][0]
    pattern: dict[str, float] = {}
    for name, value in values.items():
        # q_proj if all layers of that name agree, else the full name
        last = name.rpartition(".")[2]
        alike = {v for other, v in values.items() if other.rpartition(".")[2] == last}
        if value != default:
            pattern[last if len(alike) == 1 else re.escape(name)] = value
    return default, pattern


def parse_targets(text: str) -> str | list[str]:
    """Targets from a command line: comma-separated names, "all-linear", or a regular expression."""
    # a character that no module name has makes it an expression
    if text == ALL_LINEAR or re.search(r"[\\*+?^$()\[\]{}|]", text):
        try:
            re.compile(text)
        except re.error as error:
            raise UserError(f"--targets {text}: not a regular expression ({error})") from None
        return text
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_pattern(text: str | None, kind: type[Number], option: str) -> dict[str, Number]:
    """{"q_proj": 8, "down_proj": 32} from "q_proj=8,down_proj=32"; {} from None. UserError names the option."""
    pattern = {}
    for part in filter(None, (text or "").split(",")):
        key, _, value = part.strip().rpartition("=")
        # a number, and a key that is a regular expression
        try:
            pattern[key] = kind(value)
            re.compile(key)
        except (ValueError, re.error):
            raise UserError(f"{option} {text}: {part!r} should be a layer and a number, such as q_proj=8") from None
        if not key or pattern[key] <= 0:
            raise UserError(f"{option} {text}: {part!r} should be a layer and a number above 0, such as q_proj=8")
    return pattern
