"""What is published of the models on these benchmarks, and what our figures say of it."""

from __future__ import annotations

from pathlib import Path

from common.console import UserError

# Qwen2.5-Coder's report (arXiv:2409.12186), the table of instruction-tuned models: greedy, graded by EvalPlus, whose
# MBPP is a selection of the sanitized tasks. "billions" of parameters, for the expected minutes.
PUBLISHED = {
    "qwen2.5-coder-0.5b-instruct": {"humaneval": 0.616, "humaneval-plus": 0.573, "mbpp": 0.524, "billions": 0.5},
    "qwen2.5-coder-1.5b-instruct": {"humaneval": 0.707, "humaneval-plus": 0.665, "mbpp": 0.692, "billions": 1.5},
}
ALSO = {"mbpp-sanitized": "mbpp"}  # tasks that are closer to those of a published figure than the set of its name


def name_of(model: str) -> str:
    """The published name of MODEL, which its last part must be. UserError for any other."""
    name = Path(model).name.lower()
    if name not in PUBLISHED:
        raise UserError(f"{model}: nothing is published of it here; the last part of its name is one of {[*PUBLISHED]}")
    return name


def published_of(model: str, benchmark: str) -> float | None:
    """The published share of solved tasks, None if there is none."""
    return PUBLISHED[name_of(model)].get(ALSO.get(benchmark, benchmark))


def explanation(published: float, interval: list[float], variants: dict[str, dict]) -> dict:
    """Whether the published figure is within ours, and if not, which measured difference accounts for it.

    variants  name -> {"interval": of its own figure, "change": against our setting}
    Returns {"inside", "causes": the variants that change the result distinguishably, towards the published figure, and
    whose own interval holds it}.
    """
    low, high = interval
    if low <= published <= high:
        return {"inside": True, "causes": []}
    up = published > high
    causes = [
        name
        for name, one in variants.items()
        if one["change"]["distinguishable"]
        and (one["change"]["value"] > 0) == up
        and one["interval"][0] <= published <= one["interval"][1]
    ]
    return {"inside": False, "causes": causes}
