"""Answers to instruction pairs, judged by their checks, by style and by what they name."""

from eval.instruct.grade import GREEDY, answer_pairs, grade_answers

__all__ = ["GREEDY", "answer_pairs", "grade_answers"]
