"""What data/checks.py and data/mutate.py are made of: tests run under tracing, checks that count, single bugs."""
