"""A repository as curated files, their functions, and the split."""

from data.corpus.build import (
    SPLITS,
    Corpus,
    SourceFile,
    build_corpus,
    corpus_summary,
    load_corpus,
    open_corpus,
    save_corpus,
)
from data.corpus.locate import import_root

__all__ = [
    "SPLITS",
    "Corpus",
    "SourceFile",
    "build_corpus",
    "corpus_summary",
    "import_root",
    "load_corpus",
    "open_corpus",
    "save_corpus",
]
