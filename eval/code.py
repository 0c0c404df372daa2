"""Parts of the code evaluation that other commands use, too."""

from __future__ import annotations

from eval.codetasks.extract import complete_function, correct_line, defines, extract_code, fenced_blocks
from eval.codetasks.score import pass_at_k

__all__ = ["complete_function", "correct_line", "defines", "extract_code", "fenced_blocks", "pass_at_k"]
