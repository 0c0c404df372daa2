"""A data card, computed from the data."""

from data.card.build import write_data_card

__all__ = ["write_data_card"]
