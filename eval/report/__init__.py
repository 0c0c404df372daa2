"""report.html of a run."""

from eval.report.build import write_report

__all__ = ["write_report"]
