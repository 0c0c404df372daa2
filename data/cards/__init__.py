"""What data/card.py is made of: what is read, counted and drawn, and the forms that machines read."""
