"""Instruction tuning on TypeScript and JavaScript: what it does to the next token, and how much the context matters."""
