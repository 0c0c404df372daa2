"""The next-token distribution of a base model and of the same model with an adapter, side by side."""
