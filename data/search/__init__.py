"""What data/pairs/build.py is made of: what a searcher types, what is searched, what is nearly right."""
