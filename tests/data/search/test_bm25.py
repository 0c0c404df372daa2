import math

import pytest

from data.search.bm25 import BM25, stems, words


def test_identifiers_are_taken_apart():
    assert words("parseHTTPHeader(from_file2) größer") == ["parse", "http", "header", "from", "file", "2", "größer"]


def test_bm25_is_the_written_formula():
    documents = ["graph node node", "graph edge", "tree"]
    scores = BM25(documents, k1=1.2, b=0.75).scores("node graph unseen")
    mean = 6 / 3

    def term(tf, df, length):
        return math.log(1 + (3 - df + 0.5) / (df + 0.5)) * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / mean))

    assert scores == pytest.approx([term(2, 1, 3) + term(1, 2, 3), term(1, 2, 2), 0.0])


def test_bm25_finds_the_identifier_that_holds_the_words():
    candidates = ["def shortest_path(graph): ...", "def readGraphFile(path): ...", "class Node: ..."]
    assert BM25(candidates).scores("read a file").argmax() == 1


def test_a_word_is_found_in_its_other_forms_and_short_words_stay_whole():
    bm25 = BM25(["parsing the trees", "a bus is used", "bring"])
    assert (bm25.scores("parse tree")[0] > 0) and bm25.scores("tree")[0] == bm25.scores("trees")[0] > 0
    assert stems("parsed parses parsing is us bring Trees") == ["pars", "pars", "pars", "is", "us", "bring", "tre"]
