"""Code tasks: what is asked, how an answer is read, run and judged, and the figures."""
