"""How well search.py ranks, on a published benchmark of repositories; and how the weights of its rules were chosen."""
