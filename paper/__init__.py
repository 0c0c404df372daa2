"""The paper on our experiments: LaTeX sources, what is generated from the results, and the archive to hand in."""
