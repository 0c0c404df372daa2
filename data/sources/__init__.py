"""What data/corpus.py is made of: where source files come from, what is known of each, which are left out."""
