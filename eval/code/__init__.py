"""Code tasks: prompts, answers, their execution against tests, and pass@k."""
