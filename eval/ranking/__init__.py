"""Retrieval: what is ranked, in which forms, by which metrics, and why a query failed."""
