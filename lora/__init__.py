"""What is trained instead of the whole network: LoRA and its relatives, and their files."""
