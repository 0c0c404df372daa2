"""Everything the three training loops share."""
