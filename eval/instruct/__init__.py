"""Grades answers to instruction pairs by their checks, their style, and the names they use."""

from eval.instruct.grade import GREEDY, answer_pairs, grade_answers

__all__ = ["GREEDY", "answer_pairs", "grade_answers"]
