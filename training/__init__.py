"""How it is learnt: the parts that the three training loops share."""
