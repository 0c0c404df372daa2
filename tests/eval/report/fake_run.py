"""A quickstart's folder as a real run leaves it, with made-up figures."""

import math

import numpy as np

from common.files import write_json, write_jsonl

CARD = """# Data card

From **networkx** 3.5, `BSD-3-Clause`.

## Filters

| reason | files |
|---|---:|
| test file | 249 |
| too short | 31 |

- split by file, seed 0
- near-duplicates at 0.7
  or more are dropped

1. first
2. second

```python
x = 1 < 2  # | no table |
```
"""
DOCTEST = "Expected:\n    {0, 1}\nGot:\n    {1, 2}"


def change(value, low, high, n, distinguishable=True):
    told = {"p": 0.0004, "n_needed": None} if distinguishable else {"p": 0.25, "n_needed": 3 * n}
    return {"value": value, "interval": [low, high], "n": n, "distinguishable": distinguishable, **told}


def fake_run(folder, tracks=("cpt", "sft", "embed")):
    """A quickstart's folder, of the size and the figures that a real one has."""
    rng = np.random.default_rng(0)
    headline = {
        "cpt": {
            "before": {"perplexity": 8.812, "bits_per_byte": 0.914},
            "after": {"perplexity": 6.973, "bits_per_byte": 0.816},
            "change": {
                "perplexity": change(-1.839, -2.214, -1.507, 57),
                "bits_per_byte": change(-0.098, -0.113, -0.084, 57),
            },
        },
        "sft": {
            "before": {"pass@1": 0.087, "lenient_pass@1": 0.413, "style": 0.611, "hallucination_rate": 0.208},
            "after": {"pass@1": 0.152, "lenient_pass@1": 0.674, "style": 0.704, "hallucination_rate": 0.146},
            "change": {
                "pass@1": change(0.065, -0.022, 0.152, 46, False),
                "lenient_pass@1": change(0.261, 0.130, 0.391, 46),
                "style": change(0.093, -0.031, 0.214, 38, False),
                "hallucination_rate": change(-0.062, -0.167, 0.042, 40, False),
            },
        },
        "embed": {
            "before": {"mrr@10": 0.561, "ndcg@10": 0.619, "recall@10": 0.810},
            "after": {"mrr@10": 0.714, "ndcg@10": 0.763, "recall@10": 0.920},
            "bm25": {"mrr@10": 0.534, "ndcg@10": 0.587, "recall@10": 0.755},
            "change": {
                "mrr@10": change(0.153, 0.111, 0.196, 200),
                "ndcg@10": change(0.144, 0.107, 0.182, 200),
                "recall@10": change(0.110, 0.065, 0.155, 200),
            },
        },
    }
    write_json(
        folder / "metrics.json",
        {
            "schema": 1,
            "seconds": {"data": 41.2, "cpt": 412.7, "sft": 388.1, "embed": 143.9},
            "sizes": {"cpt_tokens": 81_920, "held_out_files": 57, "pairs": 402, "tasks": 46},
            "settings": {"seed": 0, "threads": 2},
            "tracks": {name: headline[name] for name in tracks},
        },
    )
    (folder / "data_card.md").write_text(CARD)
    for name in tracks:
        fake_track(folder / name, name, rng)
    return folder


