"""The result as text: both lists of likeliest tokens and both continuations of some prompts, then the means."""

from __future__ import annotations

SHOWN = 2  # prompts of each kind that are not continued; the others are in the file


def shown(prompts: list[dict]) -> list[dict]:
    """The rows to show: those that are continued in full, and the first SHOWN others of each kind."""
    counts: dict[str, int] = {}
    rows = []
    for row in prompts:
        counts[row["kind"]] = counts.get(row["kind"], 0) + ("continuations" not in row)
        if "continuations" in row or counts[row["kind"]] <= SHOWN:
            rows.append(row)
    return rows


def table(result: dict) -> str:
    """The whole of it."""
    rows = shown(result["prompts"])
    parts = [_prompt(row) for row in rows]
    if len(rows) < len(result["prompts"]):
        parts.append(f"and {len(result['prompts']) - len(rows)} more prompts, in the file")
    means = [f"{'mean':36}{'value':>8}  95 % interval (prompts resampled)"]
    for metric, value in result["metrics"].items():
        low, high = result["intervals"][metric]
        interval = f"[{low:.3f}, {high:.3f}]" if low < high else "a single value: no interval"
        means.append(f"{metric:36}{value:8.3f}  {interval}")
    parts.append("\n".join(means))
    if result["contrasts"]:
        lines = [f"{'seen − unseen':36}{'value':>8}  95 % interval"]
        for metric, one in result["contrasts"].items():
            low, high = one["interval"]
            verdict = "" if one["distinguishable"] else " · not distinguishable"
            lines.append(f"{metric:36}{one['value']:8.3f}  [{low:.3f}, {high:.3f}]{verdict}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _prompt(row: dict) -> str:
    lines = [f"{row['kind']} · {row['name']} · …{row['text'][-60:]!r}", f"{'':4}{'base':<41}tuned"]
    for base, tuned in zip(row["base"], row["tuned"], strict=True):
        moved = tuned["other_rank"] - tuned["rank"]
        arrow = "" if not moved else f"  {'↑' if moved > 0 else '↓'} from {tuned['other_rank']}"
        cells = [f"{one['token']!r:<20} {one['p']:.3f} {one.get('language') or '':<12}" for one in (base, tuned)]
        lines.append(f"{base['rank']:>2}  {cells[0]:<41}{cells[1].rstrip()}{arrow}")
    for state, of_state in row.get("continuations", {}).items():
        for how, one in of_state.items():
            ended = "" if one["stopped"] else " (cut off)"
            lines += [f"{state}, {how}: {one['tokens']} tokens{ended}", *(f"    {x}" for x in one["text"].split("\n"))]
    return "\n".join(lines)
