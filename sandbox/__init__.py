"""The sandbox: foreign code runs here and nowhere else."""
