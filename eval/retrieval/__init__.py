"""How well an encoder finds: metrics, failures, result files."""

from eval.retrieval.measure import describe, evaluate_retrieval, own_candidates, relevance, worst_queries

__all__ = ["describe", "evaluate_retrieval", "own_candidates", "relevance", "worst_queries"]
