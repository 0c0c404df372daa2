"""Which texts are alike: near-duplicates, renamed copies, and the groups that they form."""
