"""An encoder without weights: texts that share words are near."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import torch


class WordEncoder:
    """Bag of hashed words: texts that share words are near."""

    embedding = SimpleNamespace(max_length=12)
    encoded_at_limit = 0

    def __init__(self, weights="0", query_prefix=None):
        self.weights, self.prefix = weights, query_prefix or ""

    def encode(self, texts, kind):
        vectors = torch.full((len(texts), 64), 1e-3)
        for i, text in enumerate(texts):
            words = text.replace("_", " ").replace("(", " ").split()
            self.encoded_at_limit += len(words) >= self.embedding.max_length
            for word in words:
                vectors[i, int(hashlib.sha256(word.encode()).hexdigest(), 16) % 64] += 1
        return torch.nn.functional.normalize(vectors, dim=-1)

    def identity(self):
        return {
            "model": "words",
            "weights_sha256": self.weights * 64,
            "pooling": "mean",
            "query_prefix": self.prefix,
            "passage_prefix": "",
            "normalize": True,
            "dimension": 64,
        }
