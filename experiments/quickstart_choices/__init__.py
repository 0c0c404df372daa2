"""How the quickstart's learning rate, epochs and category shares of track B were chosen, on validation files only."""
