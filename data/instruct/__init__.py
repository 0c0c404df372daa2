"""Instruction pairs from the files of a corpus."""

from data.instruct.build import InstructionPairs, build_instruction_pairs
from data.instruct.summary import instruction_summary

__all__ = ["InstructionPairs", "build_instruction_pairs", "instruction_summary"]
