"""What pays on a repository: tuning, search, or both, on the same held-out tasks."""
