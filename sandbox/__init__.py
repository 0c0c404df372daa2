"""Foreign code runs here and nowhere else."""
