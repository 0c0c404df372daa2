"""LoRA on CodeAlpaca, measured on MBPP: rank 8 against 32, code against code with an explanation."""