def fake_track(folder, name, rng):
    options = {
        "model": ("smollm2-135m", "quickstart"), "learning_rate": (4e-4, "default"), "steps": (80, "--steps"),
        "resume": (False, "default"), "targets": (["q_proj", "v_proj"], "recipe"), "max_norm": (None, "default"),
    }  # fmt: skip
    write_json(
        folder / "config.json",
        {"track": name, "options": {k: {"value": v, "from": f} for k, (v, f) in options.items()}},
    )
    versions = {
        "python": "3.11.9",
        "torch": "2.13.0+cpu",
        "device": "cpu, 2 threads",
        "corpus": "networkx 3.5",
        "data": name * 8,
    }
    write_json(folder / "environment.json", versions)
    steps = []
    for step in range(1, 81):
        steps.append({"step": step, "loss": 2.2 * math.exp(-step / 40) + 1.6 + rng.normal(0, 0.12), "norm": 1 / step})
        if step % 20 == 0:
            steps.append({"step": step, "validation_loss": 1.9 * math.exp(-step / 50) + 1.8})
    write_jsonl(folder / "metrics.jsonl", steps)
    before, after = fake_results(name, rng)
    write_json(folder / "before.json", before)
    write_json(folder / "after.json", after)
    (folder / "samples.md").write_text("## Step 80\n\n```python\ndef f():\n    return 1\n```\n")
    causes = ["wrong value", "wrong value", "syntax", "did not stop", "hallucinated name"]
    write_json(
        folder / "failures.json",
        [
            {
                "id": f"networkx.algorithms.dag.function_{i}", "category": ["complete", "bugfix"][i % 2],
                "prompt": "Complete the body.\n\ndef ancestors(G, source):\n    \"\"\"All.\"\"\"\n    n = 1  # or more",
                "answer": "    return {v for _, v in nx.bfs_edges(G, source)}\n" * (1 + i), "cause": causes[i % 5],
                "check": {"expected": "{0, 1}", "got": "{1, 2}"} if i % 2 else DOCTEST,
                "nearest": {"id": f"train_{i}", "prompt": "def f(): ...", "answer": "return 1", "score": 3.5},
            }
            for i in range(12)
        ],
    )  # fmt: skip


def fake_results(name, rng):
    if name == "cpt":
        sizes = rng.integers(120, 3000, size=57).tolist()
        nats = rng.normal(2.17, 0.25, size=57)
        return [
            {
                "metrics": {},
                "files": [
                    {"path": f"networkx/module_{i}.py", "nll": float(n) * size, "tokens": size, "bytes": size * 3}
                    for i, (n, size) in enumerate(zip(nats + shift, sizes, strict=True))
                ],
            }
            for shift in (0, rng.normal(-0.2, 0.1, size=57))
        ]
    if name == "sft":
        return [
            {
                "metrics": {"pass@1": 0, "lenient_pass@1": 0, "style": 0.5},
                "n_of": {"pass@1": 46, "hallucination_rate": n},
                "hallucination": {"name": {"invented": n, "checked": 1234}, "call": {"invented": 0, "checked": 7}},
                "gold": {
                    "metrics": {"style": 0.9375},
                    "hallucination": {"name": {"invented": 1, "checked": 4321}},
                    "invented": {"g": ["nx.wrongly"]},
                },
                "sandbox": {"tier": "seccomp+landlock", "not_available": ["namespaces: not permitted"]},
                "by_category": {
                    category: {"n": 8, "metrics": dict(zip(measured, rng.random(2).tolist(), strict=False))}
                    for category, measured in {
                        "bugfix": ("lenient_pass@1", "pass@1"),
                        "complete": ("lenient_pass@1", "pass@1"),
                        "docstring": ("lenient_pass@1",),
                        "explain": ("lenient_pass@1",),
                        "improve": ("lenient_pass@1", "pass@1"),
                        "unit_test": ("lenient_pass@1", "pass@1"),
                    }.items()
                },
            }
            for n in (44, 45)
        ]
    metrics = ("mrr@10", "ndcg@10", "recall@10")

    def side(shift):
        values = {m: {f"q{i}": float(np.clip(rng.beta(2, 1) + shift, 0, 1)) for i in range(40)} for m in metrics}
        means = {m: float(np.mean(list(v.values()))) for m, v in values.items()}
        return {"metrics": means, "intervals": {m: [v - 0.05, v + 0.05] for m, v in means.items()}, "values": values}

    rows = [{"id": f"q{i}", "rank": 1} for i in range(40)]
    return tuple({**side(s), "n": 40, "candidates": 1393, "results": rows, "bm25": side(-0.1)} for s in (0.0, 0.2))
