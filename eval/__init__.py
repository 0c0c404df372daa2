"""Evaluation: metrics, statistics and the report."""
