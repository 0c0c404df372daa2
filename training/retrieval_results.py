"""What an embedding run evaluates and writes: retrieval metrics, failures, samples and the index."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np

from common.files import write_json
from data.search.index import build_index
from eval.nearest_training_example import with_nearest
from eval.retrieval import evaluate_retrieval, worst_queries
from model.encoder import Encoder
from training.run import Run

Probe = tuple[list[dict], list[dict]]  # general queries and their codes, to measure forgetting; both may be empty


def write_before(run: Run, encoder: Encoder, queries: list[dict], candidates: list[dict], probe: Probe) -> None:
    """before.json and probe_before.json: the held-out queries and the general ones, ranked by the base model."""
    if queries:
        write_json(run.folder / "before.json", evaluate_retrieval(encoder, queries, candidates))
    if probe[0]:
        write_json(run.folder / "probe_before.json", evaluate_retrieval(encoder, *probe))


def write_after(
    run: Run,
    encoder: Encoder,
    queries: list[dict],
    candidates: list[dict],
    probe: Probe,
    *,
    pairs: list[dict],
    widths: list[int],
) -> None:
    """after.json and probe_after.json; for the held-out queries also failures.json, samples.md and the index.

    pairs   what was trained on: each failure gets its nearest
    widths  of the trained embeddings, the full one first; after.json has metrics at each shorter one
    """
    # the held-out queries, at full width and at the shorter ones that were trained
    if queries:
        vectors = encoder.encode([row["code"] for row in candidates], kind="passage").numpy()  # [N, D]
        after = evaluate_retrieval(encoder, queries, candidates, vectors)
        if shorter := widths[1:]:
            after["dimensions"] = {
                str(width): _metrics_at(width, encoder, queries, candidates, vectors) for width in shorter
            }
        write_json(run.folder / "after.json", after)

        # the worst of them, each with the training pair most like it
        failures = worst_queries(after, queries, candidates)
        trained_on = [
            {"id": pair.get("id", f"line {number}"), "prompt": pair["query"], "answer": pair["code"]}
            for number, pair in enumerate(pairs, 1)
        ]
        write_json(run.folder / "failures.json", with_nearest(failures, trained_on))

        # samples to read, and an index to query with search.py
        run.add_samples(None, _rankings_as_markdown(after, queries, candidates))
        build_index(run.folder / "index", vectors, candidates, manifest=encoder.identity())

    # the general queries
    if probe[0]:
        write_json(run.folder / "probe_after.json", evaluate_retrieval(encoder, *probe))


def _metrics_at(
    width: int, encoder: Encoder, queries: list[dict], candidates: list[dict], vectors: np.ndarray
) -> dict[str, float]:
    """Metrics with vectors [N, D] truncated to `width` numbers (Matryoshka); prints them."""
    # an encoder whose queries are as short; the codes' vectors need only be cut
    short = SimpleNamespace(encode=partial(encoder.encode, dimension=width), identity=encoder.identity)
    passages = vectors[:, :width] / np.linalg.norm(vectors[:, :width], axis=1, keepdims=True)
    metrics = evaluate_retrieval(short, queries, candidates, passages)["metrics"]
    print(f"width    {width}: " + " · ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
    return metrics


def _rankings_as_markdown(result: dict, queries: list[dict], candidates: list[dict], *, count: int = 5) -> str:
    """What the tuned encoder finds for the first held-out queries."""
    code_of = {row["id"]: row["code"] for row in candidates}
    parts = ["# Samples\n\nHeld-out queries, and the first lines of what the tuned encoder finds."]
    for query, row in list(zip(queries, result["results"], strict=True))[:count]:
        found = "\n".join(f"{n}. `{code_of[i].strip().splitlines()[0]}`" for n, i in enumerate(row["top"][:3], 1))
        parts.append(f"## {query['query']}\n\nThe right one is at rank {row['rank']}.\n\n{found}")
    return "\n\n".join(parts) + "\n"
