"""The quickstart's choices are made without its test files."""

from __future__ import annotations

from collections import Counter

import quickstart
from data.corpus import build_corpus
from experiments.quickstart_choices.run import CHOICES, METRICS, without_test_files


def test_no_test_file_of_the_quickstart_is_trained_or_measured_on(tmp_path):
    for number in range(40):
        lines = "".join(f"NAME_{number}_{i} = {number * i}\n" for i in range(20))  # a shorter file is filtered
        (tmp_path / f"m{number}.py").write_text(lines)
    options = quickstart.Options(corpus=str(tmp_path), seed=3)
    whole = build_corpus(options.corpus, test_share=quickstart.TEST_SHARE, seed=options.seed)
    tested = {file.path for file in whole.split("test")}
    chosen_on = without_test_files(options)
    assert tested and tested.isdisjoint(file.path for file in chosen_on.files)
    assert len(chosen_on.files) + len(tested) == len(whole.files)
    assert {file.split for file in chosen_on.files} == {"train", "test"}


def test_the_quickstart_takes_one_of_the_choices_of_each_track():
    assert len({one.name for one in CHOICES}) == len(CHOICES)
    assert Counter(one.track for one in CHOICES if one.is_the_quickstarts) == Counter(list(METRICS))
