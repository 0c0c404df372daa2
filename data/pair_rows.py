"""Text–code pairs and pools of code as JSON Lines, validated row by row."""

from __future__ import annotations

from common.console import UserError
from common.files import read_objects


def read_pairs(path: str) -> list[dict]:
    """Rows {"query", "code"}, optionally "negatives" and "scores". UserError names the file and line of a bad row."""
    rows = read_objects(path)
    for number, row in enumerate(rows, 1):
        for key in ("query", "code"):
            _require_text(row, key, f"{path}:{number}")
        # hard negatives, and a stronger model's scores: first the code's, then the negatives'
        negatives, scores = row.get("negatives") or [], row.get("scores")
        if not isinstance(negatives, list) or not all(isinstance(code, str) and code.strip() for code in negatives):
            raise UserError(f'{path}:{number}: "negatives" must be a list of non-empty strings')
        is_list = isinstance(scores, list) and all(type(score) in (int, float) for score in scores)
        if scores is not None and not (is_list and len(scores) == 1 + len(negatives)):
            raise UserError(
                f'{path}:{number}: "scores" must be {1 + len(negatives)} numbers: for the code and each negative'
            )
    if len(rows) < 2:
        raise UserError(f"{path}: {len(rows)} pairs; contrastive training needs at least two")
    return rows


def read_feedback(path: str) -> list[dict]:
    """Pairs from what `search.py serve --feedback` kept: a query with each code that was found for it, and with those
    that were not meant as hard negatives. The last verdict on a code counts. UserError for a bad row.
    """
    verdicts: dict[str, dict[str, bool]] = {}  # query -> code -> whether it was meant
    sources: dict[str, dict | None] = {}
    for number, row in enumerate(read_objects(path), 1):
        for key in ("query", "code"):
            _require_text(row, key, f"{path}:{number}")
        if not isinstance(row.get("good"), bool):
            raise UserError(f'{path}:{number}: "good" must be true or false')
        verdicts.setdefault(row["query"].strip(), {})[row["code"]] = row["good"]
        sources[row["code"]] = row.get("source")
    pairs: list[dict] = []
    for query, codes in verdicts.items():
        negatives = [code for code, good in codes.items() if not good]
        pairs += [
            {"id": f"feedback/{len(pairs) + number}", "query": query, "code": code, "negatives": negatives}
            | {"source": sources[code]}
            for number, code in enumerate(code for code, good in codes.items() if good)
        ]
    without = sum(not any(codes.values()) for codes in verdicts.values())
    print(f"feedback {len(pairs)} pairs · {without} queries without a code that was meant")
    return pairs


def read_pool(path: str | None, test: list[dict]) -> list[dict]:
    """Rows {"code"} to mine negatives from, without the test queries' codes and other code of their files."""
    if path is None:
        return []
    rows = read_objects(path)
    for number, row in enumerate(rows, 1):
        _require_text(row, "code", f"{path}:{number}")
    # a code of a test query's file may be its answer, or give it away
    codes, files = {query["code"] for query in test}, {_file(query) for query in test} - {None}
    kept = [row for row in rows if row["code"] not in codes and _file(row) not in files]
    print(f"pool     {len(kept):,} codes · {len(rows) - len(kept):,} excluded: from files of --test")
    return kept


def _require_text(row: dict, key: str, where: str) -> None:
    if not isinstance(row.get(key), str) or not row[key].strip():
        raise UserError(f'{where}: "{key}" is missing or empty (this line has: {", ".join(row)})')


def _file(row: dict) -> str | None:
    return (row.get("source") or {}).get("path")
