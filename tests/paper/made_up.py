"""A made-up results.json of the study, for tests alone: its figures are arithmetic, and nothing was run for them."""

from __future__ import annotations

METHODS = {
    "full": ("full fine-tuning", 134_515_008),
    "lora-8": ("LoRA, r = 8", 2_442_240),
    "lora-32": ("LoRA, r = 32", 9_768_960),
    "bottleneck": ("bottleneck adapters, D / 16", 2_525_040),
    "prefix": ("prefix tuning, 20 tokens", 230_400),
    "prompt": ("prompt tuning, 20 tokens", 11_520),
    "ia3": ("IA3", 57_600),
}
TASKS = {
    "trec": ("TREC", "classification", "accuracy", ["accuracy", "macro_f1", "likelihood_accuracy"]),
    "pubmedqa": ("PubMedQA", "qa", "accuracy", ["accuracy", "macro_f1"]),
    "scitldr": ("SciTLDR", "summarization", "rougeL", ["rougeL", "rouge1", "rouge2", "bleu"]),
    "code": ("networkx, executed", "code", "pass@1", ["pass@1", "lenient_pass@1"]),
}
MODELS = {
    "smollm2-135m": ("SmolLM2-135M-Instruct", "Llama", 134_515_008, True),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": ("Qwen2.5-Coder-0.5B-Instruct", "Qwen", 494_032_768, True),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": ("TinyLlama-1.1B-Chat", "Llama", None, False),
}
PROMPTED = {"zero-shot": 0.31, "few-shot": 0.37}
CLASSICAL = {"majority class": 0.25, "TF-IDF + logistic regression": 0.62}
GAINS = (0.40, 0.38, 0.39, 0.30, 0.12, 0.01, -0.05)  # of the methods over the zero-shot prompt


def made_up_study() -> dict:
    """Two models, four tasks, seven methods, three seeds."""
    run = [model for model, (*_, is_here) in MODELS.items() if is_here]
    return {
        "schema": 1,
        "settings": {},
        "machine": {"cores": 2, "device": "cpu"},
        "progress": {"runs": 60, "of": 131, "minutes": 240.0, "expected_minutes": 352.0},
        "models": [
            {"model": model, "title": title, "family": family, "parameters": size, "license": "Apache-2.0",
             "is_here": is_here, "is_instruct": True}
            for model, (title, family, size, is_here) in MODELS.items()
        ],
        "tasks": [
            {"task": task, "title": title, "kind": kind, "source": "a set (Author & Other 2002; Author et al. 2019)",
             "license": "none stated; given out by a group", "metric": metric, "metrics": metrics,
             "rows": {"train": 1000, "validation": 100, "test": 200},
             "rows_published": {"train": 5452, "validation": None, "test": 500}, "epochs": 2, "step_tokens": 2048}
            for task, (title, kind, metric, metrics) in TASKS.items()
        ],
        "methods": [
            {"method": method, "title": title, "arguments": ["--method", method], "rates": [1e-4, 3e-4, 1e-3]}
            for method, (title, _) in METHODS.items()
        ],
        "rows": [],
        "summary": [row for task in TASKS for row in _classical(task)]
        + [row for model in run for task in TASKS for row in _of_model(model, task)],
        "changes": [change for model in run for task in TASKS for change in _changes(model, task)],
        "forgetting": [row for task in TASKS for row in _forgetting(task)],
        "learning_rates": [
            {"model": "smollm2-135m", "task": task, "method": method, "tried": [], "chosen": 3e-4 if i % 2 else 1e-3,
             "at_edge": i % 2 == 0}
            for task in TASKS for i, method in enumerate(METHODS)
        ],
        "curves": [
            {"model": "smollm2-135m", "task": task, "method": method, "seed": 0, "metric": TASKS[task][2],
             "points": [{"train_rows": n, "value": 0.3 + 0.1 * i, "interval": [0.2 + 0.1 * i, 0.4 + 0.1 * i], "n": 200}
                        for i, n in enumerate((100, 300, 1000, 5452))]}
            for task in ("trec", "scitldr") for method in ("lora-8", "full")
        ],
        "causes": [
            {"model": "smollm2-135m", "task": task, "method": method, "seed": 0, "n": 200,
             "causes": {"no label": 30, "entity taken for description": 12, "several labels": 4, "empty": 1}}
            for task in TASKS for method in ("zero-shot", *METHODS)
        ],
        "examples": {
            task: [
                {"id": f"{task}-{i}", "prompt": "What is an atom ? " * (3 + 10 * i), "references": ["a thing of α & β"],
                 "answers": [{"method": method, "answer": f"an answer_{j} with 100 %", "cause": None,
                              "status": "pass" if (i + j) % 2 else "wrong"}
                             for j, method in enumerate(("zero-shot", *METHODS))]}
                for i in range(10)
            ]
            for task in TASKS
        },
    }  # fmt: skip


def _figures(task: str, value: float) -> dict:
    metrics = TASKS[task][3]
    return {
        "metrics": dict.fromkeys(metrics, value),
        "range": {metric: [value - 0.02, value + 0.03] for metric in metrics},
        "intervals": {metric: [value - 0.06, value + 0.06] for metric in metrics},
        "n": dict.fromkeys(metrics, 200),
    }


def _row(model: str | None, task: str, method: str, kind: str, value: float) -> dict:
    cost = dict.fromkeys(("trainable_parameters", "minutes", "memory_gib", "lr"))
    return {"model": model, "task": task, "method": method, "kind": kind, "seeds": []} | cost | _figures(task, value)


def _classical(task: str) -> list[dict]:
    named = {"lead-3": 0.28} if task == "scitldr" else {} if task == "code" else CLASSICAL
    return [_row(None, task, name, "classical", value) for name, value in named.items()]


def _of_model(model: str, task: str) -> list[dict]:
    rows = [_row(model, task, name, "prompted", value) for name, value in PROMPTED.items()]
    for place, (method, (_, size)) in enumerate(METHODS.items()):
        cost = {"trainable_parameters": size, "minutes": 9.5 - place, "memory_gib": 1.2 + 0.1 * place, "lr": 3e-4}
        rows.append(_row(model, task, method, "tuned", 0.31 + GAINS[place]) | cost | {"seeds": [0, 1, 2]})
    return rows


def _changes(model: str, task: str) -> list[dict]:
    against = {"zero-shot": 0.0, "few-shot": 0.06, "classical": 0.31, "full": 0.40}
    return [
        {"model": model, "task": task, "against": baseline, "method": method, "metric": metric} | _change(gain - offset)
        for baseline, offset in against.items()
        for method, gain in zip(METHODS, GAINS, strict=True)
        for metric in TASKS[task][3]
        if (baseline, method) != ("full", "full") and not (baseline == "classical" and task == "code")
    ]


def _change(value: float) -> dict:
    sure = abs(value) > 0.04
    return {
        "seeds": 3, "value": value, "interval": [value - 0.04, value + 0.04], "n": 200, "p": 0.001 if sure else 0.4,
        "p_holm": 0.007 if sure else 1.0, "n_needed": None if sure else 900, "distinguishable": sure,
    }  # fmt: skip


def _forgetting(task: str) -> list[dict]:
    return [
        {"model": "smollm2-135m", "task": task, "method": method, "text": text, "metric": metric, "before": 5.6,
         "after": 5.6 + gain} | _change(gain)
        for text in ("code", "english")
        for metric in ("perplexity", "bits_per_byte")
        for method, gain in zip(METHODS, GAINS, strict=True)
    ]  # fmt: skip
