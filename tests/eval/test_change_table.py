from __future__ import annotations

import pytest

from eval.change_table import number, table, verdict, verdict_phrase

GAIN = {"value": 0.2, "interval": [0.1, 0.3], "n": 20, "p": 0.001, "n_needed": None, "distinguishable": True}
NOISE = {"value": 0.05, "interval": [-0.1, 0.2], "n": 20, "p": 0.5, "n_needed": 320, "distinguishable": False}


def test_columns_of_the_table_align():
    before, after = (
        {"metrics": {"perplexity": ppl, "bits_per_byte": bits}} for ppl, bits in ((12.18, 0.9), (2.7, 0.4))
    )
    lines = table(before, after, {"perplexity": GAIN, "bits_per_byte": NOISE}).splitlines()
    assert len({line.index(word) for line, word in zip(lines, ("before", "12.18", "0.900"), strict=True)}) == 1


def test_numbers_keep_what_matters():
    assert [number(0.6194), number(-1.771, sign=True), number(12.346)] == ["0.619", "−1.771", "12.35"]


@pytest.mark.parametrize(
    ("metric", "word"), [("mrr@10", "better"), ("perplexity", "worse"), ("answer_characters", "more")]
)
def test_a_rise_is_better_or_worse_by_metric(metric, word):
    assert verdict(metric, GAIN) == verdict_phrase(metric, GAIN) == word


def test_what_is_not_distinguishable_names_the_n_that_would_be_needed():
    assert verdict_phrase("mrr@10", NOISE) == "not distinguishable at this n (about 320 needed)"
    assert verdict_phrase("mrr@10", NOISE | {"value": 0.0, "n_needed": None}) == "not distinguishable at this n"
    significant_alone = NOISE | {"p": 0.04}  # Holm's adjustment made it indistinguishable: its own n was enough
    assert verdict_phrase("mrr@10", significant_alone) == "not distinguishable at this n"
