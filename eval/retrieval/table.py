"""A retrieval result to read: every system with its metrics, as aligned text or a Markdown page."""

from __future__ import annotations

from common.markdown import fenced
from eval.change_table import number, verdict_phrase
from eval.retrieval.measure import BY_KIND

SHOWN = ("mrr@10", "ndcg@10", "recall@10", "recall@1", "map", "file_ndcg@10")


def ranking_table(result: dict, name: str) -> str:
    """One line per system, best nDCG@10 first, with its gain over the model `name`; then one per kind of query."""
    names = {"random": "chance", "path": "path and name", "bm25": "BM25", "base": "its base"}
    names |= {"hybrid": f"{name} + BM25", "search": "both, by the rules of ranking"}
    systems = {name: result} | {names[system]: result[system] for system in result["changes"]}
    gains = {names[system]: change["ndcg@10"] for system, change in result["changes"].items()}
    shown = [metric for metric in SHOWN if metric in result["metrics"]]
    rows = [("", *shown, "nDCG@10 against the model", "verdict")]
    for system in sorted(systems, key=lambda system: -systems[system]["metrics"]["ndcg@10"]):
        rows.append((system, *(number(systems[system]["metrics"][metric]) for metric in shown)))
        if gain := gains.get(system):
            low, high = (number(end, sign=True) for end in gain["interval"])
            rows[-1] += (f"{number(gain['value'], sign=True)} [{low}, {high}]", verdict_phrase("ndcg@10", gain))
    for kind, of_kind in result["by_category"].items():
        rows.append((f"{kind}, n = {of_kind['n']}", *(number(of_kind["metrics"][metric]) for metric in BY_KIND)))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
    low, high = (number(end) for end in result["intervals"]["ndcg@10"])
    head = f"{result['n']:,} queries against {result['candidates']:,} candidates · nDCG@10 of the model [{low}, {high}]"
    if result["verbatim"]:
        head += f" · verbatim in their code: {result['verbatim']}"
    return "\n".join([head, *lines])


def as_markdown(tables: list[str], worst: list[dict]) -> str:
    """A page with the tables and the worst queries."""
    parts = ["# Retrieval", *map(fenced, tables), f"## The {len(worst)} worst queries"]
    for row in worst:
        parts.append(f"### {row['prompt']}\n\n{row['cause']}\n\n{fenced(row['check'])}\n\n{fenced(row['answer'])}")
    return "\n\n".join(parts) + "\n"
