"""Retrieval quality of an encoder: metrics, failures, data files."""

from eval.retrieval.failures import worst_queries
from eval.retrieval.files import own_candidates, relevance
from eval.retrieval.measure import evaluate_retrieval
from eval.retrieval.table import ranking_table

__all__ = ["evaluate_retrieval", "own_candidates", "ranking_table", "relevance", "worst_queries"]
