"""Imports rows made elsewhere: public data sets as text rows, instruction rows whose answers are code."""

from data.importing.code_rows import explain_with, import_rows, split_rows
from data.importing.text_import import import_text_rows

__all__ = ["explain_with", "import_rows", "import_text_rows", "split_rows"]
