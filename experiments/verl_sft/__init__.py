"""A published instruction-tuning run on the verl library, on its own terms."""
