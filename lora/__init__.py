"""What is trained in place of the whole network: LoRA, and its file."""
