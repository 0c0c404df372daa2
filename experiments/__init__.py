"""Published work and questions of our own, one folder each: the command, results.json, a figure, and what it says."""
