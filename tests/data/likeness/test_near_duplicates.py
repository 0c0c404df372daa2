import random

import numpy as np

from data.likeness.near_duplicates import Neighbours, jaccard, near_duplicates, shingles, signature


def words(seed, count=300):
    choose = random.Random(seed)
    return [f"word{choose.randrange(5000)}" for _ in range(count)]


def edited(tokens, share, seed):
    choose = random.Random(seed)
    return [f"new{i}" if choose.random() < share else token for i, token in enumerate(tokens)]


def test_shingles_are_the_distinct_five_grams():
    tokens = ["a", "b", "c", "d", "e", "a", "b", "c", "d", "e", "a", "b", "c", "d", "e"]
    grams = {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}
    assert len(shingles(" ".join(tokens))) == len(grams) == 5


def test_jaccard_equals_that_of_the_sets():
    a, b = words(1), edited(words(1), 0.05, 2)
    grams = [{tuple(one[i : i + 5]) for i in range(len(one) - 4)} for one in (a, b)]
    expected = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
    assert 0.3 < expected < 0.9
    assert jaccard(shingles(" ".join(a)), shingles(" ".join(b))) == expected


def test_layout_does_not_count():
    assert np.array_equal(shingles("def f( x ):\n    return x"), shingles("def f(x): return x"))


def test_all_pairs_above_the_threshold_are_found_and_no_other():
    texts = [" ".join(edited(words(i // 4), 0.03 * (i % 4), i)) for i in range(40)]
    sets = [shingles(text) for text in texts]
    for threshold in (0.5, 0.7):
        wanted = [(i, j) for i in range(40) for j in range(i + 1, 40) if jaccard(sets[i], sets[j]) >= threshold]
        assert 5 < len(wanted) < 60
        assert [(i, j) for i, j, _ in near_duplicates(texts, threshold)] == wanted


def test_short_and_empty_texts_are_compared_too():
    assert [(i, j) for i, j, _ in near_duplicates(["x", "x", "y", ""], 0.7)] == [(0, 1)]
    assert near_duplicates([], 0.7) == []


def test_texts_are_found_once_they_are_added_and_by_those_alike_alone():
    texts = [" ".join(edited(words(i // 4), 0.03 * (i % 4), i)) for i in range(40)]
    neighbours = Neighbours(np.stack([signature(shingles(text)) for text in texts]))
    assert neighbours.near(1, 0.5) == []
    neighbours.add(0)
    (i, estimate), *others = neighbours.near(1, 0.5)
    assert (i, others) == (0, []) and abs(estimate - jaccard(shingles(texts[0]), shingles(texts[1]))) < 0.1
    assert neighbours.near(4, 0.1) == []


def test_estimates_are_those_of_the_sets():
    errors = []
    for seed in range(60):
        a, b = shingles(" ".join(words(seed))), shingles(" ".join(edited(words(seed), 0.01 + seed / 400, seed + 100)))
        errors.append((signature(a) == signature(b)).mean() - jaccard(a, b))
    assert abs(np.mean(errors)) < 0.01 and 0.01 < np.std(errors) < 0.035
