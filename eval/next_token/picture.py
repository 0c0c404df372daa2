"""The picture of an eval.next_token result: likeliest tokens, KL by position, and both models' continuations."""

from __future__ import annotations

import textwrap

from common.html import Safe, element, join
from eval.charts import LETTER, WIDTH, Scale, alone, bar, moved, shortened, text_at, x_axis, y_axis
from eval.next_token.distributions import STATES

COLUMNS = 56  # characters of a continuation's line
LINE = 15  # height of one


def next_token_picture(prompts: list[dict]) -> str:
    """An SVG file of rows of an eval.next_token result, one below the other."""
    parts, y = [], 0.0
    for row in prompts:
        likeliest, height = _likeliest(row)
        title = text_at(f"{row['kind']} · {row['name']}", 6, y + 14, color="ink")
        parts.append(title + moved(likeliest, 0, y + 20) + moved(_kl_columns(row, height), WIDTH + 20, y + 20))
        y += height + 34
        if "continuations" in row:
            texts, height = _continuations(row["continuations"])
            parts.append(moved(texts, 0, y))
            y += height + 14
    return alone(parts, 2 * WIDTH + 20, y, "Likeliest next tokens of base and tuned, KL by position, and continuations")


def _continuations(of_states: dict[str, dict[str, dict]]) -> tuple[Safe, float]:
    """Base on the left, tuned on the right; the greedy continuation above the sampled one."""
    parts, y = [], 0.0
    for how in next(iter(of_states.values())):
        lines = {state: _wrapped(of_states[state][how]["text"]) for state in STATES}
        for state, color, x in ((STATES[0], "before", 6.0), (STATES[1], "after", WIDTH + 26.0)):
            one = of_states[state][how]
            ended = "" if one["stopped"] else ", cut off"
            parts.append(text_at(f"{state}, {how}: {one['tokens']} tokens{ended}", x, y + 12, color=color))
            parts += [_typed(line, x, y + 12 + LINE * n) for n, line in enumerate(lines[state], start=1)]
        y += LINE * (1 + max(map(len, lines.values()))) + 10
    return join(parts, ""), y


def _wrapped(text: str) -> list[str]:
    visible = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)  # others SVG forbids
    lines = (textwrap.wrap(line.expandtabs(4), COLUMNS, drop_whitespace=False) for line in visible.split("\n"))
    return [part for parts in lines for part in parts or [""]]


def _typed(line: str, x: float, y: float) -> Safe:
    """A line of code: SVG drops plain spaces, so they are no-break ones."""
    style = "fill: var(--ink); font-family: ui-monospace, monospace; font-size: 11px"
    return element("text", line.replace(" ", "\N{NO-BREAK SPACE}"), x=f"{x:g}", y=f"{y:g}", style=style)


def _likeliest(row: dict) -> tuple[Safe, float]:
    """A pair of bars per token: the most likely tokens of the tuned model, then the others of the base.

    If languages were judged, a token's follows it.
    """
    probabilities = {state: {one["id"]: one["p"] for one in row[state]} for state in ("base", "tuned")}
    listed = {one["id"]: one for one in (*row["tuned"], *row["base"])}
    left, height = 120, 24.0 * len(listed) + 40
    across = Scale(0, max(p for of_state in probabilities.values() for p in of_state.values()), left, WIDTH - 10)
    parts = x_axis(across, 0, height - 40)
    for number, (token, one) in enumerate(listed.items()):
        y = 24.0 * number
        text = shortened(repr(one["token"]), int(left / LETTER) - 1)
        parts.append(text_at(text, left - 6, y + 15, "end", color="ink"))
        if one.get("language"):
            parts.append(text_at(one["language"], WIDTH - 10, y + 15, "end"))
        for state, color, at in (("base", "before", y + 3), ("tuned", "after", y + 12)):
            parts.append(bar(left, at, across(probabilities[state].get(token, 0.0)) - left, 8, color))
    parts.append(text_at("probability of the next token, base above tuned", left, height - 8))
    return join(parts, ""), height


def _kl_columns(row: dict, height: float) -> Safe:
    kl = [position["kl"] for position in row["positions"]]
    up = Scale(0, max(kl, default=0.0) or 1.0, height - 40, 4)
    left = 50
    width = (WIDTH - 10 - left) / max(1, len(kl))
    parts = y_axis(up, left)
    parts += [bar(left + i * width, up(value), width, up(0) - up(value), "after") for i, value in enumerate(kl)]
    parts.append(text_at(f"KL(tuned ‖ base), nats, at each of {len(kl)} positions", left, height - 8))
    return join(parts, "")
