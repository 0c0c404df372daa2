"""Instruction pairs from JavaScript and TypeScript: drafts, their phrasings, and how answers to them are read."""
