"""Text tasks: classification, question answering and summarisation, with the metrics that papers report."""

from eval.text.grade import grade
from eval.text.tasks import answer_tasks, read_text_tasks

__all__ = ["answer_tasks", "grade", "read_text_tasks"]
