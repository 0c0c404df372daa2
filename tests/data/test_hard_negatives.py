from __future__ import annotations

import numpy as np

from data.hard_negatives import MARGIN, Rules, hardest


class Drawn:
    """A random unit vector for each text; counts how many it encodes at a time."""

    def __init__(self):
        self.most, self.random = 0, np.random.default_rng(0)
        self.known = {}

    def encode(self, texts, kind):
        if kind == "passage":
            self.most = max(self.most, len(texts))
        vectors = np.stack([self.known.setdefault(text, self.random.normal(size=3)) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_hardest_is_what_all_scores_at_once_give_however_many_are_encoded_at_a_time():
    units = [{"code": f"{i} {'xyz'[i % 3] * i}", "source": {"qualname": f"f{i % 30}"}} for i in range(70)]
    codes, own = [one["code"] for one in units], np.array([5, 9, 9, 60])
    encoder, rules = Drawn(), Rules(units)
    queries = ["a", "b", "c", "d"]
    found = hardest(encoder, queries, own, codes, rules, 4, chunk=8)
    assert encoder.most == 8
    for query, right, chosen in zip(queries, own, found, strict=True):
        scores = encoder.encode(codes, "passage") @ encoder.encode([query], "query")[0]
        near = {i for i in range(70) if rules.groups[i] == rules.groups[right] or i % 30 == right % 30}
        allowed = [i for i in range(70) if 0 < scores[i] < MARGIN * scores[right] and i not in near]
        assert chosen == sorted(allowed, key=lambda i: -scores[i])[:4]
    assert max(map(len, found)) == 4


def test_nothing_is_harder_than_allowed():
    units = [{"code": code} for code in ("own", "near", "far", "opposite")]
    table = {"q": [1, 0], "own": [1, 0], "near": [0.96, 0.28], "far": [0.6, 0.8], "opposite": [-1, 0]}

    class Given:
        def encode(self, texts, kind):
            return np.array([table[text] for text in texts], dtype=np.float32)

    assert hardest(Given(), ["q"], np.array([0]), list(table)[1:], Rules(units), 9) == [[2]]
    assert hardest(Given(), ["q"], np.array([3]), list(table)[1:], Rules(units), 9) == [[]]  # the own scores below zero
