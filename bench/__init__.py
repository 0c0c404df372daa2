"""Side by side with what a user would pick instead: the same work, in turn, in one process; medians and their ratio."""
