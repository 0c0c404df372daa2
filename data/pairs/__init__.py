"""Text–code pairs from the files of a corpus."""

from data.pairs.build import FILE_SHARE, TextCodePairs, build_text_code_pairs, load_text_code_pairs
from data.pairs.queries import ORIGINS

__all__ = ["FILE_SHARE", "ORIGINS", "TextCodePairs", "build_text_code_pairs", "load_text_code_pairs"]
